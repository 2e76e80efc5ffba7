"""The stream, seen by a client that we did not write: protocol 7, its strictness, the market and the faults."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.support.dialling import BUY, SELL, close_code, dial, drain, eventually, hear, say, subscribe


@pytest.fixture
def busy() -> Iterator[SandboxServer]:
    with SandboxServer(SandboxSettings(market_rate=100)) as server:
        yield server


def test_a_connection_is_established_with_data_as_a_json_string(quiet: SandboxServer) -> None:
    with dial(quiet) as client:
        message = hear(client)
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
def test_what_is_not_protocol_7_of_this_app_is_refused(
    quiet: SandboxServer, key: str | None, query: str, code: int
) -> None:
    with dial(quiet, key=key, query=query) as client:
        message = hear(client)
        assert message["event"] == "pusher:error"
        assert message["data"]["code"] == code
        assert close_code(client) == code


def test_a_ping_is_answered(quiet: SandboxServer) -> None:
    with dial(quiet) as client:
        hear(client)
        say(client, "pusher:ping")
        assert hear(client) == {"event": "pusher:pong", "data": "{}"}


def test_an_event_comes_to_its_subscribers_only_and_as_it_was_published(quiet: SandboxServer) -> None:
    with dial(quiet) as one, dial(quiet) as two:
        hear(one), hear(two)
        succeeded = {"event": "pusher_internal:subscription_succeeded", "channel": BUY, "data": "{}"}
        assert subscribe(one, BUY) == succeeded
        subscribe(two, SELL)
        assert quiet.control.publish(BUY, "updated", [["600.0", "0.2"]]) == 1
        assert quiet.control.publish(SELL, "updated", "no JSON at all") == 1
        assert quiet.control.publish("executions_cash_btcjpy", "created", {}) == 0
        assert hear(one) == {"event": "updated", "channel": BUY, "data": '[["600.0", "0.2"]]'}
        assert hear(two) == {"event": "updated", "channel": SELL, "data": "no JSON at all"}
        with pytest.raises(TimeoutError):
            one.recv(timeout=0.2)


def test_after_unsubscribing_nothing_comes(quiet: SandboxServer) -> None:
    with dial(quiet) as client:
        hear(client)
        subscribe(client, BUY)
        say(client, "pusher:unsubscribe", channel=BUY)
        eventually(lambda: quiet.control.publish(BUY, "updated", []) == 0)
        assert subscribe(client, BUY)["event"] == "pusher_internal:subscription_succeeded"


def test_subscribing_twice_is_an_error_and_delivers_once(quiet: SandboxServer) -> None:
    with dial(quiet) as client:
        hear(client)
        subscribe(client, BUY)
        error = subscribe(client, BUY)
        assert (error["event"], error["data"]["code"]) == ("pusher:error", None)
        assert quiet.control.publish(BUY, "updated", [1]) == 1
        assert quiet.control.publish(BUY, "updated", [2]) == 1
        assert [hear(client)["data"], hear(client)["data"]] == ["[1]", "[2]"]


@pytest.mark.parametrize("channel", ["private-orders", "presence-room"])
def test_a_private_channel_is_refused(quiet: SandboxServer, channel: str) -> None:
    with dial(quiet) as client:
        hear(client)
        error = subscribe(client, channel)
        assert (error["event"], error["channel"], error["data"]["status"]) == (
            "pusher:subscription_error",
            channel,
            401,
        )


def test_a_misspelt_channel_is_accepted_and_silent(busy: SandboxServer) -> None:
    with dial(busy) as client:
        hear(client)
        assert subscribe(client, "price_ladders_cash_btcjyp_buy")["event"] == "pusher_internal:subscription_succeeded"
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.3)


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
    with dial(quiet) as client:
        hear(client)
        client.send(text)
        error = hear(client)
        assert (error["event"], error["data"]["code"]) == ("pusher:error", code)
        say(client, "pusher:ping")
        assert hear(client)["event"] == "pusher:pong"


def test_a_client_that_stays_silent_is_closed_with_4201_and_one_that_pings_is_not() -> None:
    settings = SandboxSettings(market_rate=100, activity_timeout=1, pong_timeout=0.2)
    with SandboxServer(settings) as sandbox, dial(sandbox) as silent, dial(sandbox) as alive:
        start = time.monotonic()
        hear(silent), hear(alive)
        subscribe(silent, BUY)  # what the server says is no life of the client
        while (left := start + 2.5 - time.monotonic()) > 0:
            say(alive, "pusher:ping")
            assert hear(alive)["event"] == "pusher:pong"
            time.sleep(min(0.3, left))
        heard = drain(silent)
        assert isinstance(heard, ConnectionClosed)
        assert heard.rcvd is not None
        assert heard.rcvd.code == 4201


def test_a_book_is_whole_sorted_and_in_strings(busy: SandboxServer) -> None:
    with dial(busy) as client:
        hear(client)
        for channel, descending in ((BUY, True), (SELL, False)):
            subscribe(client, channel)
            message = hear(client)
            assert (message["event"], message["channel"]) == ("updated", channel)
            rows = json.loads(message["data"])
            prices = [Decimal(price) for price, _ in rows]
            assert len(rows) == 40
            assert all(isinstance(part, str) for row in rows for part in row)
            assert prices == sorted(set(prices), reverse=descending)
            assert all(Decimal(quantity) > 0 for _, quantity in rows)
            say(client, "pusher:unsubscribe", channel=channel)
            eventually(lambda: busy.control.state()["stream"]["channels"] == {})
            assert isinstance(drain(client), TimeoutError)


@pytest.mark.parametrize(("form", "kind"), [("string", str), ("number", float)])
def test_executions_and_products_carry_the_form_that_is_set(form: Any, kind: type) -> None:
    with SandboxServer(SandboxSettings(market_rate=50, market_amounts=form)) as sandbox, dial(sandbox) as client:
        hear(client)
        subscribe(client, "executions_cash_btcusd")
        execution = json.loads(hear(client)["data"])
        assert isinstance(execution["price"], kind)
        assert isinstance(execution["quantity"], kind)
        assert execution["taker_side"] in {"buy", "sell"}
        assert abs(execution["created_at"] - time.time()) < 5
        subscribe_channel = "product_cash_btcusd_1"
        say(client, "pusher:subscribe", channel=subscribe_channel)
        while (message := hear(client))["event"] != "updated":
            pass
        product = json.loads(message["data"])
        assert (product["id"], product["currency_pair_code"], product["pusher_channel"]) == (
            1,
            "BTCUSD",
            subscribe_channel,
        )
        assert isinstance(product["market_bid"], kind)
        assert Decimal(str(product["market_bid"])) < Decimal(str(product["market_ask"]))


def test_events_come_at_the_rate_that_is_set(busy: SandboxServer) -> None:
    with dial(busy) as client:
        hear(client)
        subscribe(client, BUY)
        hear(client)
        start = time.monotonic()
        for _ in range(100):
            hear(client)
        assert 0.7 < time.monotonic() - start < 3
        busy.control.market_rate(0)
        assert isinstance(drain(client), TimeoutError)
        busy.control.market_rate(50)
        assert hear(client)["channel"] == BUY


def test_only_channels_with_subscribers_cost_anything(busy: SandboxServer) -> None:
    with dial(busy) as client:
        hear(client)
        subscribe(client, BUY)
        hear(client)
        figures = busy.control.state()["stream"]
        assert (figures["channels"], figures["market_channels"]) == ({BUY: 1}, 1)
    eventually(lambda: busy.control.state()["stream"]["connections"] == 0)
    figures = busy.control.state()["stream"]
    assert figures["market_channels"] == 0
    assert (figures["channels"], figures["connections_total"], figures["connections_max"]) == ({}, 1, 1)
