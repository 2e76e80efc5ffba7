"""Every fault of the partner API, over a real socket: the client's view, and whether the request was carried out."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import pytest
import requests

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.support.partner import Key, Partner
from tests.support.pusher_clients import wait_until

CREATE = "POST /btc_withdrawals/"
GET = "GET /btc_withdrawals/:id"


def made(partner: Partner) -> int:
    return len(partner.control.state()["withdrawals"])


def last(partner: Partner) -> dict[str, Any]:
    request: dict[str, Any] = partner.control.state(requests=1)["requests"][0]
    return request


@pytest.mark.parametrize(("kind", "done"), [("drop_before", 0), ("drop_after", 1)])
def test_the_socket_is_reset_without_a_byte(by_hand: Partner, user: Key, kind: str, done: int) -> None:
    code = by_hand.code(user)
    by_hand.control.fault(kind, CREATE)
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        by_hand.withdraw(user, code)
    assert made(by_hand) == done
    seen = last(by_hand)
    assert (seen["fault"], seen["carried_out"], seen["status"]) == (kind, bool(done), None)


@pytest.mark.parametrize(("when", "done"), [("before", 0), ("after", 1)])
def test_a_status_replaces_the_response(by_hand: Partner, user: Key, when: str, done: int) -> None:
    code = by_hand.code(user)
    by_hand.control.fault("status", CREATE, when=when, status=502, body="<h1>Bad</h1>", content_type="text/html")
    response = by_hand.withdraw(user, code)
    assert (response.status_code, response.text) == (502, "<h1>Bad</h1>")
    assert response.headers["Content-Type"].startswith("text/html")
    assert made(by_hand) == done


@pytest.mark.parametrize(("when", "done"), [("before", 0), ("after", 1)])
def test_garbage_comes_with_200(by_hand: Partner, user: Key, when: str, done: int) -> None:
    code = by_hand.code(user)
    by_hand.control.fault("garbage", CREATE, when=when)
    response = by_hand.withdraw(user, code)
    assert response.status_code == 200
    with pytest.raises(requests.JSONDecodeError):
        response.json()
    assert made(by_hand) == done


def test_a_truncated_body_is_shorter_than_it_says(by_hand: Partner, user: Key) -> None:
    code = by_hand.code(user)
    by_hand.control.fault("truncated", CREATE)
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        by_hand.withdraw(user, code)
    assert made(by_hand) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_delay_delays_the_response_and_carries_the_request_out(by_hand: Partner, user: Key, when: str) -> None:
    code = by_hand.code(user)
    by_hand.control.fault("delay", CREATE, when=when, seconds=0.3)
    start = time.monotonic()
    assert by_hand.withdraw(user, code).status_code == 200
    assert 0.3 <= time.monotonic() - start < 60
    assert made(by_hand) == 1


@pytest.mark.parametrize(("when", "done"), [("before", 0), ("after", 1)])
def test_a_request_is_carried_out_before_or_after_a_delay_which_does_not_delay_stopping(when: str, done: int) -> None:
    with SandboxServer(SandboxSettings(pace=None)) as sandbox:
        partner = Partner(sandbox)
        user = partner.approved_user()
        code = partner.code(user)
        sandbox.control.fault("delay", CREATE, when=when, seconds=600)
        caller = threading.Thread(target=_swallow, args=(partner, user, code))
        caller.start()
        wait_until(lambda: last(partner)["endpoint"] == CREATE and last(partner)["carried_out"] == bool(done))
        assert made(partner) == done
    caller.join(timeout=60)
    assert not caller.is_alive()


def _swallow(partner: Partner, user: Key, code: str) -> None:
    with contextlib.suppress(requests.RequestException):
        partner.withdraw(user, code)


@pytest.mark.long
def test_a_client_that_gave_up_may_still_be_served(by_hand: Partner, user: Key) -> None:
    code = by_hand.code(user)
    by_hand.control.fault("delay", CREATE, when="before", seconds=2)
    with pytest.raises(requests.ReadTimeout):
        by_hand.withdraw(user, code, timeout=(60, 0.05))
    wait_until(lambda: made(by_hand) == 1)


def test_faults_apply_as_often_as_set_and_in_order(by_hand: Partner, user: Key) -> None:
    by_hand.control.fault("status", GET, status=500, times=2)
    by_hand.control.fault("status", GET, status=503)
    statuses = [by_hand.withdrawal(user, 1).status_code for _ in range(4)]
    assert statuses == [500, 500, 503, 404]


def test_a_fault_affects_its_endpoint_only(by_hand: Partner, user: Key) -> None:
    by_hand.control.fault("status", GET, status=500)
    assert by_hand.withdraw(user, by_hand.code(user)).status_code == 200
    assert len(by_hand.control.state()["faults"]) == 1
    by_hand.control.clear_faults()
    assert by_hand.withdrawal(user, 1).status_code == 404


def test_a_fault_can_be_limited_to_one_of_many_requests(by_hand: Partner, user: Key) -> None:
    by_hand.control.fault("drop_after", CREATE, request_contains="0.00100002")
    assert by_hand.withdraw(user, by_hand.code(user), amount="0.00100001").status_code == 200
    with pytest.raises(requests.ConnectionError):
        by_hand.withdraw(user, by_hand.code(user), amount="0.00100002")
    assert by_hand.withdraw(user, by_hand.code(user), amount="0.00100002").status_code == 200
