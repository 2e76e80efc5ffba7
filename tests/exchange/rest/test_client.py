"""The client against the sandbox exchange: whole lives of users and withdrawals, and what is refused before sending."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_quoine.exchange.errors import (
    QuoineAnswerLostError,
    QuoineConnectionError,
    QuoineError,
    QuoineInputError,
    QuoineNotFoundError,
    QuoineRateLimitedError,
    QuoineRefusedError,
    QuoineServerError,
    QuoineServiceUnavailableError,
    QuoineUnauthorizedError,
    QuoineUnreadableAnswerError,
)
from airflow_provider_quoine.exchange.models import (
    Document,
    OnboardingStatus,
    OnboardingUser,
    UserCredentials,
    make_password,
)
from airflow_provider_quoine.exchange.rest.auth import ApiAuth, JwtAuth
from airflow_provider_quoine.exchange.rest.client import QuoineClient
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.exchange.rest.conftest import SECRET, Documents, MakeClient, order

Auth = type[ApiAuth | JwtAuth]
ADDRESS = "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"
WITHDRAWALS = "POST /btc_withdrawals/"


@pytest.fixture
def exchange() -> Iterator[SandboxServer]:
    """A sandbox whose lives go on by hand only."""
    with SandboxServer(SandboxSettings(pace=None)) as server:
        yield server


@pytest.fixture(params=[ApiAuth, JwtAuth])
def scheme(request: pytest.FixtureRequest) -> Auth:
    """Either signing scheme."""
    chosen: Auth = request.param
    return chosen


@pytest.fixture
def vendor(exchange: SandboxServer, make_client: MakeClient) -> QuoineClient:
    """A client with the vendor's key."""
    return make_client(exchange.url, auth=ApiAuth(exchange.vendor_id, exchange.vendor_secret))


@pytest.fixture
def customer(
    exchange: SandboxServer,
    vendor: QuoineClient,
    make_client: MakeClient,
    user: OnboardingUser,
    documents: Documents,
) -> tuple[str, QuoineClient]:
    """An approved user's id, and a client with that user's own key."""
    password = make_password()
    user_id = vendor.create_onboarding_user(user=user, password=password, **documents)
    exchange.control.approve(user_id)
    key = vendor.get_onboarding_status(user_id=user_id, password=password).credentials
    assert key is not None
    return user_id, make_client(exchange.url, auth=ApiAuth(key.api_id, key.api_secret))


def code_for(exchange: SandboxServer, customer: tuple[str, QuoineClient]) -> str:
    user_id, client = customer
    assert client.request_auth_code(user_id=user_id).sent
    return exchange.control.latest_code(user_id)


def test_a_user_is_onboarded_and_withdraws_with_the_key_that_was_handed_out(
    exchange: SandboxServer, make_client: MakeClient, scheme: Auth, user: OnboardingUser, documents: Documents
) -> None:
    password = make_password()
    vendor = make_client(exchange.url, auth=scheme(exchange.vendor_id, exchange.vendor_secret))

    user_id = vendor.create_onboarding_user(user=user, password=password, **documents)
    assert vendor.get_onboarding_status(user_id=user_id, password=password).status == OnboardingStatus.PENDING
    exchange.control.approve(user_id)
    answer = vendor.get_onboarding_status(user_id=user_id, password=password)
    assert answer.status == OnboardingStatus.APPROVED
    assert answer.credentials is not None

    # As it is kept between tasks.
    key = UserCredentials.from_json(answer.credentials.to_json())
    customer = make_client(exchange.url, auth=scheme(key.api_id, key.api_secret))
    asked = customer.request_auth_code(user_id=user_id)
    assert asked.sent
    assert asked.message
    created = customer.create_withdrawal(order=order("0.10000001"), auth_code=exchange.control.latest_code(user_id))
    assert created.as_dict() == {"id": created.id, "amount": "0.10000001", "address": ADDRESS, "state": "pending"}
    exchange.control.set_withdrawal(created.id, "processed")
    assert customer.get_withdrawal(withdrawal_id=created.id).state == "processed"

    held = exchange.control.state()
    assert len(held["users"]) == 1
    (withdrawal,) = held["withdrawals"]
    assert (withdrawal["amount"], withdrawal["address"]) == ("0.10000001", ADDRESS)
    assert all(seen["status"] == 200 for seen in held["requests"])


def test_the_form_and_the_documents_arrive_as_they_were_given(
    exchange: SandboxServer, vendor: QuoineClient, user: OnboardingUser, documents: Documents
) -> None:
    vendor.create_onboarding_user(user=user, password=make_password(), **documents)

    (held,) = exchange.control.state()["users"]
    for name, value in user.form_fields().items():
        assert held[name] == value
    assert held["phone"] == "+819017901357"
    assert {name: kept["filename"] for name, kept in held["documents"].items()} == {
        name: document.name for name, document in documents.items() if isinstance(document, Document)
    }


def test_amounts_leave_as_exact_numbers_without_an_exponent(
    exchange: SandboxServer, customer: tuple[str, QuoineClient]
) -> None:
    amounts = ["0.0001", "0.00010001", "1", "0.1"]
    for amount in amounts:
        sent = customer[1].create_withdrawal(order=order(amount), auth_code=code_for(exchange, customer))
        assert sent.as_dict()["amount"] == amount

    assert [held["amount"] for held in exchange.control.state()["withdrawals"]] == amounts


def test_an_authenticator_app_means_that_no_code_was_sent(
    exchange: SandboxServer, customer: tuple[str, QuoineClient]
) -> None:
    exchange.control.set_next_outcome("auth_code", "app")
    user_id, client = customer

    asked = client.request_auth_code(user_id=user_id)

    assert not asked.sent
    assert "authenticator" in asked.message


def test_a_wrong_code_is_a_refusal_that_does_not_show_the_code(
    exchange: SandboxServer, customer: tuple[str, QuoineClient]
) -> None:
    with pytest.raises(QuoineRefusedError) as caught:
        customer[1].create_withdrawal(order=order("1"), auth_code="Token")

    assert caught.value.status == 422
    assert not caught.value.may_have_been_carried_out
    # The scrubber does not ask where a word comes from.
    assert caught.value.message == "*** is invalid"
    assert exchange.control.state()["withdrawals"] == []


def test_not_enough_money_is_told_in_the_exchanges_words(
    exchange: SandboxServer, customer: tuple[str, QuoineClient]
) -> None:
    code = code_for(exchange, customer)
    with pytest.raises(QuoineRefusedError, match="not_enough_fund") as caught:
        customer[1].create_withdrawal(order=order("1000"), auth_code=code)
    assert caught.value.message == "user: not_enough_fund"


def test_a_wrong_key_is_unauthorized(make_client: MakeClient, exchange: SandboxServer, scheme: Auth) -> None:
    client = make_client(exchange.url, auth=scheme(exchange.vendor_id, SECRET))

    with pytest.raises(QuoineUnauthorizedError):
        client.get_onboarding_status(user_id="1", password="x")


def test_a_clock_that_is_an_hour_behind_is_unauthorized(make_client: MakeClient, exchange: SandboxServer) -> None:
    auth = ApiAuth(exchange.vendor_id, exchange.vendor_secret, clock=lambda: datetime.now(UTC) - timedelta(hours=1))
    with pytest.raises(QuoineUnauthorizedError, match="machine's clock"):
        make_client(exchange.url, auth=auth).get_onboarding_status(user_id="1", password="x")


def test_what_is_not_there_is_not_found(customer: tuple[str, QuoineClient]) -> None:
    with pytest.raises(QuoineNotFoundError):
        customer[1].get_withdrawal(withdrawal_id="999999")


def test_the_wrong_key_for_a_call_is_no_access(vendor: QuoineClient) -> None:
    with pytest.raises(QuoineServiceUnavailableError) as caught:
        vendor.get_withdrawal(withdrawal_id="1")
    assert caught.value.message


def test_the_request_limit_tells_how_long_to_wait(make_client: MakeClient) -> None:
    with SandboxServer(SandboxSettings(pace=None, limit=3)) as exchange:
        client = make_client(exchange.url, auth=ApiAuth(exchange.vendor_id, exchange.vendor_secret))
        for _ in range(3):
            with pytest.raises(QuoineUnauthorizedError):
                client.get_onboarding_status(user_id="1", password="x")
        with pytest.raises(QuoineRateLimitedError) as caught:
            client.get_onboarding_status(user_id="1", password="x")

    assert 0 < caught.value.retry_after <= 300
    assert not caught.value.may_have_been_carried_out


FAULTS: dict[str, tuple[dict[str, object], type[QuoineError], bool, int]] = {
    "dropped before the work": ({"kind": "drop_before"}, QuoineAnswerLostError, True, 0),
    "dropped after the work": ({"kind": "drop_after"}, QuoineAnswerLostError, True, 1),
    "cut short after the work": ({"kind": "truncated"}, QuoineAnswerLostError, True, 1),
    "5xx before the work": ({"kind": "status", "status": 502, "when": "before"}, QuoineServerError, True, 0),
    "5xx after the work": ({"kind": "status", "status": 500, "when": "after"}, QuoineServerError, True, 1),
    "garbage after the work": ({"kind": "garbage"}, QuoineUnreadableAnswerError, True, 1),
    "too slow": ({"kind": "delay", "seconds": 2, "when": "after"}, QuoineAnswerLostError, True, 1),
    "refused": (
        {"kind": "status", "status": 422, "body": '{"message": "no"}', "content_type": "application/json"},
        QuoineRefusedError,
        False,
        0,
    ),
    "refused by something in between": (
        {"kind": "status", "status": 404, "body": "<h1>Not found</h1>", "content_type": "text/html", "when": "after"},
        QuoineServerError,
        True,
        1,
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_withdrawal_that_fails_leaves_once_and_tells_whether_it_may_be_there(
    exchange: SandboxServer,
    customer: tuple[str, QuoineClient],
    make_client: MakeClient,
    fault: tuple[dict[str, object], type[QuoineError], bool, int],
) -> None:
    how, kind, maybe, carried_out = fault
    code = code_for(exchange, customer)
    exchange.control.fault(endpoint=WITHDRAWALS, **how)  # type: ignore[arg-type]
    # All that is not too slow is waited for, as long as a busy machine may need.
    patience = 0.5 if how["kind"] == "delay" else 30.0
    quick = make_client(exchange.url, auth=customer[1]._auth, read_timeout=patience)

    with pytest.raises(QuoineError) as caught:
        quick.create_withdrawal(order=order("1"), auth_code=code)

    assert type(caught.value) is kind
    assert caught.value.may_have_been_carried_out is maybe
    assert code not in str(caught.value)
    wait_for(lambda: len(exchange.control.state()["withdrawals"]) == carried_out)
    assert [seen["endpoint"] for seen in exchange.control.state()["requests"]].count(WITHDRAWALS) == 1


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "it did not come true within 60 s"
        time.sleep(0.02)


def test_a_closed_port_sent_nothing(exchange: SandboxServer, customer: tuple[str, QuoineClient]) -> None:
    code = code_for(exchange, customer)
    exchange.control.fault("refuse", seconds=60)

    with pytest.raises(QuoineConnectionError):
        customer[1].create_withdrawal(order=order("1"), auth_code=code)


REFUSED_BEFORE_SENDING: dict[str, Callable[[QuoineClient], object]] = {
    "id with a slash": lambda client: client.get_withdrawal(withdrawal_id="20/../../users/1"),
    "id with a query": lambda client: client.get_withdrawal(withdrawal_id="20?x=y"),
    "id with a dot": lambda client: client.request_auth_code(user_id="."),
    "id empty": lambda client: client.get_withdrawal(withdrawal_id=""),
    "id None": lambda client: client.get_withdrawal(withdrawal_id=None),  # type: ignore[arg-type]
    "id not rendered": lambda client: client.request_auth_code(user_id="{{ user_id }}"),
    "id in full-width digits": lambda client: client.get_withdrawal(withdrawal_id="\uff12\uff10"),
    "id of a user": lambda client: client.get_onboarding_status(user_id="2 5", password="x"),
    "password empty": lambda client: client.get_onboarding_status(user_id="25", password=""),
    "amount a float": lambda client: client.create_withdrawal(
        order=order(0.5),
        auth_code="1",
    ),
    "amount zero": lambda client: client.create_withdrawal(order=order("0"), auth_code="1"),
    "amount too fine": lambda client: client.create_withdrawal(order=order("0.000000001"), auth_code="1"),
    "address with a blank": lambda client: client.create_withdrawal(order=order("1", f"{ADDRESS} "), auth_code="1"),
    "address empty": lambda client: client.create_withdrawal(order=order("1", ""), auth_code="1"),
    "code empty": lambda client: client.create_withdrawal(order=order("1"), auth_code=" "),
    "code None": lambda client: client.create_withdrawal(
        order=order("1"),
        auth_code=None,  # type: ignore[arg-type]
    ),
}


@pytest.mark.parametrize("call", REFUSED_BEFORE_SENDING.values(), ids=REFUSED_BEFORE_SENDING.keys())
def test_bad_input_is_refused_before_anything_is_sent(
    exchange: SandboxServer, vendor: QuoineClient, call: Callable[[QuoineClient], object]
) -> None:
    with pytest.raises(QuoineInputError):
        call(vendor)

    assert exchange.control.state()["requests"] == []


def test_a_weak_password_is_refused_before_sending_and_not_shown(
    exchange: SandboxServer, vendor: QuoineClient, user: OnboardingUser, documents: Documents
) -> None:
    with pytest.raises(QuoineInputError) as caught:
        vendor.create_onboarding_user(user=user, password="nodigits-Here", **documents)

    assert "nodigits" not in str(caught.value)
    assert exchange.control.state()["requests"] == []


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "api.quoine.com",
        "ftp://api.quoine.com",
        "https://",
        "https://api.quoine.com:port",
        "https://[::1",
        "https://user:secret@api.quoine.com",
        "https://api.quoine.com/?key=secret",
        "https://api.quoine.com/#top",
        "http://api.quoine.com",
        "http://10.0.0.1",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
    ],
)
def test_a_base_url_that_cannot_be_used_safely_is_refused(make_client: MakeClient, base_url: str) -> None:
    with pytest.raises(QuoineInputError) as caught:
        make_client(base_url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "base_url",
    [
        "https://api.quoine.com/",
        "https://10.0.0.1:8443/quoine",
        "http://localhost:1",
        "http://[::1]:1",
        "http://127.8.8.8",
    ],
)
def test_https_anywhere_and_http_on_this_machine_are_taken(make_client: MakeClient, base_url: str) -> None:
    make_client(base_url)


@pytest.mark.parametrize(
    "given",
    [{"verify": False}, {"verify": ""}, {"verify": "/nowhere/ca.pem"}, {"connect_timeout": 0}, {"read_timeout": -1}]
    + [{"read_timeout": float(value)} for value in ("inf", "nan")],
)
def test_tls_is_always_verified_and_time_outs_are_always_set(make_client: MakeClient, given: dict[str, object]) -> None:
    with pytest.raises(QuoineInputError):
        make_client("https://api.quoine.com", **given)


def test_nothing_of_a_whole_life_is_secret_in_the_log(
    exchange: SandboxServer,
    make_client: MakeClient,
    caplog: pytest.LogCaptureFixture,
    user: OnboardingUser,
    documents: Documents,
) -> None:
    password = make_password()
    with caplog.at_level(logging.DEBUG):
        vendor = make_client(exchange.url, auth=ApiAuth(exchange.vendor_id, exchange.vendor_secret))
        user_id = vendor.create_onboarding_user(user=user, password=password, **documents)
        exchange.control.approve(user_id)
        key = vendor.get_onboarding_status(user_id=user_id, password=password).credentials
        assert key is not None
        customer = make_client(exchange.url, auth=ApiAuth(key.api_id, key.api_secret))
        customer.request_auth_code(user_id=user_id)
        code = exchange.control.latest_code(user_id)
        customer.create_withdrawal(order=order("1"), auth_code=code)

    assert "/btc_withdrawals/" in caplog.text
    for secret in (password, exchange.vendor_secret, key.api_secret, f'"{code}"', "APIAuth"):
        assert secret not in caplog.text


def test_a_client_is_closed_with_its_block(exchange: SandboxServer) -> None:
    # Warnings are errors here, an unclosed socket among them.
    with (
        QuoineClient(
            base_url=exchange.url,
            auth=ApiAuth(exchange.vendor_id, exchange.vendor_secret),
            connect_timeout=5,
            read_timeout=5,
        ) as client,
        pytest.raises(QuoineUnauthorizedError),
    ):
        client.get_onboarding_status(user_id="1", password="x")
