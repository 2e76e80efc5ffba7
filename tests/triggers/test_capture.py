"""Captures on a real event loop, against the sandbox, into real files."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from airflow_provider_quoine.captures import writer as capture_writer
from airflow_provider_quoine.captures.parts import NOT_RUNNING
from airflow_provider_quoine.captures.store import PartStore
from airflow_provider_quoine.exchange.market.sampling import Sampler
from airflow_provider_quoine.exchange.stream import pusher
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from airflow_provider_quoine.triggers.capture import QuoineCaptureTrigger
from tests.support.streams import LIMIT, stream_threads, until
from tools.capture_verdict import judge

Begin = Callable[..., QuoineCaptureTrigger]


@pytest.fixture
def market(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    """A lively market that ``quoine_default`` connects to, over streams that reconnect at once."""
    timing = {"first_wait": 0.01, "longest_wait": 0.1, "steady": 0.0, "activity_timeout": 0.2, "pong_timeout": 1.5}
    monkeypatch.setattr(pusher, "StreamTiming", partial(pusher.StreamTiming, **timing))
    with SandboxServer(SandboxSettings(market_rate=20)) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", sandbox.airflow_connection())
        yield sandbox


@pytest.fixture
def begin(tmp_path: Path) -> Begin:
    """Make triggers as the triggerer does, from what they serialized: captures that begin now."""

    def make(stream: str = "order_book", **changes: Any) -> QuoineCaptureTrigger:
        by_time = stream in ("order_book", "product")
        given = {
            "quoine_conn_id": "quoine_default",
            "stream": stream,
            "folder": str(tmp_path / "capture"),
            "file_format": "jsonl",
            "began_at": datetime.now(UTC).isoformat(),
            "duration": 2.0,
            "part_seconds": 0.5,
            "pair": None if stream == "event" else "btcjpy",
            "interval": 0.05 if by_time else None,
            **changes,
        }
        path, arguments = QuoineCaptureTrigger(**given).serialize()
        assert path == "airflow_provider_quoine.triggers.capture.QuoineCaptureTrigger"
        assert arguments.items() >= given.items()
        return QuoineCaptureTrigger(**json.loads(json.dumps(arguments)))

    return make


async def event_of(trigger: QuoineCaptureTrigger) -> dict[str, Any]:
    async with asyncio.timeout(4 * LIMIT):
        (event,) = [event.payload async for event in trigger.run()]
    json.dumps(event, allow_nan=False)
    return dict(event)


def arguments_of(trigger: QuoineCaptureTrigger) -> dict[str, Any]:
    return trigger.serialize()[1]


def files(trigger: QuoineCaptureTrigger) -> list[Path]:
    return sorted(Path(trigger.folder).iterdir())


def lines(trigger: QuoineCaptureTrigger, kind: str) -> list[dict[str, Any]]:
    """All lines of one type, from all files."""
    read = {".gz": lambda path: gzip.decompress(path.read_bytes()).decode(), ".jsonl": Path.read_text}
    every = [json.loads(line) for path in files(trigger) for line in read[path.suffix](path).splitlines()]
    return [line for line in every if line["type"] == kind]


def check(trigger: QuoineCaptureTrigger, event: dict[str, Any]) -> None:
    """See that an order-book capture holds what it promises."""
    verdict = judge(Path(trigger.folder), arguments_of(trigger), event)
    assert verdict.wrong == []


async def written(trigger: QuoineCaptureTrigger, parts: int) -> None:
    """Wait until so many parts are there."""
    folder = Path(trigger.folder)
    await until(lambda: folder.is_dir() and len(list(folder.glob("[!.]*"))) >= parts)


async def stop(task: asyncio.Task[dict[str, Any]]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_order_books_are_captured_by_time_in_parts(
    market: SandboxServer, begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    trigger = begin(depth=2)
    with caplog.at_level(logging.INFO, "airflow_provider_quoine"):
        event = asyncio.run(event_of(trigger))
    check(trigger, event)
    assert f"Capturing into {event['path']} until {event['until']}" in caplog.text
    assert (event["files"], event["reconnects"], event["dropped"], event["skipped"]) == (4, 0, 0, 0)
    rows = lines(trigger, "order_book")
    assert rows
    assert all(len(row["bids"]) == len(row["asks"]) == 2 for row in rows)
    assert not any(row["stale"] for row in rows)
    assert {gap["reason"] for gap in lines(trigger, "gap")} >= {"there was no whole order book of btcjpy yet"}
    assert event["path"].startswith(f"{trigger.folder}/order_book_btcjpy_")
    assert stream_threads() == []
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("quoine-capture")] == []


def test_tickers_are_captured_into_parquet(market: SandboxServer, begin: Begin) -> None:
    trigger = begin("product", file_format="parquet")
    event = asyncio.run(event_of(trigger))
    tables = [pq.read_table(path) for path in files(trigger)]
    assert sum(table.num_rows for table in tables) == event["rows"] > 0
    rows = [row for table in tables for row in table.to_pylist()]
    assert {row["id"] for row in rows} == {"5"}
    assert all(row["due_at"] >= row["received_at"] or row["age"] == 0 for row in rows)
    told = [json.loads(table.schema.metadata[b"quoine"]) for table in tables]
    assert sum(one["gap_seconds"] for one in told) == pytest.approx(event["gap_seconds"])


def test_executions_are_captured_every_one(market: SandboxServer, begin: Begin) -> None:
    trigger = begin("execution", file_format="jsonl.gz")
    event = asyncio.run(event_of(trigger))
    rows = lines(trigger, "execution")
    numbers = [int(row["id"]) for row in rows]
    # The sandbox counts them while somebody listens.
    assert numbers == list(range(90001, 90001 + len(rows)))
    assert (event["rows"], event["dropped"]) == (len(rows), 0)
    assert rows[0]["pair"] == "btcjpy"


def test_a_raw_capture_has_every_event_as_it_came(market: SandboxServer, begin: Begin) -> None:
    channels = ["executions_cash_btcjpy", "price_ladders_cash_ethbtc_buy", "anything-else"]
    trigger = begin("event", channels=channels)
    text = '{"a": "\\u592a \u2028", "b": 1.50}\n'

    async def scenario() -> dict[str, Any]:
        task = asyncio.create_task(event_of(trigger))
        await until(lambda: market.control.publish("anything-else", "odd", text) > 0)
        return await task

    event = asyncio.run(scenario())
    rows = lines(trigger, "event")
    assert event["rows"] == len(rows)
    assert {row["channel"] for row in rows} == set(channels)
    assert {tuple(row) for row in rows} == {("type", "received_at", "connection", "channel", "event", "data")}
    assert [row["data"] for row in rows if row["channel"] == "anything-else"] == [text]
    assert [row["received_at"] for row in rows] == sorted(row["received_at"] for row in rows)


@pytest.mark.parametrize("file_format", ["jsonl", "jsonl.gz"])
def test_a_raw_capture_is_the_same_again_when_the_sandbox_replays_it(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    channels = ["executions_cash_btcjpy", "product_cash_btcjpy_5"]
    first = begin("event", channels=channels, file_format=file_format)
    asyncio.run(event_of(first))
    with SandboxServer(SandboxSettings(replay=tuple(files(first)))) as again:
        monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", again.airflow_connection())
        second = begin(
            "event", channels=channels, file_format=file_format, folder=f"{first.folder}-again", duration=5.0
        )
        asyncio.run(event_of(second))
    events = [
        [(row["channel"], row["event"], row["data"]) for row in lines(trigger, "event")] for trigger in (first, second)
    ]
    assert events[0] == events[1]
    assert events[0]


def test_a_stopped_capture_keeps_its_unfinished_part_and_goes_on_there(market: SandboxServer, begin: Begin) -> None:
    trigger = begin(duration=9.0, part_seconds=4.5)

    async def scenario() -> dict[str, Any]:
        task = asyncio.create_task(event_of(trigger))
        await until(lambda: market.control.state()["stream"]["events"] > 20)
        await stop(task)
        first = lines(trigger, "order_book")
        assert lines(trigger, "part")[-1]["rows"] > 0
        # The next one finds a market that has moved on.
        await asyncio.sleep(0.3)
        event = await event_of(trigger)
        assert lines(trigger, "order_book")[: len(first)] == first
        gaps = [gap for gap in lines(trigger, "gap") if gap["reason"] == NOT_RUNNING]
        assert sum(gap["seconds"] for gap in gaps if gap["from"] >= first[-1]["due_at"]) >= 0.3
        return event

    event = asyncio.run(scenario())
    check(trigger, event)


def test_a_capture_that_is_stopped_while_a_snapshot_is_taken_states_that_it_is_missing(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = begin(duration=4.0, part_seconds=4.0)
    original, taken, taking = Sampler.parse, count(), asyncio.Event()

    async def hang(self: Sampler, **given: Any) -> Any:
        if next(taken) == 5:
            taking.set()
            await asyncio.Event().wait()
        return await original(self, **given)

    async def scenario() -> dict[str, Any]:
        monkeypatch.setattr(Sampler, "parse", hang)
        task = asyncio.create_task(event_of(trigger))
        await asyncio.wait_for(taking.wait(), LIMIT)
        await stop(task)
        monkeypatch.setattr(Sampler, "parse", original)
        return await event_of(trigger)

    event = asyncio.run(scenario())
    check(trigger, event)
    assert len(lines(trigger, "order_book")) > 5


def test_what_has_come_when_a_capture_is_stopped_is_kept(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = begin("event", channels=["mine"], duration=600.0, part_seconds=600.0)
    original, streams = pusher.PusherStream.__anext__, []

    async def hang_once(self: pusher.PusherStream) -> pusher.StreamEvent:
        streams.append(self)
        if len(streams) == 1:
            await asyncio.Event().wait()
        return await original(self)

    async def scenario() -> None:
        task = asyncio.create_task(event_of(trigger))
        await until(lambda: streams)
        for number in range(3):
            market.control.publish("mine", "told", str(number))
        await until(lambda: len(streams[0]._listener.queue or ()) == 3)
        await stop(task)

    monkeypatch.setattr(pusher.PusherStream, "__anext__", hang_once)
    asyncio.run(scenario())
    assert [json.loads(line["data"]) for line in lines(trigger, "event")] == [0, 1, 2]


def test_a_triggerer_that_stops_keeps_the_unfinished_part(market: SandboxServer, begin: Begin) -> None:
    trigger = begin(duration=600.0, part_seconds=300.0)
    tasks = []

    async def triggerer() -> None:
        tasks.append(asyncio.create_task(event_of(trigger)))
        await until(lambda: market.control.state()["stream"]["events"] > 20)

    # It stops as Airflow's does: the loop is left, and cancels all that runs on it at once.
    asyncio.run(triggerer())
    (unfinished,) = lines(trigger, "part")
    assert unfinished["rows"] == len(lines(trigger, "order_book")) > 0
    assert tasks[0].cancelled()


def test_a_window_that_ends_while_the_connection_is_looked_up_is_stated(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger, look_up = begin(duration=5.0), QuoineHook.aget_stream_endpoint
    first_is_over = datetime.fromisoformat(trigger.began_at) + timedelta(seconds=trigger.part_seconds)

    async def look_up_late(hook: QuoineHook) -> pusher.PusherEndpoint:
        await until(lambda: datetime.now(UTC) > first_is_over)
        return await look_up(hook)

    monkeypatch.setattr(QuoineHook, "aget_stream_endpoint", look_up_late)
    event = asyncio.run(event_of(trigger))
    check(trigger, event)
    assert event["files"] == 10


def test_two_copies_at_the_same_time_make_one_capture(market: SandboxServer, begin: Begin) -> None:
    trigger = begin(duration=5.0, part_seconds=1.0)

    async def scenario() -> list[dict[str, Any]]:
        first = asyncio.create_task(event_of(trigger))
        await written(trigger, 1)
        # It begins in the middle of a window that the first one has from its beginning.
        await asyncio.sleep(0.4)
        return [await task for task in (asyncio.create_task(event_of(begin(**arguments_of(trigger)))), first)]

    events = asyncio.run(scenario())
    for event in events:
        assert (event["status"], event["files"]) == ("success", 5)
    check(trigger, {**events[1], **{name: _sum(trigger, name) for name in ("rows", "gap_seconds", "reconnects")}})
    opening = [gap for gap in lines(trigger, "gap") if gap["reason"] == NOT_RUNNING]
    assert len(opening) <= 1


def _sum(trigger: QuoineCaptureTrigger, name: str) -> float:
    return float(sum(part[name] for part in lines(trigger, "part")))


def test_a_lost_connection_is_a_gap_and_books_are_stale_until_both_sides_are_fresh(
    market: SandboxServer, begin: Begin
) -> None:
    trigger = begin(duration=4.0)

    async def scenario() -> dict[str, Any]:
        task = asyncio.create_task(event_of(trigger))
        await written(trigger, 2)
        await asyncio.to_thread(market.control.set_market_rate, 0)
        await asyncio.to_thread(market.control.fault, "close", "stream", abrupt=True)
        await written(trigger, 4)
        await asyncio.to_thread(market.control.set_market_rate, 20)
        return await task

    event = asyncio.run(scenario())
    check(trigger, event)
    assert event["reconnects"] == 1
    stale = [row["stale"] for row in lines(trigger, "order_book")]
    # One run of stale rows between fresh ones.
    assert [old for old, new in pairwise(stale) if old != new] == [False, True]
    reasons = {gap["reason"] for gap in lines(trigger, "gap")} - {NOT_RUNNING}
    assert len(reasons) == 2


def test_what_falls_due_while_the_triggerer_is_held_up_is_a_gap(market: SandboxServer, begin: Begin) -> None:
    trigger = begin()

    async def scenario() -> dict[str, Any]:
        task = asyncio.create_task(event_of(trigger))
        await written(trigger, 2)
        time.sleep(0.5)  # noqa: ASYNC251 - a trigger of somebody else's that does so
        return await task

    check(trigger, asyncio.run(scenario()))
    assert "the triggerer was held up" in {gap["reason"] for gap in lines(trigger, "gap")}


def test_a_snapshot_that_cannot_be_read_is_a_gap_and_the_next_is_none(market: SandboxServer, begin: Begin) -> None:
    trigger = begin("product")

    async def scenario() -> dict[str, Any]:
        await asyncio.to_thread(market.control.set_market_rate, 0)
        task = asyncio.create_task(event_of(trigger))
        await until(lambda: market.control.publish("product_cash_btcjpy_5", "updated", "[]"))
        await written(trigger, 2)
        await asyncio.to_thread(market.control.publish, "product_cash_btcjpy_5", "updated", {"id": 5})
        return await task

    event = asyncio.run(scenario())
    unread = [gap["until"] for gap in lines(trigger, "gap") if gap["reason"] == "what was there could not be read"]
    rows = [row["due_at"] for row in lines(trigger, "product")]
    assert unread
    assert event["rows"] == len(rows) > 0
    assert max(unread) < min(rows)


def test_a_silence_that_is_missed_late_is_stated_in_the_files_that_were_written_before(
    market: SandboxServer, begin: Begin
) -> None:
    trigger = begin(duration=6.0)

    async def scenario() -> tuple[list[dict[str, Any]], dict[str, Any]]:
        task = asyncio.create_task(event_of(trigger))
        await written(trigger, 2)
        await asyncio.to_thread(market.control.fault, "silence", "stream")
        await written(trigger, 4)
        before = lines(trigger, "gap")
        return before, await task

    before, event = asyncio.run(scenario())
    check(trigger, event)
    found = [gap for gap in lines(trigger, "gap") if gap not in before]
    assert sum(gap["seconds"] for gap in found) > 1.5
    # The connection was given up for dead only when a part was written that has a piece of the gap now.
    assert len(found) >= 3


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_a_capture_that_is_taken_up_after_its_time_only_states_what_is_missing(
    market: SandboxServer, begin: Begin, file_format: str
) -> None:
    trigger = begin("execution", duration=1.5, file_format=file_format)

    async def scenario() -> dict[str, Any]:
        task = asyncio.create_task(event_of(trigger))
        await written(trigger, 1)
        await stop(task)
        await until(lambda: datetime.now(UTC) > datetime.fromisoformat(trigger.began_at) + timedelta(seconds=1.5))
        connections = market.control.state()["stream"]["connections_total"]
        event = await event_of(trigger)
        assert market.control.state()["stream"]["connections_total"] == connections
        return event

    event = asyncio.run(scenario())
    assert (event["status"], event["files"]) == ("success", 3)
    assert event["gap_seconds"] > 0.2


def test_a_capture_of_which_nothing_was_written_in_its_time_is_to_begin_anew(
    market: SandboxServer, begin: Begin
) -> None:
    event = asyncio.run(event_of(begin("execution", began_at="2026-01-02T03:04:05+00:00")))
    assert event["status"] == "empty"
    assert "begins a new one" in event["message"]


def test_a_capture_of_a_silent_pair_says_that_it_is_empty(market: SandboxServer, begin: Begin) -> None:
    event = asyncio.run(event_of(begin(pair="btcjpn", duration=1.0)))
    assert (event["status"], event["rows"]) == ("empty", 0)
    assert "misspelt" in event["message"]


def test_doubtful_snapshots_can_be_skipped_or_a_failure(market: SandboxServer, begin: Begin) -> None:
    async def scenario(on_doubt: str) -> tuple[QuoineCaptureTrigger, dict[str, Any]]:
        trigger = begin(on_doubt=on_doubt, folder=begin().folder + on_doubt, duration=3.0)
        await asyncio.to_thread(market.control.set_market_rate, 20)
        task = asyncio.create_task(event_of(trigger))
        await written(trigger, 1)
        await asyncio.to_thread(market.control.set_market_rate, 0)
        await asyncio.to_thread(market.control.fault, "close", "stream", abrupt=True)
        return trigger, await task

    trigger, event = asyncio.run(scenario("skip"))
    assert event["status"] == "success"
    assert event["skipped"] > 0
    assert not any(row["stale"] for row in lines(trigger, "order_book"))
    trigger, event = asyncio.run(scenario("fail"))
    assert event["status"] == "error"
    assert "is stale" in event["message"]
    assert f"{len(lines(trigger, 'order_book'))} rows in {len(files(trigger))} files were kept" in event["message"]


def test_a_refusal_for_good_keeps_what_there_is(market: SandboxServer, begin: Begin) -> None:
    trigger = begin("execution", duration=60.0, part_seconds=30.0)

    async def scenario() -> dict[str, Any]:
        task = asyncio.create_task(event_of(trigger))
        await until(lambda: market.control.state()["stream"]["events"] > 5)
        await asyncio.to_thread(market.control.fault, "pusher_error", "stream", code=4001, message="no such app")
        return await task

    event = asyncio.run(scenario())
    assert event["status"] == "error"
    assert "refuses the connection for good" in event["message"]
    rows = lines(trigger, "execution")
    assert rows
    assert f"{len(rows)} rows in 1 files were kept: {trigger.folder}/execution_btcjpy_" in event["message"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"duration": 0}, "duration"),
        ({"part_seconds": -1}, "part_seconds"),
        ({"part_seconds": 1e-6}, "give more seconds"),
        ({"interval": None}, "interval"),
        ({"interval": 60}, "shorter than the interval"),
        ({"pair": "BTC/JPY"}, "no currency pair"),
        ({"depth": 0}, "depth"),
        ({"on_doubt": "?"}, "on_doubt"),
        ({"began_at": "now"}, "began_at"),
        ({"file_format": "csv"}, "jsonl"),
        ({"folder": "nowhere://x"}, "cannot write to"),
        ({"stream": "product", "pair": "qashjpy"}, "product id"),
        ({"stream": "event", "channels": []}, "list of channels"),
        ({"stream": "trades"}, "order_book, product, execution, event"),
    ],
)
def test_wrong_input_is_refused_in_words_before_anything_is_captured(
    market: SandboxServer, begin: Begin, given: dict[str, Any], words: str
) -> None:
    trigger = begin(**given)
    event = asyncio.run(event_of(trigger))
    assert event["status"] == "refused"
    assert words in event["message"]
    assert market.control.state()["stream"]["connections_total"] == 0


def test_a_folder_that_cannot_be_written_fails_at_once(market: SandboxServer, begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    event = asyncio.run(event_of(begin(folder=str(tmp_path / "file" / "x"), duration=3600.0)))
    assert event["status"] == "error"
    assert "cannot be written to" in event["message"]
    assert market.control.state()["stream"]["connections_total"] == 0


def test_a_slow_store_holds_up_neither_the_loop_nor_the_capture(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger, gate, write = begin(duration=3.0), threading.Event(), PartStore.write

    def wait_and_write(*args: Any, **kwargs: Any) -> Any:
        assert gate.wait(LIMIT)
        return write(*args, **kwargs)

    monkeypatch.setattr(PartStore, "write", wait_and_write)

    async def scenario() -> dict[str, Any]:
        task = asyncio.create_task(event_of(trigger))
        await until(lambda: market.control.state()["stream"]["events"] > 60)
        assert files(trigger) == []
        gate.set()
        return await task

    check(trigger, asyncio.run(scenario()))


def test_a_store_that_fails_for_a_while_costs_no_row(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(capture_writer, "FIRST_WAIT", 0.05)
    trigger, failures, write = begin(duration=3.0), iter(range(5)), PartStore.write

    def fail_and_write(*args: Any, **kwargs: Any) -> Any:
        if next(failures, None) is not None:
            raise OSError(28, "No space left on device")
        return write(*args, **kwargs)

    monkeypatch.setattr(PartStore, "write", fail_and_write)
    with caplog.at_level(logging.INFO, "airflow_provider_quoine"):
        event = asyncio.run(event_of(trigger))
    check(trigger, event)
    said = [record.getMessage() for record in caplog.records if record.name == capture_writer.__name__]
    assert ["could not be written" in words for words in said] == [True, False]


@pytest.mark.parametrize("seconds", [2, 6])
def test_a_store_that_is_gone_for_longer_than_there_is_room_is_a_stated_gap(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(capture_writer, "FIRST_WAIT", 0.05)
    monkeypatch.setattr(capture_writer, "MOST_BYTES", 20_000)
    trigger, gone, write = begin(duration=5.0, depth=2), threading.Event(), PartStore.write

    def fail_or_write(*args: Any, **kwargs: Any) -> Any:
        if gone.is_set():
            raise OSError("unreachable")
        return write(*args, **kwargs)

    monkeypatch.setattr(PartStore, "write", fail_or_write)

    async def scenario() -> dict[str, Any]:
        task = asyncio.create_task(event_of(trigger))
        await written(trigger, 1)
        gone.set()
        began_at = datetime.now(UTC)
        await until(lambda: datetime.now(UTC) > began_at + timedelta(seconds=seconds))
        gone.clear()
        return await task

    event = asyncio.run(scenario())
    check(trigger, event)
    (lost,) = {gap["reason"] for gap in lines(trigger, "gap") if "no room" in gap["reason"]}
    assert "unreachable" in lost


def test_a_store_that_refuses_for_good_fails_with_what_was_kept_where(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_writer, "FIRST_WAIT", 0.05)
    trigger, gone, write = begin(duration=600.0), threading.Event(), PartStore.write

    def refuse_or_write(*args: Any, **kwargs: Any) -> Any:
        if gone.is_set():
            raise PermissionError("Access denied")
        return write(*args, **kwargs)

    monkeypatch.setattr(PartStore, "write", refuse_or_write)

    async def scenario() -> dict[str, Any]:
        task = asyncio.create_task(event_of(trigger))
        await written(trigger, 2)
        gone.set()
        return await task

    event = asyncio.run(scenario())
    assert event["status"] == "error"
    assert "refuses for good: PermissionError: Access denied" in event["message"]
    assert f"{len(lines(trigger, 'order_book'))} rows in {len(files(trigger))} files were kept" in event["message"]


def test_a_store_that_does_not_answer_ends_the_capture_after_a_last_patience(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_writer, "LAST_PATIENCE", 0.5)
    trigger, gate = begin(duration=1.0), threading.Event()
    monkeypatch.setattr(PartStore, "write", lambda *args, **kwargs: gate.wait(LIMIT))
    event = asyncio.run(event_of(trigger))
    gate.set()
    assert event["status"] == "error"
    assert "does not answer" in event["message"]
