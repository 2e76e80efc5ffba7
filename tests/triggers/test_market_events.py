"""Triggers on market events, on a real event loop and Airflow's own shared streams, against the sandbox."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from airflow.sdk.definitions.asset import Asset, AssetWatcher
from airflow.triggers.base import BaseEventTrigger, BaseTrigger

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.market import market_feed
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.triggers import market_events
from airflow_provider_quoine.triggers.events import Status, read_event
from airflow_provider_quoine.triggers.market_events import (
    QuoineLargeTradeTrigger,
    QuoineMarketConditionTrigger,
    QuoinePriceCrossTrigger,
    QuoineSilentBookTrigger,
    QuoineSpreadTrigger,
)
from tests.support.pairs import counted_pair_checks
from tests.support.streams import ASKS, BIDS, control, our_records, stream_threads, until
from tests.triggers.watchers import TRADES, book, prices, subscribed_to, trade, trades, watching


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once."""
    monkeypatch.setattr(market_events, "FIRST_RETRY_DELAY", 0.01)
    monkeypatch.setattr(market_events, "LONGEST_RETRY_DELAY", 0.05)


@pytest.fixture
def unused_port() -> Iterator[int]:
    """Hold a port at which nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def price_cross(**changes: Any) -> QuoinePriceCrossTrigger:
    return QuoinePriceCrossTrigger(**{"pair": "btcjpy", "level": "600", "cooldown": 0, **changes})


def large_trade(**changes: Any) -> QuoineLargeTradeTrigger:
    return QuoineLargeTradeTrigger(**{"pair": "btcjpy", "size": "5", "cooldown": 0, **changes})


async def test_a_level_crossed_once_is_one_event(market: SandboxServer) -> None:
    async with watching(price_cross(), large_trade()) as watched:
        await prices(market, "601", "599", "599.9")
        await trades(market, trade("600.5", id=7))
        await prices(market, "601", "602")
        # Trades are judged in their order: this one is the last.
        await trades(market, trade("650", quantity="9"))
        await until(lambda: watched.events[1])
        (event,) = watched.events[0]
    assert event | {"at": ""} == {
        "event": "price_crossed",
        "pair": "btcjpy",
        "at": "",
        "price": "600.5",
        "source": "last_trade",
        "level": "600",
        "direction": "up",
        "event_id": "quoine_default/price_crossed/btcjpy/600/up/last_trade/7",
        "seen_after_gap": False,
        "gap_since": None,
        "unknown_since": None,
        "unknown_until": None,
        "suppressed": 0,
        "missed_trades": 0,
    }


async def test_a_pair_is_checked_once_for_a_watcher_not_for_its_events(market: SandboxServer) -> None:
    watcher = large_trade()
    with counted_pair_checks() as checked:
        async with watching(watcher) as watched:
            await trades(market, *(trade(quantity="9") for _ in range(10)))
            await until(lambda: len(watched.events[0]) == 10)
    # The triggerer makes the watcher from its stored arguments, and once more to open the shared stream.
    assert checked == ["btcjpy"] * 2


async def test_each_large_trade_is_an_event_with_the_trade(market: SandboxServer) -> None:
    async with watching(large_trade()) as watched:
        await trades(market, trade(quantity="5"), trade(quantity="5.1"), trade(quantity="4"), trade("7", "6", id=9))
        await until(lambda: len(watched.events[0]) == 2)
    assert [event["trade"]["quantity"] for event in watched.events[0]] == ["5.1", "6"]
    assert watched.events[0][1]["trade"] == {
        "id": "9",
        "price": "7",
        "quantity": "6",
        "taker_side": "sell",
        "created_at": "2016-09-04T14:40:00+00:00",
    }


async def test_the_book_is_watched_by_bid_ask_mid_and_spread(market: SandboxServer) -> None:
    watchers = [price_cross(price=price) for price in ("best_bid", "best_ask", "mid")]
    async with watching(*watchers, QuoineSpreadTrigger(pair="btcjpy", bound="5")) as watched:
        assert len(watched.manager._groups) == 1
        await book(market, watched, "590", "592")
        await book(market, watched, "590", "604")
        await book(market, watched, "597", "604")
        await book(market, watched, "602", "604")
        await until(lambda: all(watched.events))
    assert [[event["price"] for event in each] for each in watched.events[:3]] == [["602"], ["604"], ["600.5"]]
    (wide,) = watched.events[3]
    assert [wide[name] for name in ("spread", "best_bid", "best_ask", "bound")] == ["14", "590", "604", "5"]


@pytest.mark.long
async def test_a_silent_book_is_one_event_for_each_silence(market: SandboxServer) -> None:
    silence = QuoineSilentBookTrigger(pair="btcjpy", seconds=3, cooldown=0)
    async with watching(silence) as watched:
        await until(lambda: len(watched.events[0]) == 1)
        await book(market, watched, "1")
        await until(lambda: len(watched.events[0]) == 2)
    assert [event["connected"] for event in watched.events[0]] == [True, True]
    assert all(event["silent_seconds"] >= 3 for event in watched.events[0])


async def test_100_watchers_on_one_stream_open_one_connection_and_one_shared_stream(market: SandboxServer) -> None:
    watchers = [price_cross(level=str(600 + number)) for number in range(100)]
    async with watching(*watchers) as watched:
        await prices(market, "599", "649.5")
        await until(lambda: sum(map(len, watched.events)) >= 50)
        assert len(watched.manager._groups) == 1
        assert len(stream_threads()) <= 3
    assert [len(each) for each in watched.events] == [1] * 50 + [0] * 50
    stream = market.control.state(requests=1)["stream"]
    assert (stream["connections_total"], stream["connections_max"]) == (1, 1)


async def test_watchers_of_other_pairs_and_of_the_book_share_the_connection(market: SandboxServer) -> None:
    pairs = ["btcjpy", "btcusd", "ethjpy"]
    watchers = [price_cross(pair=pair, price=price) for pair in pairs for price in ("last_trade", "mid")]
    async with watching(*watchers) as watched:
        await until(lambda: len(market.control.state(requests=1)["stream"]["channels"]) == 9)
        assert len(watched.manager._groups) == 6
    assert market.control.state(requests=1)["stream"]["connections_total"] == 1


async def test_after_a_reconnect_a_crossing_is_told_late(market: SandboxServer) -> None:
    async with watching(price_cross(), price_cross(price="best_bid"), large_trade()) as watched:
        await prices(market, "599")
        await book(market, watched, "599")
        await asyncio.to_thread(market.control.fault, "close", "stream", code=4200)
        await until(lambda: market.control.state()["stream"]["connections_total"] == 2)
        await prices(market, "601", "602")
        await book(market, watched, "601")
        await trades(market, trade("603", "9"))
        await until(lambda: watched.events[2])
        await prices(market, "599", "601.5")
        await book(market, watched, "599")
        await book(market, watched, "601.5")
        await until(lambda: len(watched.events[0]) == len(watched.events[1]) == 2)
    for (late, live), price in zip(watched.events[:2], ("last_trade", "best_bid"), strict=True):
        assert [late["source"], late["price"], late["seen_after_gap"]] == [price, "601", True]
        assert late["unknown_since"] < late["unknown_until"] == late["at"]
        assert [live["price"], live["seen_after_gap"], live["unknown_since"]] == ["601.5", False, None]
    ((large,),) = watched.events[2:]
    assert not large["seen_after_gap"]


@pytest.mark.long
async def test_a_slow_watcher_with_a_short_queue_loses_no_trade_of_a_burst(
    market: SandboxServer,
) -> None:
    async with watching(large_trade(), queue_size=16, pause=0.01) as watched:
        await subscribed_to(market, TRADES)
        await asyncio.to_thread(
            lambda: [market.control.publish(TRADES, "created", trade(str(n), "9")) for n in range(1, 201)]
        )
        await until(lambda: len(watched.events[0]) == 200)
    assert [event["trade"]["price"] for event in watched.events[0]] == [str(n) for n in range(1, 201)]
    assert {event["missed_trades"] for event in watched.events[0]} == {0}


async def test_trades_beyond_the_queue_are_counted_and_logged(
    market: SandboxServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(market_feed, "TRADE_QUEUE_SIZE", 10)
    async with watching(large_trade(), price_cross(level="900")) as watched:
        await subscribed_to(market, TRADES)
        # Not off the event loop: it is held up until all have come.
        for number in range(50):
            market.control.publish(TRADES, "created", trade(str(number + 1), "9"))
        await until(lambda: watched.events[0] and watched.events[0][-1]["trade"]["price"] == "50")
        await prices(market, "900")
        await until(lambda: watched.events[1])
    told = watched.events[0]
    missed = sum(event["missed_trades"] for event in told)
    assert missed > 0
    assert len(told) + missed == 50
    assert watched.events[1][0]["missed_trades"] == missed
    assert "trades of btcjpy were lost" in caplog.text


async def test_a_burst_of_books_is_conflated(market: SandboxServer) -> None:
    # It is busy with each look, and its queue has room for few.
    busy = price_cross(price="best_bid", direction="either")
    async with watching(busy, queue_size=16, pause=0.01) as watched:
        await book(market, watched, "1")
        await asyncio.to_thread(
            lambda: [market.control.publish(BIDS, "updated", [[price, "1"]]) for price in ("601", "599") * 100]
        )
        await book(market, watched, "650")
        await book(market, watched, "2")
        await until(lambda: watched.events[0] and watched.events[0][-1]["price"] == "2")


async def test_unreadable_data_is_skipped_and_warned_of_once_without_its_content(
    market: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with watching(large_trade(), price_cross(price="best_bid")) as watched:
        await trades(market, {"garbage": 1}, {"garbage": 2}, trade(quantity="9"))
        await until(lambda: watched.events[0])
        await book(market, watched, "599")
        await control(market.control.publish, BIDS, "updated", [["garbage", "1"]])
        await until(lambda: "data of btcjpy (book) that cannot be read" in caplog.text)
        await book(market, watched, "600")
        await until(lambda: watched.events[1])
    assert watched.events[0][0]["missed_trades"] == 2
    assert caplog.text.count("data of btcjpy (trades) that cannot be read") == 1
    assert "garbage" not in caplog.text


@pytest.mark.long
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (None, "isn't defined"),
        ({}, "has no Pusher key"),
        ({"pusher_key": "another-key"}, "Check the Pusher key"),
        ({"pusher_key": "another-key", "pusher_tls": True, "ca_path": "/nowhere.pem"}, "/nowhere.pem"),
    ],
)
async def test_a_wrong_connection_is_logged_once_and_retried_until_it_is_corrected(
    market: SandboxServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    extra: dict[str, Any] | None,
    words: str,
) -> None:
    right = market.airflow_connection()
    monkeypatch.delenv("AIRFLOW_CONN_QUOINE_DEFAULT")
    if extra is not None:
        given = {"pusher_host": "127.0.0.1", "pusher_port": market.port, "pusher_tls": False, **extra}
        monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", json.dumps({"conn_type": "quoine", "extra": given}))
    attempts = 0
    states = market_events.market_states

    def counted(*arguments: Any) -> Any:
        nonlocal attempts
        attempts += 1
        return states(*arguments)

    monkeypatch.setattr(market_events, "market_states", counted)
    async with watching(large_trade(), QuoineSilentBookTrigger(pair="btcjpy", seconds=1)) as watched:
        # Two streams, each tried at least twice.
        await until(lambda: attempts > 4)
        await until(lambda: watched.events[1])
        monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", right)
        await trades(market, trade(quantity="9"))
        await until(lambda: watched.events[0])
    assert [event["connected"] for event in watched.events[1]] == [False]
    told = [record.getMessage() for record in caplog.records if record.name == market_events.__name__]
    assert len(told) == 2
    assert all(words in each for each in told)
    assert [record for record in our_records(caplog) if record.levelno > logging.INFO] == []
    assert [record for record in our_records(caplog) if "another-key" in record.getMessage()] == []


@pytest.mark.usefixtures("impatient")
async def test_an_unexpected_failure_is_logged_with_its_traceback_and_retried(
    market: SandboxServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = QuoineHook.aget_stream_endpoint
    failures = [RuntimeError("surprise")] * 3

    async def failing(hook: QuoineHook) -> Any:
        if failures:
            raise failures.pop()
        return await endpoint(hook)

    monkeypatch.setattr(QuoineHook, "aget_stream_endpoint", failing)
    async with watching(large_trade()) as watched:
        await trades(market, trade(quantity="9"))
        await until(lambda: watched.events[0])
    (told,) = (record for record in caplog.records if record.name == market_events.__name__)
    assert "surprise" in told.getMessage()
    assert told.exc_info is not None


async def test_a_corrected_connection_is_read_again(
    market: SandboxServer, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    right = market.airflow_connection()
    wrong = json.loads(right)
    wrong["extra"]["pusher_port"] = unused_port
    monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", json.dumps(wrong))
    monkeypatch.setattr(market_feed, "REOPEN_AFTER", 0.5)
    monkeypatch.setattr(market_feed, "IDLE_INTERVAL", 0.1)
    async with watching(large_trade()) as watched:
        await until(lambda: stream_threads())
        monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", right)
        await trades(market, trade(quantity="9"))
        await until(lambda: watched.events[0])


async def test_a_stopped_watcher_leaves_no_thread_and_no_task(market: SandboxServer) -> None:
    async with watching(price_cross(), price_cross(price="mid")):
        await subscribed_to(market, TRADES)
        await subscribed_to(market, BIDS)
    await until(lambda: stream_threads() == [] and len(asyncio.all_tasks()) == 1)


async def test_a_watcher_runs_without_a_shared_stream(market: SandboxServer) -> None:
    alone = large_trade().run()
    event = asyncio.ensure_future(anext(alone))
    await trades(market, trade(quantity="9"))
    assert (await event).payload["event"] == "trade_above"
    await alone.aclose()  # type: ignore[attr-defined]  # Airflow types a generator as an iterator
    await until(lambda: stream_threads() == [])


async def test_a_book_that_cannot_be_read_hides_a_crossing_which_is_told_after_it(market: SandboxServer) -> None:
    async with watching(price_cross(price="best_bid")) as watched:
        await book(market, watched, "599")
        await control(market.control.publish, BIDS, "updated", [["garbage", "1"]])
        await until(lambda: next(iter(watched.states.values()))[-1].top.bid is None)
        await book(market, watched, "601")
        await until(lambda: watched.events[0])
    assert watched.events[0][0]["seen_after_gap"]


@pytest.mark.parametrize("kind", ["shared", "alone"])
def test_a_watcher_can_have_a_queue_of_airflow_s_which_is_no_part_of_its_identity(kind: str) -> None:
    given: Any = {"queue": "streams"} if kind == "shared" else {}
    watcher: Any = large_trade(**given)
    if hasattr(BaseTrigger, "queue"):
        assert watcher.queue == given.get("queue")
    assert "queue" not in watcher.serialize()[1]
    assert watcher.serialize() == large_trade().serialize()


WATCHERS = [
    QuoinePriceCrossTrigger(pair="BTCJPY", level="600.50", direction="either", price="mid", cooldown=5),
    QuoineSpreadTrigger(pair="btcjpy", bound="0.50"),
    QuoineLargeTradeTrigger(pair="btcjpy", size="007", quoine_conn_id="mine"),
    QuoineSilentBookTrigger(pair="btcjpy", seconds=60),
]


@pytest.mark.parametrize("watcher", WATCHERS, ids=lambda one: type(one).__name__)
def test_a_watcher_is_made_again_from_its_serialized_arguments(watcher: BaseEventTrigger) -> None:
    path, arguments = watcher.serialize()
    assert {type(argument) for argument in arguments.values()} <= {str, float}
    assert path == f"airflow_provider_quoine.triggers.market_events.{type(watcher).__name__}"
    again = type(watcher)(**json.loads(json.dumps(arguments)))
    assert json.dumps(again.serialize()) == json.dumps(watcher.serialize())
    assert again.shared_stream_key() == watcher.shared_stream_key()
    assert BaseEventTrigger.hash(*again.serialize()) == BaseEventTrigger.hash(*watcher.serialize())
    assert Asset("it", watchers=[AssetWatcher(name="it", trigger=watcher)]).watchers


def test_equal_watchers_are_one_trigger_to_airflow() -> None:
    one = QuoinePriceCrossTrigger(pair="BTCJPY", level="600.50", cooldown=5)
    other = QuoinePriceCrossTrigger(pair="btcjpy", level="0600.5", cooldown=5.0)
    assert BaseEventTrigger.hash(*one.serialize()) == BaseEventTrigger.hash(*other.serialize())


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (QuoinePriceCrossTrigger, {"level": 600.5}, "level is 600.5: .*as text in plain digits"),
        (QuoinePriceCrossTrigger, {"level": Decimal(600)}, "level is"),
        (QuoinePriceCrossTrigger, {"level": "600", "direction": "above"}, "direction is 'above': give one of 'up'"),
        (QuoinePriceCrossTrigger, {"level": "600", "price": "ask"}, "price is 'ask': give one of 'last_trade'"),
        (QuoinePriceCrossTrigger, {"level": "600", "pair": "BTC/JPY"}, "no currency pair"),
        (QuoineSilentBookTrigger, {"seconds": 60, "pair": "b" * 141}, "165 characters; Pusher allows 164"),
        (QuoinePriceCrossTrigger, {"level": "600", "cooldown": -1}, "cooldown is -1"),
        (QuoinePriceCrossTrigger, {"level": "600", "cooldown": "60"}, "cooldown is '60'"),
        (QuoinePriceCrossTrigger, {"level": "600", "quoine_conn_id": ""}, "quoine_conn_id is ''"),
        (QuoineSpreadTrigger, {"bound": "0"}, "bound is '0': give a number above zero"),
        (QuoineLargeTradeTrigger, {"size": 5}, "size is 5"),
        (QuoineSilentBookTrigger, {"seconds": 0.1}, "seconds is 0.1: give a number of seconds, 1 or more"),
    ],
)
def test_wrong_arguments_fail_when_the_dag_is_parsed(
    kind: type[BaseEventTrigger], given: dict[str, Any], words: str
) -> None:
    with pytest.raises(QuoineInputError, match=words):
        kind(**{"pair": "btcjpy", **given})


def waiting(condition: str = "price_crossed", **arguments: Any) -> BaseTrigger:
    """Make a sensor's trigger as the triggerer does."""
    given: dict[str, Any] = {
        "pair": "btcjpy",
        "condition": condition,
        "arguments": arguments or {"level": "600", "direction": "up", "price": "last_trade"},
        "quoine_conn_id": "quoine_default",
    }
    path, stored = QuoineMarketConditionTrigger(**given).serialize()
    assert path == "airflow_provider_quoine.triggers.market_events.QuoineMarketConditionTrigger"
    assert stored == given
    return QuoineMarketConditionTrigger(**json.loads(json.dumps(stored)))


async def events_of(trigger: BaseTrigger) -> list[dict[str, Any]]:
    return [event.payload async for event in trigger.run()]


@pytest.mark.parametrize("path", [["601"], ["598", "599", "601"]])
async def test_a_wait_ends_when_the_condition_is_true_or_was_before(market: SandboxServer, path: list[str]) -> None:
    task = asyncio.create_task(events_of(waiting()))
    await prices(market, *path)
    (event,) = await task
    outcome = read_event(event, sender="It")
    assert outcome.status is Status.SUCCESS
    assert (outcome.result["event"], outcome.result["price"]) == ("price_crossed", "601")
    json.dumps(event, allow_nan=False)
    assert type(outcome.result["pair"]) is str


@pytest.mark.parametrize(
    ("extra", "words"), [({}, "has no Pusher key"), ({"pusher_key": "another-key"}, "Check the Pusher key")]
)
async def test_a_wait_that_cannot_go_on_is_an_error_in_words(
    market: SandboxServer, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], words: str
) -> None:
    given = {"pusher_host": "127.0.0.1", "pusher_port": market.port, "pusher_tls": False, **extra}
    monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", json.dumps({"conn_type": "quoine", "extra": given}))
    (event,) = await events_of(waiting())
    outcome = read_event(event, sender="It")
    assert outcome.status is Status.ERROR
    assert words in outcome.message
    assert "another-key" not in outcome.message


async def test_a_cancelled_wait_leaves_no_thread_and_no_task(market: SandboxServer) -> None:
    task = asyncio.create_task(events_of(waiting("book_silent", seconds=100.0)))
    await subscribed_to(market, ASKS)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: stream_threads() == [] and len(asyncio.all_tasks()) == 1)
