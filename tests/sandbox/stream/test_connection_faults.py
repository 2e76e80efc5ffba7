"""Faults of the stream, tested with a third-party client."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.support.pusher_clients import BUY, SELL, close_code, connect, receive, send, subscribe, wait_until


@pytest.mark.parametrize(("parameters", "code"), [({"code": 4200}, 4200), ({"code": 1001}, 1001), ({}, None)])
def test_a_stream_is_closed_with_or_without_a_code(
    quiet: SandboxServer, parameters: dict[str, Any], code: int | None
) -> None:
    with connect(quiet) as client:
        receive(client)
        assert quiet.control.fault("close", "stream", **parameters) == {"hit": 1}
        assert close_code(client) == code


def test_a_stream_is_reset(quiet: SandboxServer) -> None:
    with connect(quiet) as client:
        receive(client)
        quiet.control.fault("close", "stream", abrupt=True)
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(timeout=10)
        assert isinstance(caught.value.__cause__, ConnectionResetError)


@pytest.mark.parametrize(("code", "closes"), [(4004, True), (4100, True), (4299, True), (4300, False), (None, False)])
def test_a_pusher_error_closes_where_its_code_says_so(quiet: SandboxServer, code: int | None, closes: bool) -> None:
    with connect(quiet) as client:
        receive(client)
        quiet.control.fault("pusher_error", "stream", code=code, message="Ordered")
        assert receive(client) == {"event": "pusher:error", "data": {"message": "Ordered", "code": code}}
        if closes:
            assert close_code(client) == code
        else:
            send(client, "pusher:ping")
            assert receive(client)["event"] == "pusher:pong"


def test_silence_leaves_the_connection_open_and_answers_no_ping_of_any_kind(quiet: SandboxServer) -> None:
    with connect(quiet) as client:
        receive(client)
        subscribe(client, BUY)
        quiet.control.fault("silence", "stream")
        send(client, "pusher:ping")
        pong = client.ping()
        quiet.control.publish(BUY, "updated", [])
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.3)
        assert not pong.is_set()
        assert quiet.control.state()["stream"]["connections"] == 1
    wait_until(lambda: quiet.control.state()["stream"]["connections"] == 0)


def test_a_fault_can_apply_to_the_next_connections(quiet: SandboxServer) -> None:
    quiet.control.fault("close", "stream", when="connect", code=4100, times=2)
    for _ in range(2):
        with connect(quiet) as client:
            assert close_code(client) == 4100
    with connect(quiet) as client:
        assert receive(client)["event"] == "pusher:connection_established"


@pytest.mark.parametrize(
    ("parameters", "event"),
    [({}, "pusher:subscription_error"), ({"internal": True}, "pusher_internal:subscription_error")],
)
def test_a_fault_can_apply_to_the_next_subscription(
    quiet: SandboxServer, parameters: dict[str, Any], event: str
) -> None:
    quiet.control.fault("refuse_subscription", "stream", **parameters)
    with connect(quiet) as client:
        receive(client)
        error = subscribe(client, BUY)
        assert (error["event"], error["channel"]) == (event, BUY)
        assert subscribe(client, BUY)["event"] == "pusher_internal:subscription_succeeded"


def test_a_closed_port_does_not_affect_the_stream(quiet: SandboxServer) -> None:
    with connect(quiet) as client:
        receive(client)
        quiet.control.fault("refuse", seconds=0.2)
        send(client, "pusher:ping")
        assert receive(client)["event"] == "pusher:pong"


def test_a_pusher_error_can_leave_the_connection_open_whatever_its_code(quiet: SandboxServer) -> None:
    with connect(quiet) as client:
        receive(client)
        quiet.control.fault("pusher_error", "stream", code=4200, message="Ordered", keep_open=True)
        assert receive(client)["data"]["code"] == 4200
        send(client, "pusher:ping")
        assert receive(client)["event"] == "pusher:pong"


@pytest.mark.parametrize("status", [403, 503])
def test_a_handshake_is_refused_by_a_status(quiet: SandboxServer, status: int) -> None:
    quiet.control.fault("refuse_handshake", "stream", status=status)
    with pytest.raises(InvalidStatus) as caught:
        connect(quiet)
    assert caught.value.response.status_code == status
    with connect(quiet) as client:
        assert receive(client)["event"] == "pusher:connection_established"


def test_a_handshake_is_never_answered(quiet: SandboxServer) -> None:
    quiet.control.fault("silence", "stream", when="handshake")
    with pytest.raises(TimeoutError):
        connect(quiet, open_timeout=0.3)
    wait_until(lambda: quiet.control.state()["faults"] == [])
    with connect(quiet) as client:
        assert receive(client)["event"] == "pusher:connection_established"


def test_a_handshake_that_is_never_answered_does_not_keep_the_server_from_stopping() -> None:
    request = (
        b"GET /app/key HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with socket.socket() as stuck, SandboxServer() as sandbox:
        sandbox.control.fault("silence", "stream", when="handshake")
        stuck.connect(("127.0.0.1", sandbox.port))
        stuck.sendall(request)
        wait_until(lambda: sandbox.control.state()["faults"] == [])


@pytest.mark.parametrize("text", ["{", "", '{"event":"pusher:ping","data":{}}', '{"event":"pusher:ping","data":""}'])
def test_any_frame_is_sent_as_it_is(quiet: SandboxServer, text: str) -> None:
    with connect(quiet) as client:
        receive(client)
        assert quiet.control.fault("frame", "stream", text=text) == {"hit": 1}
        assert client.recv(timeout=10) == text


def test_a_frame_is_sent_before_the_expected_message(quiet: SandboxServer) -> None:
    for when in ("connect", "subscribe"):
        quiet.control.fault("frame", "stream", when=when, text="not JSON")
    with connect(quiet) as client:
        assert client.recv(timeout=10) == "not JSON"
        assert receive(client)["event"] == "pusher:connection_established"
        send(client, "pusher:subscribe", channel=BUY)
        assert client.recv(timeout=10) == "not JSON"
        assert receive(client)["event"] == "pusher_internal:subscription_succeeded"
        assert quiet.control.publish(BUY, "updated", []) == 1


def test_data_can_be_an_object_where_it_should_be_a_string(quiet: SandboxServer) -> None:
    for when in ("connect", "subscribe"):
        quiet.control.fault("object_data", "stream", when=when)
    with connect(quiet) as client:
        assert receive(client)["data"]["activity_timeout"] == 120
        succeeded = {"event": "pusher_internal:subscription_succeeded", "channel": BUY, "data": {}}
        assert subscribe(client, BUY) == succeeded
        assert subscribe(client, SELL)["data"] == "{}"
        assert quiet.control.publish(BUY, "updated", []) == 1


@pytest.mark.long
def test_a_subscription_is_confirmed_late_and_nothing_comes_before(quiet: SandboxServer) -> None:
    quiet.control.fault("delay_subscription", "stream", seconds=3)
    with connect(quiet) as client:
        receive(client)
        asked_at = time.monotonic()
        send(client, "pusher:subscribe", channel=BUY)
        assert subscribe(client, BUY)["event"] == "pusher:error"  # the first request is still pending
        assert quiet.control.publish(BUY, "updated", []) == 0
        assert receive(client)["event"] == "pusher_internal:subscription_succeeded"
        assert time.monotonic() - asked_at >= 3
        assert quiet.control.publish(BUY, "updated", []) == 1


def test_a_delayed_subscription_can_be_cancelled(quiet: SandboxServer) -> None:
    for seconds in (1.0, 1.3):
        quiet.control.fault("delay_subscription", "stream", seconds=seconds)
    with connect(quiet) as client:
        receive(client)
        send(client, "pusher:subscribe", channel=BUY)
        send(client, "pusher:unsubscribe", channel=BUY)
        assert subscribe(client, SELL)["channel"] == SELL  # by now the other one would have been confirmed
        assert quiet.control.publish(BUY, "updated", []) == 0
        assert subscribe(client, BUY)["event"] == "pusher_internal:subscription_succeeded"


def test_a_delayed_subscription_ends_with_its_client(quiet: SandboxServer) -> None:
    for seconds in (1.0, 1.3):
        quiet.control.fault("delay_subscription", "stream", seconds=seconds)
    with connect(quiet) as client:
        receive(client)
        with connect(quiet) as leaver:
            receive(leaver)
            send(leaver, "pusher:subscribe", channel=BUY)
            wait_until(lambda: len(quiet.control.state()["faults"]) == 1)
        assert subscribe(client, SELL)["channel"] == SELL
        assert quiet.control.state()["stream"]["channels"] == {SELL: 1}


def test_a_subscription_is_never_confirmed(quiet: SandboxServer) -> None:
    quiet.control.fault("ignore_subscription", "stream")
    with connect(quiet) as client:
        receive(client)
        send(client, "pusher:subscribe", channel=BUY)
        assert subscribe(client, SELL)["channel"] == SELL
        assert quiet.control.publish(BUY, "updated", []) == 0
        assert subscribe(client, BUY)["channel"] == BUY
