"""
Forty answers to a write, and what each one proves.

The words are data: *refused* may be sent again, *doubt* may have been carried out, *done* is a success.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_quoine.exchange.errors import QuoineResponseError
from airflow_provider_quoine.exchange.models import OnboardingUser
from airflow_provider_quoine.exchange.rest.client import QuoineClient
from tests.exchange.rest.conftest import SECRET, Documents, MakeClient, order
from tests.exchange.rest.raw_server import answer, http_answer, raw_server

CODE = "771133"
REFUSED, DOUBT, DONE = "refused", "doubt", "done"
JSON, TEXT, HTML, NONE = "application/json; charset=utf-8", "text/plain", "text/html; charset=utf-8", ""
PROBLEM = "application/problem+json"
LIMIT = "API rate limit exceeded. Please retry after 300s"
PAGE = "<html><head><title>Blocked</title></head><body><p>Ask&nbsp;IT</p></body></html>"

#: Status, content type, body, verdict: for every write.
ANSWERS = [
    # The refusals on record.
    (400, JSON, '{"message": "Bad request"}', REFUSED),
    (401, JSON, '{"message": "Unauthorized access"}', REFUSED),
    (401, TEXT, "API Authentication failed", REFUSED),
    (401, TEXT, "API Authentication failed: Date is older than 900 seconds", REFUSED),
    (401, TEXT, "Nonce is too small\n", REFUSED),
    (422, JSON, '{"message": "Token is invalid"}', REFUSED),
    (422, JSON, '{"success": false, "message": "Password cannot be blank"}', REFUSED),
    (422, JSON, '{"errors": {"user": ["not_enough_fund"]}}', REFUSED),
    (422, JSON, '{"error": "no", "code": 7, "additional_data": {"a": 1}}', REFUSED),
    (422, JSON, '{"error": {"msg": "no"}}', REFUSED),
    (429, TEXT, LIMIT, REFUSED),
    (200, JSON, '{"success": false, "message": "Password cannot be blank"}', REFUSED),
    # On record with several meanings.
    (503, JSON, '{"message": "Your application has no access to this API call"}', DOUBT),
    # Pages of something in between.
    (301, HTML, PAGE, DOUBT),
    (400, HTML, PAGE, DOUBT),
    (401, HTML, PAGE, DOUBT),
    (403, HTML, PAGE, DOUBT),
    (404, HTML, PAGE, DOUBT),
    (422, HTML, PAGE, DOUBT),
    (429, HTML, PAGE, DOUBT),
    (502, HTML, PAGE, DOUBT),
    (503, HTML, PAGE, DOUBT),
    (200, HTML, PAGE, DOUBT),
    # Its JSON.
    (400, JSON, '{"timestamp": 1, "status": 400, "error": "Bad Request", "path": "/"}', DOUBT),
    (401, JSON, '{"fault": {"faultstring": "Invalid key"}}', DOUBT),
    (403, JSON, '{"message": "Forbidden"}', DOUBT),
    (404, JSON, '{"message": "no Route matched with those values"}', DOUBT),
    (422, PROBLEM, '{"message": "no"}', DOUBT),
    (429, JSON, '{"message": "Too Many Requests"}', DOUBT),
    (429, JSON, '{"error": {"code": 429, "message": "Quota exceeded"}}', DOUBT),
    (500, JSON, '{"message": "no"}', DOUBT),
    # A right status, and another type or body.
    (401, HTML, "API Authentication failed", DOUBT),
    (401, NONE, "Nonce is too small", DOUBT),
    (422, TEXT, '{"message": "no"}', DOUBT),
    (422, JSON, "", DOUBT),
    (422, JSON, '{"message": "Token is inv', DOUBT),
    (422, JSON, '{"message": ""}', DOUBT),
    (422, JSON, '{"message": ["no"]}', DOUBT),
    (422, JSON, '["no"]', DOUBT),
    (422, JSON, '{"errors": {"user": "no"}}', DOUBT),
    (422, JSON, '{"errors": {}}', DOUBT),
    (422, JSON, '{"error": {"msg": "no", "id": 20}}', DOUBT),
    (200, JSON, '{"message": "no"}', DOUBT),
    (422, JSON, '{"message": "no"}' + " " * 70_000, DOUBT),
    (429, TEXT, "slow down", DOUBT),
    # Contradictions.
    (422, JSON, '{"success": true, "message": "no"}', DOUBT),
    (422, JSON, '{"message": "no", "id": 20}', DOUBT),
    (200, JSON, '{"success": false}', DOUBT),
    (200, JSON, '{"success": false, "id": 20}', DOUBT),
    (200, JSON, '{"success": false, "message": "no", "user_id": 25}', DOUBT),
    (201, JSON, '{"success": false, "message": "no"}', DOUBT),
    # A key twice: what the exchange meant is unknown.
    (200, JSON, '{"success": true, "success": false, "message": "no"}', DOUBT),
    (422, JSON, '{"message": {"id": 20, "state": "pending"}, "message": "no"}', DOUBT),
    (422, JSON, '{"error": {"id": 20, "state": "pending"}, "error": "no"}', DOUBT),
    (422, JSON, '{"message": "no", "additional_data": {"a": 1, "a": 2}}', DOUBT),
    # An id, only deeper.
    (
        422,
        JSON,
        '{"success": false, "message": "no", "additional_data": {"id": 20, "amount": 0.5, "state": "pending"}}',
        DOUBT,
    ),
    (422, JSON, '{"message": "no", "code": {"id": 20, "state": "pending"}}', DOUBT),
    (422, JSON, '{"message": "no", "code": [20]}', DOUBT),
    *(
        (422, JSON, f'{{"message": "no", "additional_data": {deeper}}}', DOUBT)
        for deeper in ("20", "[20]", '{"User_ID": 25}', '{"State": "pending"}', '{"made": {"a": 1}}', '{"made": [20]}')
    ),
]

ADDRESS = "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"
TAKEN = f'"address": "{ADDRESS}", "state": "pending"'
#: The same for a withdrawal of 0.5 BTC.
WITHDRAWALS = [
    (200, JSON, f'{{"id": 20, "amount": 0.5, {TAKEN}}}', DONE),
    (201, NONE, f'{{"id": "20", "amount": "0.50", {TAKEN}}}', DONE),
    *(
        (200, JSON, f'{{"id": {given}, "amount": 0.5, {TAKEN}}}', DOUBT)
        for given in ("-1", "0", '"0"', '"abc"', '"-1"', '"020"', "true", "20.0", "2e1", "[20]", "null", '""', '"2-0"')
    ),
    (200, JSON, f'{{"amount": 0.5, {TAKEN}}}', DOUBT),
    (200, JSON, f'{{"id": 20, "amount": 0.51, {TAKEN}}}', DOUBT),
    (200, JSON, f'{{"id": 20, "amount": "5", {TAKEN}}}', DOUBT),
    (
        200,
        JSON,
        '{"id": 20, "amount": 0.5, "address": "1BoatSLRHtKNngkdXEeobR76b53LETtpyT", "state": "pending"}',
        DOUBT,
    ),
    (200, JSON, '{"id": 20, "amount": 0.5, "address": "1ACi", "state": "pending"}', DOUBT),
    (200, JSON, f'{{"success": false, "id": 20, "amount": 0.5, {TAKEN}}}', DOUBT),
    # A key twice: which of the two is it?
    (200, JSON, f'{{"id": 19, "id": 20, "amount": 0.5, {TAKEN}}}', DOUBT),
    (200, JSON, f'{{"id": 20, "amount": 5, "amount": 0.5, {TAKEN}}}', DOUBT),
]
#: The same for a new user.
USERS = [
    (200, JSON, '{"success": true, "user_id": 25}', DONE),
    (201, NONE, '{"success": true, "user_id": "25"}', DONE),
    *(
        (200, JSON, f'{{"success": true, "user_id": {given}}}', DOUBT)
        for given in ("-1", "0", '"abc"', "true", "25.0", "[25]", "null")
    ),
    (200, JSON, '{"success": true}', DOUBT),
    (200, JSON, '{"user_id": 25}', DOUBT),
    (200, JSON, '{"success": false, "user_id": 25}', DOUBT),
    (200, JSON, '{"success": true, "user_id": 24, "user_id": 25}', DOUBT),
]


def check(make_client: MakeClient, given: tuple[int, str, str, str], write: Callable[[QuoineClient], Any]) -> None:
    status, content_type, body, verdict = given
    headers = [f"Content-Type: {content_type}"] if content_type else []
    with raw_server(answer(http_answer(status, body.encode(), *headers))) as server:
        client = make_client(server.url)
        if verdict == DONE:
            assert write(client) in ("20", "25")
            return
        with pytest.raises(QuoineResponseError) as caught:
            write(client)
    error, words = caught.value, str(caught.value)
    assert error.may_have_been_carried_out is (verdict == DOUBT)
    assert ("nothing was done" in words) is (verdict == REFUSED)
    assert f"HTTP {status}" in words
    assert len(words) < 1200
    if verdict == DOUBT and status != 503:
        assert (content_type or "unknown type") in words
        # JSON is quoted without the blanks between its parts.
        first = "Blocked Ask IT" if body == PAGE else body[:8]
        assert "".join(first.split()) in "".join(words.split())


@pytest.mark.parametrize(
    "given", [*ANSWERS, *WITHDRAWALS], ids=lambda given: f"{given[0]} {given[1][:16]} {given[2][:40]}"
)
def test_an_answer_to_a_withdrawal(make_client: MakeClient, given: tuple[int, str, str, str]) -> None:
    check(make_client, given, lambda client: client.create_withdrawal(order=order("0.5"), auth_code=CODE).id)


@pytest.mark.parametrize("given", [*ANSWERS, *USERS], ids=lambda given: f"{given[0]} {given[1][:16]} {given[2][:40]}")
def test_an_answer_to_a_new_user(
    make_client: MakeClient, user: OnboardingUser, documents: Documents, given: tuple[int, str, str, str]
) -> None:
    check(
        make_client,
        given,
        lambda client: client.create_onboarding_user(user=user, password="Abcdefg1", **documents),
    )


def test_an_address_in_another_case_is_the_orders(make_client: MakeClient) -> None:
    segwit = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
    body = f'{{"id": 20, "amount": 0.5, "address": "{segwit.upper()}", "state": "pending"}}'
    with raw_server(answer(http_answer(200, body.encode()))) as server:
        created = make_client(server.url).create_withdrawal(order=order("0.5", segwit), auth_code=CODE)
    assert created.address == segwit.upper()


def test_an_answer_in_doubt_is_quoted_without_the_code_and_the_secret(make_client: MakeClient) -> None:
    page = f"<p>{SECRET} and {CODE} are blocked</p>".encode()
    given = answer(http_answer(403, page, f"Content-Type: text/html; key={SECRET}"))
    with raw_server(given) as server, pytest.raises(QuoineResponseError) as caught:
        make_client(server.url).create_withdrawal(order=order("0.5"), auth_code=CODE)
    assert "*** and *** are blocked" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert CODE not in str(caught.value)
