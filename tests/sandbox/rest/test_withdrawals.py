"""Withdrawals over HTTP: exact amounts, validation, and access to a user's own withdrawals only."""

from __future__ import annotations

from decimal import Decimal

import pytest

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.support.partner import ADDRESS, Key, Partner, quoine_jwt, status_and_json

INVALID = (422, {"message": "Token is invalid"})


def test_a_withdrawal_is_made_and_found_again(by_hand: Partner, user: Key) -> None:
    response = by_hand.withdraw(user, by_hand.code(user))
    number = response.json()["id"]
    assert response.text == f'{{"id": {number}, "amount": 0.5, "address": "{ADDRESS}", "state": "pending"}}'
    assert by_hand.withdrawal(user, number).text == response.text


@pytest.mark.parametrize("amount", ["0.10000001", "9.99999999", "0.0001", "1", "0.50"])
def test_amounts_keep_every_digit(by_hand: Partner, user: Key, amount: str) -> None:
    response = by_hand.withdraw(user, by_hand.code(user), amount)
    assert f'"amount": {amount},' in response.text
    assert by_hand.control.state()["withdrawals"][0]["amount"] == amount


def test_amounts_can_be_strings() -> None:
    with SandboxServer(SandboxSettings(withdrawal_amounts="string")) as sandbox:
        partner = Partner(sandbox)
        user = partner.approved_user()
        assert partner.withdraw(user, partner.code(user), "0.10000001").json()["amount"] == "0.10000001"


@pytest.mark.parametrize(
    ("amount", "address", "errors"),
    [
        ("10.00000001", ADDRESS, {"user": ["not_enough_fund"]}),
        ("0.00009999", ADDRESS, {"amount": ["below_minimum"]}),
        ("0", ADDRESS, {"amount": ["below_minimum"]}),
        ("-1", ADDRESS, {"amount": ["below_minimum"]}),
        ("0.123456789", ADDRESS, {"amount": ["more than 8 decimals"]}),
        ('"0.5"', ADDRESS, {"amount": ["is not a number"]}),
        ("true", ADDRESS, {"amount": ["is not a number"]}),
        ("null", ADDRESS, {"amount": ["is not a number"]}),
        ("0.5", "", {"address": ["can't be blank"]}),
        ("0.5", "not an address", {"address": ["invalid_address"]}),
        ("0.5", ADDRESS + " ", {"address": ["invalid_address"]}),
        ("0.5", ADDRESS.replace("W", "0"), {"address": ["invalid_address"]}),
    ],
)
def test_what_is_wrong_is_refused(
    by_hand: Partner, user: Key, amount: str, address: str, errors: dict[str, list[str]]
) -> None:
    assert status_and_json(by_hand.withdraw(user, by_hand.code(user), amount, address)) == (422, {"errors": errors})
    assert by_hand.control.state()["withdrawals"] == []


@pytest.mark.parametrize("amount", ["5E-1", "NaN", "Infinity", ".5", "0.5,", "0x1"])
def test_an_amount_that_is_not_a_plain_json_number_is_a_bad_request(by_hand: Partner, user: Key, amount: str) -> None:
    assert by_hand.withdraw(user, "1", amount).status_code == 400


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ([], "param is missing or the value is empty: btc_withdrawal"),
        ({"auth_code": "1", "amount": 1}, "param is missing or the value is empty: btc_withdrawal"),
        ({"btc_withdrawal": {"amount": 1}}, "param is missing or the value is empty: auth_code"),
        ({"auth_code": 13332, "btc_withdrawal": {}}, "param is missing or the value is empty: auth_code"),
        ({"auth_code": "1", "btc_withdrawal": {"adress": "x"}}, "Unknown parameter: adress"),
    ],
)
def test_a_payload_of_wrong_shape_is_refused(by_hand: Partner, user: Key, payload: object, message: str) -> None:
    response = by_hand.call("POST", "/btc_withdrawals/", user, json=payload)
    assert status_and_json(response) == (422, {"message": message})


def test_a_form_in_place_of_json_is_refused(by_hand: Partner, user: Key) -> None:
    response = by_hand.call("POST", "/btc_withdrawals/", user, data={"auth_code": "1"})
    assert status_and_json(response) == (400, {"message": "Content-Type must be application/json"})


@pytest.mark.parametrize(
    "address", ["3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"]
)
def test_other_kinds_of_address_are_accepted(by_hand: Partner, user: Key, address: str) -> None:
    assert by_hand.withdraw(user, by_hand.code(user), address=address).json()["address"] == address


def test_a_cancelled_withdrawal_is_credited_back(by_hand: Partner, user: Key) -> None:
    first = by_hand.withdraw(user, by_hand.code(user), "9.5").json()["id"]
    assert by_hand.withdraw(user, by_hand.code(user), "1").status_code == 422
    by_hand.control.set_withdrawal(first, "cancelled")
    assert by_hand.withdraw(user, by_hand.code(user), "10").status_code == 200
    assert Decimal(by_hand.control.state()["users"][0]["balance"]) == 0


def test_another_user_s_withdrawal_is_not_found(by_hand: Partner, user: Key) -> None:
    number = by_hand.withdraw(user, by_hand.code(user)).json()["id"]
    other = by_hand.approved_user(email="other@example.com")
    for response in (by_hand.withdrawal(other, number), by_hand.withdrawal(user, number + 1)):
        assert status_and_json(response) == (404, {"message": "Not found"})


def test_the_vendor_s_key_has_no_access_to_a_user_s_calls(by_hand: Partner, user: Key) -> None:
    responses = [
        by_hand.call("GET", f"/users/{user.api_id}/auth_code", by_hand.vendor),
        by_hand.withdraw(by_hand.vendor, "1"),
        by_hand.withdrawal(by_hand.vendor, 1),
    ]
    assert [response.status_code for response in responses] == [503, 503, 503]
    assert by_hand.control.auth_codes() == []


def test_only_the_path_of_the_reference_is_taken_and_nothing_redirects(by_hand: Partner, user: Key) -> None:
    responses = [
        by_hand.call("POST", "/btc_withdrawals", user, json={}),
        by_hand.call("GET", "/btc_withdrawals/1/", user),
        by_hand.call("POST", "/users/onboarding/", by_hand.vendor),
    ]
    assert [response.status_code for response in responses] == [404, 404, 404]


def test_jwt_signs_every_call_too(by_hand: Partner, user: Key) -> None:
    by_hand.call("GET", f"/users/{user.api_id}/auth_code", user, sign=quoine_jwt).raise_for_status()
    code = by_hand.control.latest_code(user.api_id)
    payload = {"auth_code": code, "btc_withdrawal": {"amount": 0.5, "address": ADDRESS}}
    made = by_hand.call("POST", "/btc_withdrawals/", user, sign=quoine_jwt, json=payload).json()
    assert by_hand.call("GET", f"/btc_withdrawals/{made['id']}?x=1", user, sign=quoine_jwt).json() == made
