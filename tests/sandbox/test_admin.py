"""The controls and the page: the complete state, without secrets."""

from __future__ import annotations

import json

from tests.support.partner import PASSWORD, Partner


def test_state_has_every_request_and_counts_those_carried_out(by_hand: Partner) -> None:
    user = by_hand.approved_user()
    by_hand.withdraw(user, by_hand.code(user))
    by_hand.withdraw(user, "wrong")
    by_hand.call("GET", "/orders?x=1", user)
    state = by_hand.control.state()
    assert state["carried_out"] == {
        "POST /users/onboarding": 1,
        "POST /users/onboarding_status": 1,
        "GET /users/:user_id/auth_code": 1,
        "POST /btc_withdrawals/": 1,
    }
    assert [(seen["path"], seen["status"], seen["api_id"]) for seen in state["requests"]] == [
        ("/users/onboarding", 200, by_hand.vendor.api_id),
        ("/users/onboarding_status", 200, by_hand.vendor.api_id),
        (f"/users/{user.api_id}/auth_code", 200, user.api_id),
        ("/btc_withdrawals/", 200, user.api_id),
        ("/btc_withdrawals/", 422, user.api_id),
        ("/orders", 404, None),
    ]
    assert state["requests"][4]["reason"] == "auth_code is wrong, used up or expired"
    assert {seen["address"] for seen in state["requests"]} == {"127.0.0.1"}
    assert state["auth_codes"] == {"email": 1, "sms": 0, "app": 0}
    assert state["users"][0]["balance"] == "9.5"


def test_state_holds_no_secret(by_hand: Partner) -> None:
    user = by_hand.approved_user()
    code = by_hand.code(user)
    by_hand.withdraw(user, code)
    text = json.dumps(by_hand.control.state()["requests"]) + json.dumps(by_hand.control.state()["users"])
    for secret in (PASSWORD, user.secret, by_hand.vendor.secret):
        assert secret not in text
    assert code not in json.dumps([seen["path"] for seen in by_hand.control.state()["requests"]])
    assert by_hand.vendor.secret not in repr(by_hand.sandbox.settings)


def test_state_can_be_limited_to_the_latest_requests(by_hand: Partner) -> None:
    for number in range(3):
        by_hand.status(number)
    assert len(by_hand.control.state()["requests"]) == 3
    assert len(by_hand.control.state(requests=2)["requests"]) == 2


def test_reset_forgets_everything(by_hand: Partner) -> None:
    user = by_hand.approved_user()
    by_hand.code(user)
    by_hand.control.fault("truncated", "GET /btc_withdrawals/:id")
    by_hand.control.set_next_outcome("user", "DECLINED")
    by_hand.control.set_pace(0)
    by_hand.control.reset()
    state = by_hand.control.state()
    assert [state[what] for what in ("users", "withdrawals", "requests", "faults", "pace")] == [[], [], [], [], None]
    assert state["rate_limit"]["busiest_window"] == 0
    assert by_hand.control.auth_codes() == []
    by_hand.onboard()
    by_hand.control.set_pace(0)
    assert by_hand.control.state()["users"][0]["status"] == "APPROVED"


def test_the_page_is_served_and_loads_nothing_from_elsewhere(by_hand: Partner) -> None:
    import requests

    response = requests.get(by_hand.sandbox.url, timeout=60)
    assert response.headers["Content-Type"].startswith("text/html")
    assert "This is a sandbox, no exchange, no money" in response.text
    assert "http://" not in response.text
    assert "https://" not in response.text
