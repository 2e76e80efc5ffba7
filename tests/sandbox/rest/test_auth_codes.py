"""Authentication codes, over HTTP: each is valid once, for its own user, and for a limited time."""

from __future__ import annotations

import pytest

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.support.clock import ManualClock
from tests.support.partner import Key, Partner, status_and_json

INVALID = (422, {"message": "Token is invalid"})


def test_a_code_is_valid_once(by_hand: Partner, user: Key) -> None:
    code = by_hand.code(user)
    assert by_hand.withdraw(user, code).status_code == 200
    assert status_and_json(by_hand.withdraw(user, code)) == INVALID
    assert len(by_hand.control.state()["withdrawals"]) == 1


def test_a_wrong_code_is_refused_and_the_right_one_stays_valid(by_hand: Partner, user: Key) -> None:
    code = by_hand.code(user)
    for wrong in (code[::-1], code[:-1], code + "0", " " + code, "٣" * len(code)):
        assert status_and_json(by_hand.withdraw(user, wrong)) == INVALID
    assert by_hand.withdraw(user, code).status_code == 200


def test_before_a_code_is_requested_none_is_valid(by_hand: Partner, user: Key) -> None:
    assert status_and_json(by_hand.withdraw(user, "00000")) == INVALID


def test_a_new_code_ends_the_one_before(by_hand: Partner, user: Key) -> None:
    first, second = by_hand.code(user), by_hand.code(user)
    assert status_and_json(by_hand.withdraw(user, first)) == INVALID
    assert by_hand.withdraw(user, second).status_code == 200


def test_a_code_is_used_up_even_if_the_withdrawal_is_refused(by_hand: Partner, user: Key) -> None:
    code = by_hand.code(user)
    assert by_hand.withdraw(user, code, "11").status_code == 422
    assert status_and_json(by_hand.withdraw(user, code)) == INVALID


def test_a_request_of_wrong_form_uses_no_code_up(by_hand: Partner, user: Key) -> None:
    code = by_hand.code(user)
    assert by_hand.withdraw(user, code, '"0.5"').status_code == 422
    assert by_hand.withdraw(user, code).status_code == 200


def test_another_user_s_code_is_wrong(by_hand: Partner, user: Key) -> None:
    other = by_hand.approved_user(email="other@example.com")
    by_hand.code(user)
    assert status_and_json(by_hand.withdraw(user, by_hand.code(other))) == INVALID


@pytest.mark.parametrize(("age", "status"), [(299, 200), (300, 422)])
def test_a_code_expires(age: int, status: int) -> None:
    clock = ManualClock(1.8e9)
    with SandboxServer(SandboxSettings(pace=0, date_tolerance=1e10, clock=clock)) as sandbox:
        partner = Partner(sandbox)
        user = partner.approved_user()
        code = partner.code(user)
        clock.seconds += age
        assert partner.withdraw(user, code).status_code == status


def test_a_code_for_another_user_is_refused(by_hand: Partner, user: Key) -> None:
    other = by_hand.approved_user(email="other@example.com")
    response = by_hand.call("GET", f"/users/{other.api_id}/auth_code", user)
    assert status_and_json(response) == (401, {"message": "Unauthorized access"})
    assert by_hand.control.auth_codes() == []


@pytest.mark.parametrize(
    ("by", "response"),
    [
        ("email", {"message": "Email token was sent", "email_sent": True}),
        ("sms", {"message": "SMS token was sent"}),
        ("app", {"message": "Token was ignored: the user has an authenticator app", "ignored": True}),
    ],
)
def test_the_delivery_of_a_code_can_be_set(by_hand: Partner, user: Key, by: str, response: dict[str, object]) -> None:
    by_hand.control.set_next_outcome("auth_code", by)
    assert status_and_json(by_hand.call("GET", f"/users/{user.api_id}/auth_code", user)) == (200, response)
    assert by_hand.control.state()["auth_codes"][by] == 1
    assert by_hand.withdraw(user, by_hand.control.latest_code(user.api_id)).status_code == 200
