"""Verification of signatures: the test vectors are accepted, everything else is refused."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.rest.auth import Verifier
from tests.support.clock import ManualClock
from tests.support.partner import Key, token

# Test vectors of the exchange, quoted exactly.
SECRET = "XMDwUjclch9IVNfuVjep23tMZRhPk0GId0mwFO2N1RPF8WZQ=="
DATE = "Sat, 27 Sep 2014 04:55:17 GMT"
NONCE = "0599e5ed6cbb522053f4faf4eccfbd3a"
JSON_BODY = b'{"auth_code":"13332","btc_withdrawal":{"amount":0.5,"address":"1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"}}'
FORM_BODY = b'--b0undary\r\nContent-Disposition: form-data; name="user_id"\r\n\r\n25\r\n--b0undary--\r\n'
APIAUTH = [
    ("application/json", "", b"", "/btc_withdrawals/20", "YQWc2ZdxsTIfMihJm2Y9HWfnM5w="),
    ("application/json", "", b"", "/orders?currency_pair_code=BTCUSD", "iE3Kusv38haeFvlyK6WV3zL9Z8s="),
    ("application/json", "nxZvBBMYmtJBqinXB+bB3Q==", JSON_BODY, "/btc_withdrawals/", "crIR2FqUtrWr4FQWWtOTNDL99C4="),
    (
        "multipart/form-data; boundary=b0undary",
        "iHXBkrS7DiU1jnAPy98t1w==",
        FORM_BODY,
        "/users/onboarding",
        "Nzxuc/vIVQ+dtvG+E33Nod36rbI=",
    ),
]
JWT = (
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJwYXRoIjoiL2J0Y193aXRoZHJhd2Fscy8yMCIsIm5vbmNlIjoiMTQ1OTE0MjUyNDQ4OCIs"
    "InRva2VuX2lkIjoiMjUifQ.YYAuPABBOPx9EVDkrcKvIv_BTUiEZYIL9I-Bj9D9qzA"
)
JWT_TARGET = "/btc_withdrawals/20"


@pytest.fixture
def verifier(clock: ManualClock) -> Verifier:
    return Verifier(secret_of={"25": SECRET}.get, clock=clock, date_tolerance=900)


def signed(case: int = 0, changes: dict[str, str] | None = None) -> dict[str, Any]:
    """The request of a test vector; ``changes`` replaces headers after signing."""
    content_type, md5, body, target, signature = APIAUTH[case]
    headers = {
        "content-type": content_type,
        "date": DATE,
        "nonce": NONCE,
        "authorization": f"APIAuth 25:{signature}",
    } | ({"content-md5": md5} if md5 else {})
    return {"target": target, "headers": headers | (changes or {}), "body": body}


def with_jwt(value: str, **changes: str) -> dict[str, Any]:
    headers = {"x-quoine-api-version": "2", "x-quoine-auth": value} | changes
    return {"target": JWT_TARGET, "headers": headers, "body": b""}


def refused(verifier: Verifier, request: dict[str, Any]) -> tuple[str, str]:
    """Return the text of the refusal, and the recorded reason."""
    with pytest.raises(Refusal) as caught:
        verifier.verify(**request)
    assert caught.value.status == 401
    assert isinstance(caught.value.content, str), "401 is plain text"
    return caught.value.content, caught.value.reason


@pytest.mark.parametrize("case", range(len(APIAUTH)))
def test_vectors_of_apiauth_are_accepted(verifier: Verifier, case: int) -> None:
    assert verifier.verify(**signed(case)) == "25"


def test_the_vector_of_jwt_is_accepted(verifier: Verifier) -> None:
    assert verifier.verify(**with_jwt(JWT)) == "25"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"authorization": ""}, "no signature"),
        ({"authorization": "Bearer 25:YQWc2ZdxsTIfMihJm2Y9HWfnM5w="}, "no signature"),
        ({"authorization": "APIAuth 26:YQWc2ZdxsTIfMihJm2Y9HWfnM5w="}, "unknown api_id"),
        ({"authorization": "APIAuth 25:ZZZc2ZdxsTIfMihJm2Y9HWfnM5w="}, "signature does not match"),
        ({"authorization": "APIAuth 25:é"}, "signature does not match"),
        ({"content-type": "application/json; charset=utf-8"}, "signature does not match"),
        ({"nonce": "1" * 32}, "signature does not match"),
        ({"nonce": "1" * 31}, "NONCE is not 32 hex characters"),
        ({"nonce": ""}, "NONCE is not 32 hex characters"),
        ({"date": "Sat, 27 Sep 2014 04:55:18 GMT"}, "signature does not match"),
        ({"date": "2014-09-27T04:55:17Z"}, "Date is missing or not in RFC 7231 form"),
        ({"date": "27 Sep 2014 04:55:17 GMT"}, "Date is missing or not in RFC 7231 form"),
        ({"date": ""}, "Date is missing or not in RFC 7231 form"),
    ],
)
def test_a_changed_header_is_refused(verifier: Verifier, changes: dict[str, str], reason: str) -> None:
    assert refused(verifier, signed(0, changes)) == ("API Authentication failed", reason)


def test_another_path_or_query_is_refused(verifier: Verifier) -> None:
    request = signed(1) | {"target": "/orders?currency_pair_code=BTCEUR"}
    assert refused(verifier, request)[1] == "signature does not match"


def test_a_changed_body_is_refused(verifier: Verifier) -> None:
    request = signed(2) | {"body": JSON_BODY.replace(b"0.5", b"5.0")}
    assert refused(verifier, request)[1] == "Content-MD5 is not that of the body"


@pytest.mark.parametrize("off", [-900, 900])
def test_a_date_at_the_edge_of_the_tolerance_is_accepted(verifier: Verifier, clock: ManualClock, off: int) -> None:
    clock.seconds += off
    assert verifier.verify(**signed()) == "25"


@pytest.mark.parametrize(
    ("off", "words"), [(901, "Date is older than 900 seconds"), (-901, "Date is more than 900 seconds ahead")]
)
def test_a_wrong_clock_is_refused_with_the_reason(verifier: Verifier, clock: ManualClock, off: int, words: str) -> None:
    clock.seconds += off
    assert refused(verifier, signed())[0] == f"API Authentication failed: {words}"


def test_a_nonce_is_valid_once_per_key(verifier: Verifier) -> None:
    verifier.verify(**signed(0))
    assert refused(verifier, signed(1)) == ("API Authentication failed", "NONCE was seen before")


def test_a_nonce_is_remembered_as_long_as_its_date_is_valid(verifier: Verifier, clock: ManualClock) -> None:
    clock.seconds -= 900
    verifier.verify(**signed())
    clock.seconds += 1800
    assert refused(verifier, signed())[1] == "NONCE was seen before"


def test_a_refused_request_uses_no_nonce_up(verifier: Verifier) -> None:
    refused(verifier, signed(0, {"authorization": "APIAuth 25:ZZZc2ZdxsTIfMihJm2Y9HWfnM5w="}))
    assert verifier.verify(**signed()) == "25"


def claims(**changes: Any) -> dict[str, Any]:
    return {"path": JWT_TARGET, "nonce": "1459142524488", "token_id": "25"} | changes


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no token", "JWT: Not enough segments"),
        (token(Key("25", "x" * 40), claims()), "JWT: Signature verification failed"),
        (token(Key("25", SECRET), claims(), alg="none"), "JWT: The specified alg value is not allowed"),
        (token(Key("25", SECRET), claims(token_id="26")), "unknown api_id"),
        (token(Key("25", SECRET), claims(path="/btc_withdrawals/21")), "JWT: path is not that of the request"),
        (token(Key("25", SECRET), claims(path="/btc_withdrawals/20?x=1")), "JWT: path is not that of the request"),
        (token(Key("25", SECRET), claims(nonce="abc")), "JWT: nonce is not a number"),
        (token(Key("25", SECRET), {"path": JWT_TARGET, "token_id": "25"}), "JWT: nonce is not a number"),
    ],
)
def test_a_wrong_token_is_refused(verifier: Verifier, value: str, reason: str) -> None:
    assert refused(verifier, with_jwt(value)) == ("API Authentication failed", reason)


def test_a_token_without_its_version_header_is_refused(verifier: Verifier) -> None:
    assert refused(verifier, with_jwt(JWT, **{"x-quoine-api-version": "1"}))[1] == "X-Quoine-API-Version is not 2"


@pytest.mark.parametrize("nonce", ["1459142524488", "1459142524487", 1])
def test_a_nonce_of_a_token_must_grow(verifier: Verifier, nonce: str | int) -> None:
    verifier.verify(**with_jwt(JWT))
    value = token(Key("25", SECRET), claims(nonce=nonce))
    assert refused(verifier, with_jwt(value)) == ("Nonce is too small", "Nonce is too small")


def test_a_growing_nonce_is_accepted_as_number_and_as_string(verifier: Verifier) -> None:
    for nonce in (1, "2", 10):
        value = token(Key("25", SECRET), claims(nonce=nonce))
        assert verifier.verify(**with_jwt(value)) == "25"
