"""The order-book trigger on a real event loop, against the sandbox."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from airflow_provider_quoine.triggers.market_data import QuoineOrderBookTrigger
from tests.exchange.streams import stream_threads, until

BIDS = "price_ladders_cash_btcjpy_buy"
ASKS = "price_ladders_cash_btcjpy_sell"


@pytest.fixture
def market(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    """A silent market that ``quoine_default`` connects to."""
    with SandboxServer(SandboxSettings(market_rate=0)) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", sandbox.airflow_connection())
        yield sandbox


def connect(monkeypatch: pytest.MonkeyPatch, **extra: Any) -> None:
    given = {"pusher_key": "a-key", "pusher_host": "127.0.0.1", "pusher_tls": False, **extra}
    monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", json.dumps({"conn_type": "quoine", "extra": given}))


def make_trigger(**changes: Any) -> BaseTrigger:
    """Make a trigger as the triggerer does: from what it serialized."""
    given = {"quoine_conn_id": "quoine_default", "pair": "btcjpy", "timeout": 10.0, "depth": None, **changes}
    path, arguments = QuoineOrderBookTrigger(**given).serialize()
    assert path == "airflow_provider_quoine.triggers.market_data.QuoineOrderBookTrigger"
    assert arguments == given
    return QuoineOrderBookTrigger(**json.loads(json.dumps(arguments)))


async def events_of(trigger: BaseTrigger) -> list[dict[str, Any]]:
    return [event.payload async for event in trigger.run()]


async def publish(sandbox: SandboxServer, channel: str, data: Any) -> None:
    """Publish once the trigger listens."""
    await until(lambda: sandbox.control.publish(channel, "updated", data) > 0)


def test_both_sides_make_one_snapshot(market: SandboxServer) -> None:
    async def scenario() -> list[dict[str, Any]]:
        task = asyncio.create_task(events_of(make_trigger(depth=1)))
        await publish(market, BIDS, [["600.5", "0.1"], ["600", "2"]])
        await publish(market, ASKS, [["601", "1"], ["602", "2"]])
        return await task

    (event,) = asyncio.run(scenario())
    assert event["status"] == "success"
    snapshot = event["snapshot"]
    assert (snapshot["bids"], snapshot["asks"]) == ([["600.5", "0.1"]], [["601", "1"]])
    assert (snapshot["mid"], snapshot["spread"], snapshot["crossed"]) == ("600.75", "0.5", False)
    assert snapshot["bids_received_at"] <= snapshot["asks_received_at"] <= snapshot["taken_at"]
    json.dumps(event, allow_nan=False)


def test_a_live_market_gives_a_whole_book(monkeypatch: pytest.MonkeyPatch) -> None:
    with SandboxServer(SandboxSettings(market_rate=20)) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", sandbox.airflow_connection())
        (event,) = asyncio.run(events_of(make_trigger()))
    bids = [Decimal(price) for price, _ in event["snapshot"]["bids"]]
    asks = [Decimal(price) for price, _ in event["snapshot"]["asks"]]
    assert len(bids) == len(asks) == 40
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)


def test_a_side_from_before_a_cut_is_not_mixed_with_one_from_after_it(market: SandboxServer) -> None:
    async def scenario() -> list[dict[str, Any]]:
        task = asyncio.create_task(events_of(make_trigger()))
        await publish(market, BIDS, [["1", "1"]])
        await asyncio.to_thread(market.control.fault, "close", "stream", code=4200)
        await until(lambda: market.control.state()["stream"]["connections_total"] == 2)
        await publish(market, ASKS, [["601", "1"]])
        await publish(market, BIDS, [["600", "1"]])
        return await task

    (event,) = asyncio.run(scenario())
    assert event["snapshot"]["best_bid"] == "600"


def test_an_unreadable_side_is_waited_out(market: SandboxServer) -> None:
    async def scenario() -> list[dict[str, Any]]:
        task = asyncio.create_task(events_of(make_trigger()))
        await publish(market, BIDS, "garbage")
        await publish(market, ASKS, [])
        await publish(market, BIDS, [["600", "1"]])
        return await task

    (event,) = asyncio.run(scenario())
    assert event["snapshot"]["bids"] == [["600", "1"]]


def test_silence_ends_in_a_time_out_that_names_the_channels_and_the_silent_side(market: SandboxServer) -> None:
    async def scenario() -> list[dict[str, Any]]:
        task = asyncio.create_task(events_of(make_trigger(timeout=1.5)))
        await publish(market, BIDS, [])
        return await task

    (event,) = asyncio.run(scenario())
    assert event["status"] == "timeout"
    assert event["message"].startswith(f"No order book of btcjpy within 1.5 s on {BIDS} and {ASKS}.")
    assert f"Nothing came on {ASKS}. " in event["message"]
    assert "misspelt" in event["message"]


def test_data_that_stay_unreadable_are_told_at_the_time_out(market: SandboxServer) -> None:
    async def scenario() -> list[dict[str, Any]]:
        task = asyncio.create_task(events_of(make_trigger(timeout=1.5)))
        await publish(market, BIDS, [["NaN", "1"]])
        await publish(market, ASKS, [])
        return await task

    (event,) = asyncio.run(scenario())
    assert "NaN" in event["message"]
    assert "Nothing came" not in event["message"]


def test_a_time_out_says_if_there_was_no_connection_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        connect(monkeypatch, pusher_port=closed.getsockname()[1])
    (event,) = asyncio.run(events_of(make_trigger(timeout=0.5)))
    assert event["status"] == "timeout"
    assert "never reached" in event["message"]
    assert "refused" in event["message"]


def test_a_wrong_key_is_an_error_without_the_key(market: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, pusher_port=market.port)
    (event,) = asyncio.run(events_of(make_trigger()))
    assert event["status"] == "error"
    assert "Check the Pusher key" in event["message"]
    assert "a-key" not in event["message"]


@pytest.mark.parametrize(
    ("extra", "words"),
    [({"pusher_key": None}, "no Pusher key"), ({"pusher_tls": True, "ca_path": "/nowhere.pem"}, "/nowhere.pem")],
)
def test_a_connection_that_cannot_work_is_an_error_in_words(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], words: str
) -> None:
    connect(monkeypatch, **extra)
    (event,) = asyncio.run(events_of(make_trigger()))
    assert event["status"] == "error"
    assert words in event["message"]


def test_cancelling_leaves_nothing(market: SandboxServer) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(events_of(make_trigger()))
        await publish(market, BIDS, [])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: stream_threads() == [] and len(asyncio.all_tasks()) == 1)

    asyncio.run(scenario())


def test_a_server_that_hangs_does_not_hang_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)

    async def scenario() -> list[dict[str, Any]]:
        heart = asyncio.create_task(beat())
        events = await events_of(make_trigger(timeout=4))
        heart.cancel()
        return events

    with socket.create_server(("127.0.0.1", 0)) as mute:
        connect(monkeypatch, pusher_port=mute.getsockname()[1])
        (event,) = asyncio.run(scenario())
    assert event["status"] == "timeout"
    # On the loop, the handshake alone would hold it for the whole four seconds.
    assert longest < 2
