"""The triggers of the market streams on a real event loop, against the sandbox."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from airflow_provider_quoine.triggers import market_data
from airflow_provider_quoine.triggers.market_data import (
    MOST_EXECUTIONS,
    QuoineExecutionsTrigger,
    QuoineOrderBookTrigger,
    QuoineProductTrigger,
    StreamTrigger,
)
from tests.support.heartbeat import heartbeat
from tests.support.streams import ASKS, BIDS, LIMIT, stream_threads, until

EXECUTIONS = "executions_cash_btcjpy"
PRODUCT = "product_cash_btcjpy_5"


def connect(monkeypatch: pytest.MonkeyPatch, **extra: Any) -> None:
    given = {"pusher_key": "a-key", "pusher_host": "127.0.0.1", "pusher_tls": False, **extra}
    monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", json.dumps({"conn_type": "quoine", "extra": given}))


def make_trigger(kind: type[StreamTrigger] = QuoineOrderBookTrigger, **changes: Any) -> BaseTrigger:
    """Make a trigger as the triggerer does: from what it serialized."""
    given = {"quoine_conn_id": "quoine_default", "pair": "btcjpy", "timeout": LIMIT, **changes}
    path, arguments = kind(**given).serialize()
    assert path == f"airflow_provider_quoine.triggers.market_data.{kind.__name__}"
    assert arguments.items() >= given.items()
    again = kind(**json.loads(json.dumps(arguments)))
    assert again.serialize() == (path, arguments)
    return again


async def events_of(trigger: BaseTrigger) -> list[dict[str, Any]]:
    return [event.payload async for event in trigger.run()]


async def publish(sandbox: SandboxServer, channel: str, data: Any, *, event: str = "updated") -> None:
    """Publish once the trigger listens."""
    await until(lambda: sandbox.control.publish(channel, event, data) > 0)


def trade(number: int) -> dict[str, Any]:
    return {"id": number, "quantity": "0.2", "price": 600.5, "taker_side": "buy", "created_at": 1473000000}


class Listening:
    """A trigger that runs beside a test, whose events are taken one by one."""

    def __init__(self, trigger: BaseTrigger) -> None:
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._trigger = trigger
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for event in self._trigger.run():
            self._events.put_nowait(event.payload)

    async def next(self) -> dict[str, Any]:
        """Wait for the next event."""
        async with asyncio.timeout(LIMIT):
            return await self._events.get()

    async def next_with(self, **wanted: Any) -> dict[str, Any]:
        """Wait for a snapshot that says so."""
        while True:
            snapshot: dict[str, Any] = (await self.next())["result"]
            if snapshot.items() >= wanted.items():
                return snapshot

    async def rest(self) -> list[dict[str, Any]]:
        """Wait for its end; return the events that were not taken."""
        async with asyncio.timeout(LIMIT):
            await self.task
        return [self._events.get_nowait() for _ in range(self._events.qsize())]

    async def cancel(self) -> None:
        """End it."""
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


async def test_both_sides_make_one_snapshot(market: SandboxServer) -> None:
    task = asyncio.create_task(events_of(make_trigger(depth=1)))
    await publish(market, BIDS, [["600.5", "0.1"], ["600", "2"]])
    await publish(market, ASKS, [["601", "1"], ["602", "2"]])
    (event,) = await task
    assert event["status"] == "success"
    snapshot = event["result"]
    assert (snapshot["bids"], snapshot["asks"]) == ([["600.5", "0.1"]], [["601", "1"]])
    assert (snapshot["mid"], snapshot["spread"], snapshot["crossed"]) == ("600.75", "0.5", False)
    assert snapshot["bids_received_at"] <= snapshot["asks_received_at"] <= snapshot["taken_at"]
    json.dumps(event, allow_nan=False)


async def test_a_live_market_gives_a_whole_book(monkeypatch: pytest.MonkeyPatch) -> None:
    with SandboxServer(SandboxSettings(market_rate=20)) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", sandbox.airflow_connection())
        (event,) = await events_of(make_trigger())
    bids = [Decimal(price) for price, _ in event["result"]["bids"]]
    asks = [Decimal(price) for price, _ in event["result"]["asks"]]
    assert len(bids) == len(asks) == 40
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)


async def test_a_side_from_before_a_cut_is_not_mixed_with_one_from_after_it(market: SandboxServer) -> None:
    task = asyncio.create_task(events_of(make_trigger()))
    await publish(market, BIDS, [["1", "1"]])
    await asyncio.to_thread(market.control.fault, "close", "stream", code=4200)
    await until(lambda: market.control.state()["stream"]["connections_total"] == 2)
    await publish(market, ASKS, [["601", "1"]])
    await publish(market, BIDS, [["600", "1"]])
    (event,) = await task
    assert event["result"]["best_bid"] == "600"


async def test_an_unreadable_side_is_waited_out(market: SandboxServer) -> None:
    task = asyncio.create_task(events_of(make_trigger()))
    await publish(market, BIDS, "garbage")
    await publish(market, ASKS, [])
    await publish(market, BIDS, [["600", "1"]])
    (event,) = await task
    assert event["result"]["bids"] == [["600", "1"]]


@pytest.mark.long
async def test_silence_ends_in_a_time_out_that_names_the_channels_and_the_silent_side(market: SandboxServer) -> None:
    task = asyncio.create_task(events_of(make_trigger(timeout=4)))
    await publish(market, BIDS, [])
    (event,) = await task
    assert event["status"] == "timeout"
    assert event["message"].startswith(f"No order book of btcjpy within 4 s on {BIDS} and {ASKS}.")
    assert f"Nothing came on {ASKS}. " in event["message"]
    assert "misspelt" in event["message"]


@pytest.mark.long
async def test_data_that_stay_unreadable_are_told_at_the_time_out(market: SandboxServer) -> None:
    task = asyncio.create_task(events_of(make_trigger(timeout=4)))
    await publish(market, BIDS, [["NaN", "1"]])
    await publish(market, ASKS, [])
    (event,) = await task
    assert "NaN" in event["message"]
    assert "Nothing came" not in event["message"]


@pytest.mark.long
async def test_a_time_out_says_if_there_was_no_connection_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        connect(monkeypatch, pusher_port=closed.getsockname()[1])
    (event,) = await events_of(make_trigger(timeout=2))
    assert event["status"] == "timeout"
    assert "never reached" in event["message"]
    assert "refused" in event["message"]


async def test_a_wrong_key_is_an_error_without_the_key(market: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, pusher_port=market.port)
    (event,) = await events_of(make_trigger())
    assert event["status"] == "error"
    assert "Check the Pusher key" in event["message"]
    assert "a-key" not in event["message"]


@pytest.mark.parametrize(
    ("extra", "words"),
    [({"pusher_key": None}, "no Pusher key"), ({"pusher_tls": True, "ca_path": "/nowhere.pem"}, "/nowhere.pem")],
)
async def test_a_connection_that_cannot_work_is_an_error_in_words(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], words: str
) -> None:
    connect(monkeypatch, **extra)
    (event,) = await events_of(make_trigger())
    assert event["status"] == "error"
    assert words in event["message"]


async def test_cancelling_leaves_nothing(market: SandboxServer) -> None:
    task = asyncio.create_task(events_of(make_trigger()))
    await publish(market, BIDS, [])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: stream_threads() == [] and len(asyncio.all_tasks()) == 1)


@pytest.mark.long
async def test_a_server_that_hangs_does_not_hang_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        connect(monkeypatch, pusher_port=mute.getsockname()[1])
        async with heartbeat() as heart:
            (event,) = await events_of(make_trigger(timeout=4))
    assert event["status"] == "timeout"
    # On the loop, the handshake alone would hold it for the whole four seconds.
    assert heart.held_up < 2


async def test_snapshots_come_by_time_in_a_quiet_market_and_grow_old(market: SandboxServer) -> None:
    began_at = datetime.now(UTC).replace(microsecond=0)

    listening = Listening(make_trigger(interval=0.2, began_at=began_at.isoformat()))
    await publish(market, BIDS, [["600", "1"]])
    await publish(market, ASKS, [["601", "1"]])
    snapshots = [(await listening.next())["result"] for _ in range(4)]
    await listening.cancel()
    due = [datetime.fromisoformat(snapshot["due_at"]) for snapshot in snapshots]
    assert all((moment - began_at) % timedelta(seconds=0.2) == timedelta(0) for moment in due)
    assert due == sorted(set(due))
    for snapshot, moment in zip(snapshots, due, strict=True):
        assert datetime.fromisoformat(snapshot["taken_at"]) >= moment
        age = (moment - datetime.fromisoformat(snapshot["bids_received_at"])).total_seconds()
        assert snapshot["bids_age"] == max(0, age)
        assert (snapshot["stale"], snapshot["crossed"], snapshot["reconnects"]) == (False, False, 0)
    assert snapshots[-1]["asks_age"] > 0


async def test_a_book_of_many_levels_is_whole(market: SandboxServer) -> None:
    listening = Listening(make_trigger(interval=0.05))
    await publish(market, BIDS, [[str(number), "1"] for number in range(1, 1001)])
    await publish(market, ASKS, [["2000", "1"]])
    snapshot = (await listening.next())["result"]
    await listening.cancel()
    assert (len(snapshot["bids"]), snapshot["best_bid"], snapshot["stale"]) == (1000, "1000", False)


async def test_why_a_book_cannot_be_read_is_logged_once_and_such_snapshots_are_counted(
    market: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    def told(times: int) -> bool:
        words = "No snapshot of the order book of btcjpy while it cannot be read. The stream sent a price ladder"
        return caplog.text.count(words) == times

    listening = Listening(make_trigger(interval=0.05))
    for number in (1, 2):
        await publish(market, BIDS, [["NaN", "1"]])
        await publish(market, ASKS, [])
        await until(partial(told, number))
        await asyncio.sleep(0.5)
        await publish(market, BIDS, [["600", "1"]])
        snapshot = await listening.next_with(best_bid="600")
    await listening.cancel()
    assert snapshot["unreadable"] >= 4
    assert told(2)


@pytest.mark.long
async def test_a_trigger_by_time_says_at_its_end_why_it_had_no_snapshot(market: SandboxServer) -> None:
    began_at = datetime.now(UTC) + timedelta(seconds=4)
    listening = Listening(make_trigger(count=2, duration=0.4, began_at=began_at.isoformat()))
    await publish(market, BIDS, [["NaN", "1"]])
    await publish(market, ASKS, [])
    (event,) = await listening.rest()
    assert event["status"] == "timeout"
    assert "readable and without doubt until the end. The stream sent a price ladder" in event["message"]


@pytest.mark.long
async def test_a_number_of_snapshots_in_a_time_ends_by_itself(market: SandboxServer) -> None:
    began_at = datetime.now(UTC) + timedelta(seconds=4)
    listening = Listening(make_trigger(count=3, duration=0.6, depth=1, began_at=began_at.isoformat()))
    await publish(market, BIDS, [["600", "1"], ["599", "1"]])
    await publish(market, ASKS, [["601", "1"]])
    events = await listening.rest()
    assert 1 <= len(events) <= 3
    assert all(event["result"]["bids"] == [["600", "1"]] for event in events)


async def test_a_book_is_stale_after_a_reconnect_until_both_sides_are_fresh(market: SandboxServer) -> None:
    listening = Listening(make_trigger(interval=0.05))
    await publish(market, BIDS, [["600", "1"]])
    await publish(market, ASKS, [["601", "1"]])
    await listening.next_with(stale=False, reconnects=0)
    await asyncio.to_thread(market.control.fault, "close", "stream", code=4200)
    old = await listening.next_with(stale=True, reconnects=1)
    assert (old["best_bid"], old["best_ask"]) == ("600", "601")
    await publish(market, BIDS, [["600.5", "1"]])
    half = await listening.next_with(stale=True, best_bid="600.5")
    assert half["best_ask"] == "601"
    assert half["gap_seconds"] > 0
    await publish(market, ASKS, [["601", "1"]])
    await listening.next_with(stale=False, best_bid="600.5")
    await listening.cancel()


async def test_doubtful_snapshots_can_be_skipped(market: SandboxServer) -> None:
    listening = Listening(make_trigger(on_doubt="skip"))
    await publish(market, BIDS, [["602", "1"]])
    await publish(market, ASKS, [["601", "1"]])
    await publish(market, BIDS, [["600", "1"]])
    (event,) = await listening.rest()
    assert event["result"]["crossed"] is False


@pytest.mark.parametrize("by_time", [{}, {"interval": 0.05}])
async def test_doubtful_snapshots_can_be_a_failure(market: SandboxServer, by_time: dict[str, Any]) -> None:
    listening = Listening(make_trigger(on_doubt="fail", **by_time))
    await publish(market, BIDS, [["602", "1"]])
    await publish(market, ASKS, [["601", "1"]])
    (event,) = await listening.rest()
    assert event["status"] == "error"
    assert "is crossed" in event["message"]


async def test_a_refusal_for_good_ends_snapshots_by_time(market: SandboxServer) -> None:
    listening = Listening(make_trigger(interval=0.05))
    await publish(market, BIDS, [])
    await publish(market, ASKS, [])
    await listening.next()
    await asyncio.to_thread(market.control.fault, "pusher_error", "stream", code=4001, message="no such app")
    assert (await listening.rest())[-1]["status"] == "error"


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (QuoineOrderBookTrigger, {"count": 3}, "Give an interval"),
        (QuoineOrderBookTrigger, {"interval": 1, "count": 3, "duration": 3}, "give two"),
        (QuoineOrderBookTrigger, {"on_doubt": "guess"}, "one of 'mark', 'skip', 'fail'"),
        (QuoineOrderBookTrigger, {"began_at": "noon"}, "began_at"),
        (QuoineOrderBookTrigger, {"depth": 0}, "depth"),
        (QuoineProductTrigger, {"pair": "qashjpy"}, "product id"),
        (QuoineExecutionsTrigger, {}, "count is None"),
        (QuoineExecutionsTrigger, {"count": MOST_EXECUTIONS + 1}, "a capture takes more"),
        (QuoineExecutionsTrigger, {"duration": 5}, "Give an interval"),
    ],
)
async def test_wrong_arguments_are_an_error_in_words(
    market: SandboxServer, kind: type[StreamTrigger], given: dict[str, Any], words: str
) -> None:
    (event,) = await events_of(make_trigger(kind, **given))
    assert event["status"] == "error"
    assert words in event["message"]
    assert market.control.state()["stream"]["connections_total"] == 0


async def test_a_ticker_comes_once_or_by_time(market: SandboxServer) -> None:
    once, by_time = Listening(make_trigger(QuoineProductTrigger)), make_trigger(QuoineProductTrigger, interval=0.05)
    listening = Listening(by_time)
    await until(lambda: market.control.state()["stream"]["channels"].get(PRODUCT))
    await publish(market, PRODUCT, {"id": 5, "last_traded_price": "600.50", "market_bid": None})
    (event,) = await once.rest()
    later = await listening.next_with(id="5")
    await listening.cancel()
    for snapshot in (event["result"], later):
        assert (snapshot["last_traded_price"], snapshot["market_bid"], snapshot["stale"]) == ("600.5", None, False)


async def test_the_next_executions_come_every_one_and_in_order(market: SandboxServer) -> None:
    listening = Listening(make_trigger(QuoineExecutionsTrigger, count=3))
    await publish(market, EXECUTIONS, trade(1), event="created")
    await publish(market, EXECUTIONS, "garbage", event="created")
    await publish(market, EXECUTIONS, trade(2), event="created")
    (event,) = await listening.rest()
    assert (event["status"], event["result"]["dropped"]) == ("success", 0)
    first, broken, second = event["result"]["executions"]
    assert (first["id"], broken["unreadable"], second["id"]) == ("1", "garbage", "2")
    assert (first["price"], first["quantity"], first["taker_side"]) == ("600.5", "0.2", "buy")
    json.dumps(event, allow_nan=False)


@pytest.mark.long
async def test_too_few_executions_are_told_at_the_time_out(market: SandboxServer) -> None:
    listening = Listening(make_trigger(QuoineExecutionsTrigger, count=3, timeout=4))
    await publish(market, EXECUTIONS, trade(1), event="created")
    (event,) = await listening.rest()
    assert event["status"] == "timeout"
    assert f"1 of 3 executions came within 4 s on {EXECUTIONS}" in event["message"]


async def test_executions_by_time_come_in_quiet_intervals_too(market: SandboxServer) -> None:
    listening = Listening(make_trigger(QuoineExecutionsTrigger, interval=0.1))
    quiet = (await listening.next())["result"]
    await publish(market, EXECUTIONS, trade(1), event="created")
    await publish(market, EXECUTIONS, trade(2), event="created")
    found: list[str] = []
    while len(found) < 2:
        found += [one["id"] for one in (await listening.next())["result"]["executions"]]
    await listening.cancel()
    assert (quiet["executions"], quiet["dropped"]) == ([], 0)
    assert found == ["1", "2"]


async def test_of_a_flood_of_executions_the_newest_stay_and_the_rest_are_counted(
    market: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(market_data, "MOST_EXECUTIONS", 5)

    await asyncio.to_thread(market.control.set_market_rate, 200)
    listening = Listening(make_trigger(QuoineExecutionsTrigger, interval=0.2))
    results: list[dict[str, Any]] = []
    while not results or not results[-1]["dropped"]:
        results.append((await listening.next())["result"])
    while not (following := (await listening.next())["result"])["executions"]:
        """An interval in which the market had no turn."""
    await listening.cancel()
    ids = [int(execution["id"]) for execution in results[-1]["executions"]]
    assert ids == list(range(ids[0], ids[0] + 5))
    # The sandbox numbers them from 90001 on. Some that were dropped may have come after those of the same event.
    taken = sum(len(result["executions"]) for result in results)
    assert int(following["executions"][0]["id"]) - 90001 >= taken + results[-1]["dropped"]
