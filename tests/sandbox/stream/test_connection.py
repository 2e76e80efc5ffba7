"""One connection, tested with a third-party client: protocol 7, and how strictly it is applied."""

from __future__ import annotations

import json
import time

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.support.pusher_clients import BUY, close_code, connect, receive, send, subscribe


def test_a_connection_is_established_with_data_as_a_json_string(quiet: SandboxServer) -> None:
    with connect(quiet) as client:
        message = receive(client)
    assert message["event"] == "pusher:connection_established"
    data = json.loads(message["data"])
    assert data["activity_timeout"] == 120
    assert [part.isdecimal() for part in data["socket_id"].split(".")] == [True, True]


@pytest.mark.parametrize(
    ("key", "query", "code"),
    [
        ("another", "?protocol=7", 4001),
        (None, "", 4008),
        (None, "?protocol=", 4008),
        (None, "?protocol=seven", 4006),
        (None, "?protocol=6&client=python", 4007),
        (None, "?protocol=8", 4007),
    ],
)
def test_another_protocol_version_or_app_is_refused(
    quiet: SandboxServer, key: str | None, query: str, code: int
) -> None:
    with connect(quiet, key=key, query=query) as client:
        message = receive(client)
        assert message["event"] == "pusher:error"
        assert message["data"]["code"] == code
        assert close_code(client) == code


def test_a_ping_is_answered(quiet: SandboxServer) -> None:
    with connect(quiet) as client:
        receive(client)
        send(client, "pusher:ping")
        assert receive(client) == {"event": "pusher:pong", "data": "{}"}


def test_subscribing_twice_is_an_error_and_delivers_once(quiet: SandboxServer) -> None:
    with connect(quiet) as client:
        receive(client)
        subscribe(client, BUY)
        error = subscribe(client, BUY)
        assert (error["event"], error["data"]["code"]) == ("pusher:error", None)
        assert quiet.control.publish(BUY, "updated", [1]) == 1
        assert quiet.control.publish(BUY, "updated", [2]) == 1
        assert [receive(client)["data"], receive(client)["data"]] == ["[1]", "[2]"]


@pytest.mark.parametrize("channel", ["private-orders", "presence-room"])
def test_a_private_channel_is_refused(quiet: SandboxServer, channel: str) -> None:
    with connect(quiet) as client:
        receive(client)
        error = subscribe(client, channel)
        assert (error["event"], error["channel"], error["data"]["status"]) == (
            "pusher:subscription_error",
            channel,
            401,
        )


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", None),
        ("[]", None),
        ('"text"', None),
        ("{}", None),
        ('{"event": 1}', None),
        ('{"event": "pusher:dance"}', None),
        ('{"event": "client-typing", "channel": "x"}', 4301),
        ('{"event": "pusher:subscribe"}', None),
        ('{"event": "pusher:subscribe", "data": {"channel": 1}}', None),
        ('{"event": "pusher:subscribe", "data": {"channel": "a b"}}', None),
        (json.dumps({"event": "pusher:subscribe", "data": {"channel": "a" * 165}}), None),
        (b"\x00\x01", None),
    ],
)
def test_a_malformed_message_is_an_error_and_the_connection_stays(
    quiet: SandboxServer, text: str | bytes, code: int | None
) -> None:
    with connect(quiet) as client:
        receive(client)
        client.send(text)
        error = receive(client)
        assert (error["event"], error["data"]["code"]) == ("pusher:error", code)
        send(client, "pusher:ping")
        assert receive(client)["event"] == "pusher:pong"


@pytest.mark.long
def test_a_client_that_hears_events_and_answers_pings_owes_nothing() -> None:
    settings = SandboxSettings(market_rate=100, activity_timeout=1, pong_timeout=3)
    with SandboxServer(settings) as sandbox, connect(sandbox) as client:
        receive(client)
        subscribe(client, BUY)
        # Longer than a ping may stay unanswered.
        pings, deadline = 0, time.monotonic() + 60
        while pings < 4 and time.monotonic() < deadline:
            if receive(client)["event"] == "pusher:ping":
                pings += 1
                send(client, "pusher:pong")
        assert pings == 4


def end_within(client: ClientConnection, *, messages: int) -> ConnectionClosed | None:
    """Receive so many messages; return the close, if it comes before the last of them."""
    try:
        for _ in range(messages):
            receive(client)
    except ConnectionClosed as end:
        return end
    return None


@pytest.mark.long
def test_a_client_that_stays_silent_is_closed_with_4201_and_one_that_pings_is_not() -> None:
    settings = SandboxSettings(market_rate=100, activity_timeout=1, pong_timeout=2)
    with SandboxServer(settings) as sandbox, connect(sandbox) as silent, connect(sandbox) as alive:
        receive(silent), receive(alive)
        subscribe(silent, BUY)  # messages from the server do not reset the time-out
        while (end := end_within(silent, messages=10)) is None:
            send(alive, "pusher:ping")
            assert receive(alive)["event"] == "pusher:pong"
        assert end.rcvd is not None
        assert end.rcvd.code == 4201
        send(alive, "pusher:ping")
        assert receive(alive)["event"] == "pusher:pong"
