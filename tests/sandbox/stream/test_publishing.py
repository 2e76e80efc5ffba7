"""Pusher's HTTP API: used by the official server library, and how strictly requests are validated."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

import pytest
import requests
from pusher.errors import PusherBadAuth, PusherBadRequest, PusherBadStatus

from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.support.pusher_clients import BUY, SELL, connect, publisher, receive, subscribe

TRADES = "executions_cash_btcjpy"


def signed_request(
    sandbox: SandboxServer,
    body: bytes = b"",
    *,
    path: str = "/apps/1/events",
    method: str = "POST",
    signature: str | None = None,
    **parameters: Any,
) -> requests.Response:
    """Send a correctly signed request. Parameters that are None are left out."""
    given = {
        "auth_key": sandbox.pusher_key,
        "auth_timestamp": f"{time.time():.0f}",
        "auth_version": "1.0",
        "body_md5": hashlib.md5(body).hexdigest(),
        **parameters,
    }
    query = {name: value for name, value in sorted(given.items()) if value is not None}
    signed = "\n".join((method, path, "&".join(f"{name}={value}" for name, value in query.items())))
    query["auth_signature"] = (
        signature or hmac.new(sandbox.pusher_secret.encode(), signed.encode(), "sha256").hexdigest()
    )
    return requests.request(method, sandbox.url + path, params=query, data=body, timeout=60)


def event(**changes: Any) -> bytes:
    given = {"name": "updated", "channel": BUY, "data": "[]", **changes}
    return json.dumps({name: value for name, value in given.items() if value is not None}).encode()


def test_an_event_goes_to_all_its_channels_and_only_once_to_each(quiet: SandboxServer) -> None:
    with connect(quiet) as one, connect(quiet) as two:
        receive(one), receive(two)
        subscribe(one, BUY), subscribe(two, SELL)
        assert publisher(quiet).trigger([BUY, SELL, TRADES], "updated", [["600.0", "ü"]]) == {}
        quiet.control.publish(BUY, "end", ""), quiet.control.publish(SELL, "end", "")
        heard = [receive(one), receive(one), receive(two), receive(two)]
    assert [(message["channel"], message["event"]) for message in heard] == [
        (BUY, "updated"),
        (BUY, "end"),
        (SELL, "updated"),
        (SELL, "end"),
    ]
    assert [json.loads(heard[at]["data"]) for at in (0, 2)] == [[["600.0", "ü"]]] * 2


def test_a_batch_comes_in_its_order(quiet: SandboxServer) -> None:
    with connect(quiet) as client:
        receive(client)
        subscribe(client, BUY)
        batch = [{"channel": BUY, "name": f"event-{number}", "data": str(number)} for number in range(10)]
        assert publisher(quiet).trigger_batch(batch) == {}
        assert [(receive(client)["event"]) for _ in range(10)] == [f"event-{number}" for number in range(10)]


def test_a_batch_with_one_bad_event_publishes_none(quiet: SandboxServer) -> None:
    with connect(quiet) as client:
        receive(client)
        subscribe(client, BUY)
        good, bad = {"channel": BUY, "name": "good", "data": ""}, {"channel": BUY, "name": "bad", "data": "x" * 10_241}
        response = signed_request(quiet, json.dumps({"batch": [good, bad]}).encode(), path="/apps/1/batch_events")
        assert response.status_code == 413
        quiet.control.publish(BUY, "end", "")
        assert receive(client)["event"] == "end"


def test_the_sender_can_be_excluded(quiet: SandboxServer) -> None:
    with connect(quiet) as sender, connect(quiet) as other:
        socket_id = json.loads(receive(sender)["data"])["socket_id"]
        receive(other)
        subscribe(sender, BUY), subscribe(other, BUY)
        publisher(quiet).trigger(BUY, "updated", "for the other", socket_id)
        quiet.control.publish(BUY, "end", "")
        assert receive(other)["data"] == "for the other"
        assert receive(sender)["event"] == "end"


def test_channels_are_listed_while_they_have_a_subscriber(quiet: SandboxServer) -> None:
    pusher = publisher(quiet)
    assert pusher.channels_info() == {"channels": {}}
    with connect(quiet) as one, connect(quiet) as two:
        receive(one), receive(two)
        subscribe(one, BUY), subscribe(two, BUY), subscribe(two, TRADES)
        assert pusher.channels_info() == {"channels": {TRADES: {}, BUY: {}}}
        assert pusher.channels_info("price_", ["subscription_count"]) == {"channels": {BUY: {"subscription_count": 2}}}
        assert pusher.channel_info(TRADES, ["subscription_count"]) == {"occupied": True, "subscription_count": 1}
        assert pusher.channel_info(SELL) == {"occupied": False}
    with pytest.raises(PusherBadRequest, match="user_count"):
        pusher.channels_info("presence-", ["user_count"])


def test_publishing_does_not_count_for_the_partner_apis_limit(quiet: SandboxServer) -> None:
    publisher(quiet).trigger(BUY, "updated", "")
    state = quiet.control.state()
    assert (state["requests"], state["rate_limit"]["busiest_window"]) == ([], 0)


@pytest.mark.parametrize(
    ("changes", "words"), [({"secret": "another"}, "auth_signature"), ({"key": "another"}, "Unknown auth_key")]
)
def test_the_librarys_wrong_key_or_secret_is_401(quiet: SandboxServer, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(PusherBadAuth, match=words):
        publisher(quiet, **changes).trigger(BUY, "updated", "")
    with pytest.raises(PusherBadAuth, match=words):
        publisher(quiet, **changes).channels_info()


def test_another_app_is_404(quiet: SandboxServer) -> None:
    with pytest.raises(PusherBadStatus, match="404: Unknown app id 2"):
        publisher(quiet, app_id="2").trigger(BUY, "updated", "")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"auth_key": None}, "auth_key"),
        ({"auth_version": None}, "auth_version"),
        ({"auth_version": "2.0"}, "auth_version"),
        ({"auth_timestamp": None}, "auth_timestamp"),
        ({"auth_timestamp": "now"}, "auth_timestamp"),
        ({"auth_timestamp": f"{time.time() - 3600:.0f}"}, "auth_timestamp"),
        ({"auth_timestamp": f"{time.time() + 3600:.0f}"}, "auth_timestamp"),
        ({"body_md5": None}, "body_md5"),
        ({"body_md5": "0" * 32}, "body_md5"),
        ({"signature": "0" * 64}, "auth_signature"),
    ],
)
def test_a_request_that_is_not_signed_right_is_401_and_publishes_nothing(
    quiet: SandboxServer, parameters: dict[str, Any], words: str
) -> None:
    with connect(quiet) as client:
        receive(client)
        subscribe(client, BUY)
        response = signed_request(quiet, event(), **parameters)
        assert response.status_code == 401
        assert words in response.text
        quiet.control.publish(BUY, "end", "")
        assert receive(client)["event"] == "end"


def test_a_clock_that_is_off_by_less_than_600_seconds_is_accepted(quiet: SandboxServer) -> None:
    for seconds in (-590, 590):
        assert signed_request(quiet, event(), auth_timestamp=f"{time.time() + seconds:.0f}").status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (event(data="x" * 10_240), 200, ""),
        (event(data="x" * 10_241), 413, "larger than 10240 bytes"),
        (event(data="ü" * 5_121), 413, "larger than 10240 bytes"),
        (event(channel="a" * 164), 200, ""),
        (event(channel="a" * 165), 400, "channels.0"),
        (event(channel="a b"), 400, "channels.0"),
        (event(channel=None), 400, "channels"),
        (event(channels=[BUY]), 400, "channel"),
        (event(channel=None, channels=[f"c{number}" for number in range(100)]), 200, ""),
        (event(channel=None, channels=[f"c{number}" for number in range(101)]), 400, "channels"),
        (event(channel=None, channels=[]), 400, "channels"),
        (event(channel=None, channels=BUY), 400, "channels"),
        (event(name=None), 400, "name"),
        (event(name="n" * 200), 200, ""),
        (event(name="n" * 201), 400, "name"),
        (event(data=None), 400, "data"),
        (event(data={"no": "string"}), 400, "data"),
        (event(socket_id="me"), 400, "socket_id"),
        (event(more=1), 400, "more"),
        (b"[]", 400, "object"),
        (b"{", 400, "JSON"),
        (b"", 400, "JSON"),
    ],
)
def test_an_event_is_validated_strictly(quiet: SandboxServer, body: bytes, status: int, words: str) -> None:
    response = signed_request(quiet, body)
    assert (response.status_code, words in response.text) == (status, True), response.text


def test_a_parameter_sent_twice_is_refused(quiet: SandboxServer) -> None:
    response = signed_request(quiet, method="GET", path="/apps/1/channels", info=["subscription_count"] * 2)
    assert (response.status_code, "sent twice" in response.text) == (400, True)


def test_a_batch_holds_at_most_10_events(quiet: SandboxServer) -> None:
    batch = json.dumps({"batch": [json.loads(event())] * 11}).encode()
    assert signed_request(quiet, batch, path="/apps/1/batch_events").status_code == 400
