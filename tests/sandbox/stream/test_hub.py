"""The hub: who receives an event, the rate of the market, and the statistics."""

from __future__ import annotations

import time

import pytest

from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.support.pusher_clients import BUY, SELL, connect, drain, receive, send, subscribe, wait_until


def test_an_event_reaches_its_subscribers_only_and_unchanged(quiet: SandboxServer) -> None:
    with connect(quiet) as one, connect(quiet) as two:
        receive(one), receive(two)
        succeeded = {"event": "pusher_internal:subscription_succeeded", "channel": BUY, "data": "{}"}
        assert subscribe(one, BUY) == succeeded
        subscribe(two, SELL)
        assert quiet.control.publish(BUY, "updated", [["600.0", "0.2"]]) == 1
        assert quiet.control.publish(SELL, "updated", "no JSON at all") == 1
        assert quiet.control.publish("executions_cash_btcjpy", "created", {}) == 0
        assert receive(one) == {"event": "updated", "channel": BUY, "data": '[["600.0", "0.2"]]'}
        assert receive(two) == {"event": "updated", "channel": SELL, "data": "no JSON at all"}
        with pytest.raises(TimeoutError):
            one.recv(timeout=0.2)


def test_after_unsubscribing_no_event_arrives(quiet: SandboxServer) -> None:
    with connect(quiet) as client:
        receive(client)
        subscribe(client, BUY)
        send(client, "pusher:unsubscribe", channel=BUY)
        wait_until(lambda: quiet.control.publish(BUY, "updated", []) == 0)
        assert subscribe(client, BUY)["event"] == "pusher_internal:subscription_succeeded"


def test_a_misspelt_channel_is_accepted_and_silent(busy: SandboxServer) -> None:
    with connect(busy) as client:
        receive(client)
        assert subscribe(client, "price_ladders_cash_btcjyp_buy")["event"] == "pusher_internal:subscription_succeeded"
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.3)


def test_events_come_at_the_rate_that_is_set(busy: SandboxServer) -> None:
    with connect(busy) as client:
        receive(client)
        # From before the first event, so that none waits here already.
        start = time.monotonic()
        subscribe(client, BUY)
        for _ in range(101):
            receive(client)
        assert 0.7 < time.monotonic() - start < 30
        busy.control.set_market_rate(0)
        assert isinstance(drain(client), TimeoutError)
        busy.control.set_market_rate(50)
        assert receive(client)["channel"] == BUY


def test_the_market_runs_only_for_channels_with_subscribers(busy: SandboxServer) -> None:
    with connect(busy) as client:
        receive(client)
        subscribe(client, BUY)
        receive(client)
        figures = busy.control.state()["stream"]
        assert (figures["channels"], figures["market_channels"]) == ({BUY: 1}, 1)
    wait_until(lambda: busy.control.state()["stream"]["connections"] == 0)
    figures = busy.control.state()["stream"]
    assert figures["market_channels"] == 0
    assert (figures["channels"], figures["connections_total"], figures["connections_max"]) == ({}, 1, 1)


def test_pings_and_pongs_are_counted(quiet: SandboxServer) -> None:
    with connect(quiet) as client:
        receive(client)
        for event in ("pusher:ping", "pusher:pong", "pusher:ping"):
            send(client, event)
        receive(client), receive(client)
        figures = quiet.control.state()["stream"]
    assert (figures["pings"], figures["pongs"]) == (2, 1)
