"""Captures on a real event loop, against the sandbox, into real files."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from airflow_provider_quoine.captures.capture import CaptureResult
from airflow_provider_quoine.captures.parts import NOT_RUNNING
from airflow_provider_quoine.captures.run import HELD_UP
from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.captures.store import PartStore
from airflow_provider_quoine.exchange.errors import QuoineStreamError
from airflow_provider_quoine.exchange.market.sampling import QuoineDoubtfulSnapshotError, Sampler
from airflow_provider_quoine.exchange.stream import pusher
from airflow_provider_quoine.formats import forms
from airflow_provider_quoine.formats.entries import StoredPart, entry_name, entry_of, write_entry
from airflow_provider_quoine.formats.lines import read_lines
from airflow_provider_quoine.formats.pieces import Stretch
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.captures.capturing import check, files, lines, run, start, stop, summary_of, written
from tests.support.captured import check_captured
from tests.support.streams import LIMIT, stream_threads, until

# A capture lasts some seconds of real time, and what a busy machine keeps it from taking is a gap.
pytestmark = pytest.mark.paced

Begin = Callable[..., CaptureSpec]


async def test_order_books_are_captured_by_time_in_parts(
    market: SandboxServer, begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    spec = begin(depth=2)
    with caplog.at_level(logging.INFO, "airflow_provider_quoine"):
        summary = await summary_of(start(spec))
    check(spec, summary)
    assert f"Capturing into {summary['path']} until {summary['until']}" in caplog.text
    assert (summary["files"], summary["reconnects"], summary["dropped"], summary["skipped"]) == (4, 0, 0, 0)
    rows = lines(spec, "order_book")
    assert rows
    assert all(len(row["bids"]) == len(row["asks"]) == 2 for row in rows)
    assert not any(row["stale"] for row in rows)
    assert {gap["reason"] for gap in lines(spec, "gap")} >= {"there was no whole order book of btcjpy yet"}
    assert summary["path"].startswith(f"{spec.folder}/order_book_btcjpy_")
    assert stream_threads() == []
    # The thread of the files is not waited for; it ends as soon as it may.
    await until(lambda: not any(thread.name.startswith("quoine-capture") for thread in threading.enumerate()))


async def test_tickers_are_captured_into_parquet(market: SandboxServer, begin: Begin) -> None:
    spec = begin("product", file_format="parquet")
    summary = await summary_of(start(spec))
    tables = [pq.read_table(path) for path in files(spec)]
    assert sum(table.num_rows for table in tables) == summary["rows"] > 0
    rows = [row for table in tables for row in table.to_pylist()]
    assert {row["id"] for row in rows} == {"5"}
    assert all(row["due_at"] >= row["received_at"] or row["age"] == 0 for row in rows)
    assert sum(part["gap_seconds"] for part in lines(spec, "part")) == pytest.approx(summary["gap_seconds"])


async def test_executions_are_captured_every_one(market: SandboxServer, begin: Begin) -> None:
    spec = begin("execution", file_format="jsonl.gz")
    summary = await summary_of(start(spec))
    rows = lines(spec, "execution")
    numbers = [int(row["id"]) for row in rows]
    # The sandbox counts them while somebody listens.
    assert numbers == list(range(90001, 90001 + len(rows)))
    assert (summary["rows"], summary["dropped"]) == (len(rows), 0)
    assert rows[0]["pair"] == "btcjpy"


async def test_a_raw_capture_has_every_event_as_it_came(market: SandboxServer, begin: Begin) -> None:
    channels = ["executions_cash_btcjpy", "price_ladders_cash_ethbtc_buy", "anything-else"]
    spec = begin("event", channels=channels)
    text = '{"a": "\\u592a \u2028", "b": 1.50}\n'
    task = start(spec)
    await until(lambda: market.control.publish("anything-else", "odd", text) > 0)
    summary = await summary_of(task)
    rows = lines(spec, "event")
    assert summary["rows"] == len(rows)
    assert {row["channel"] for row in rows} == set(channels)
    assert {tuple(row) for row in rows} == {("type", "seq", "received_at", "connection", "channel", "event", "data")}
    assert [row["seq"] for row in rows] == list(range(rows[0]["seq"], rows[0]["seq"] + len(rows)))
    assert [row["data"] for row in rows if row["channel"] == "anything-else"] == [text]
    assert [row["received_at"] for row in rows] == sorted(row["received_at"] for row in rows)


@pytest.mark.parametrize("file_format", ["jsonl", "jsonl.gz"])
async def test_a_raw_capture_is_the_same_again_when_the_sandbox_replays_it(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    channels = ["executions_cash_btcjpy", "product_cash_btcjpy_5"]
    first = begin("event", channels=channels, file_format=file_format)
    await run(first)
    with SandboxServer(SandboxSettings(replay=tuple(files(first)))) as again:
        monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", again.airflow_connection())
        second = begin(
            "event", channels=channels, file_format=file_format, folder=f"{first.folder}-again", duration=5.0
        )
        await run(second)
    events = [[(row["channel"], row["event"], row["data"]) for row in lines(spec, "event")] for spec in (first, second)]
    assert events[0] == events[1]
    assert events[0]


async def test_a_stopped_capture_keeps_its_unfinished_part_and_goes_on_there(
    market: SandboxServer, begin: Begin
) -> None:
    spec = begin(duration=9.0, part_seconds=4.5)
    task = start(spec)
    await until(lambda: market.control.state()["stream"]["events"] > 20)
    await stop(task)
    first = lines(spec, "order_book")
    assert lines(spec, "part")[-1]["rows"] > 0
    # The next one finds a market that has moved on.
    await asyncio.sleep(0.3)
    summary = await summary_of(start(spec))
    assert lines(spec, "order_book")[: len(first)] == first
    gaps = [gap for gap in lines(spec, "gap") if gap["reason"] == NOT_RUNNING]
    assert sum(gap["seconds"] for gap in gaps if gap["from"] >= first[-1]["due_at"]) >= 0.3
    check(spec, summary)


async def test_a_capture_that_is_stopped_while_a_snapshot_is_taken_states_that_it_is_missing(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = begin(duration=4.0, part_seconds=4.0)
    original, number, taking = Sampler.parse, count(), asyncio.Event()

    async def hang(self: Sampler, **given: Any) -> Any:
        if next(number) == 5:
            taking.set()
            await asyncio.Event().wait()
        return await original(self, **given)

    monkeypatch.setattr(Sampler, "parse", hang)
    task = start(spec)
    await asyncio.wait_for(taking.wait(), LIMIT)
    await stop(task)
    monkeypatch.setattr(Sampler, "parse", original)
    check(spec, await summary_of(start(spec)))
    assert len(lines(spec, "order_book")) > 5


async def test_what_has_come_when_a_capture_is_stopped_is_kept(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = begin("event", channels=["mine"], duration=600.0, part_seconds=600.0)
    original, streams = pusher.PusherStream.__anext__, []

    async def hang_once(self: pusher.PusherStream) -> pusher.StreamEvent:
        streams.append(self)
        if len(streams) == 1:
            await asyncio.Event().wait()
        return await original(self)

    monkeypatch.setattr(pusher.PusherStream, "__anext__", hang_once)
    task = start(spec)
    await until(lambda: streams)
    for number in range(3):
        market.control.publish("mine", "told", str(number))
    queue = streams[0]._listener.queue
    assert queue is not None
    await until(lambda: len(queue._messages) == 3)
    await stop(task)
    assert [json.loads(line["data"]) for line in lines(spec, "event")] == [0, 1, 2]


def test_a_triggerer_that_stops_keeps_the_unfinished_part(market: SandboxServer, begin: Begin) -> None:
    spec = begin(duration=600.0, part_seconds=300.0)
    tasks: list[asyncio.Task[CaptureResult]] = []

    async def triggerer() -> None:
        tasks.append(start(spec))
        await until(lambda: market.control.state()["stream"]["events"] > 20)

    # Not an async test: as in Airflow's triggerer, the end of the loop itself cancels all that runs on it at once.
    asyncio.run(triggerer())
    (unfinished,) = lines(spec, "part")
    assert unfinished["rows"] == len(lines(spec, "order_book")) > 0
    assert tasks[0].cancelled()


async def test_a_period_that_ends_while_the_connection_is_looked_up_is_stated(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, look_up = begin(duration=5.0), QuoineHook.aget_stream_endpoint

    async def look_up_late(hook: QuoineHook) -> pusher.PusherEndpoint:
        await until(lambda: datetime.now(UTC) > spec.periods.span(0).until)
        return await look_up(hook)

    monkeypatch.setattr(QuoineHook, "aget_stream_endpoint", look_up_late)
    summary = await summary_of(start(spec))
    check(spec, summary)
    assert summary["files"] == 10


async def test_two_copies_at_the_same_time_make_one_capture(market: SandboxServer, begin: Begin) -> None:
    spec = begin(duration=5.0, part_seconds=1.0)
    first = start(spec)
    await written(spec, 1)
    # It begins in the middle of a period that the first one has from its beginning.
    await asyncio.sleep(0.4)
    summaries = [await summary_of(task) for task in (start(spec), first)]
    assert [summary["files"] for summary in summaries] == [5, 5]
    # The one that ended first may know less than what is there in the end.
    check_captured(spec.folder)
    # Nobody listened but before there was a row, however long a busy machine takes to begin.
    first_row = lines(spec, "order_book")[0]["due_at"]
    assert all(gap["until"] <= first_row for gap in lines(spec, "gap") if gap["reason"] == NOT_RUNNING)


async def test_a_lost_connection_is_a_gap_and_books_are_stale_until_both_sides_are_fresh(
    market: SandboxServer, begin: Begin
) -> None:
    spec = begin(duration=4.0)
    task = start(spec)
    await written(spec, 2)
    await asyncio.to_thread(market.control.set_market_rate, 0)
    await asyncio.to_thread(market.control.fault, "close", "stream", abrupt=True)
    await written(spec, 4)
    await asyncio.to_thread(market.control.set_market_rate, 20)
    summary = await summary_of(task)
    check(spec, summary)
    assert summary["reconnects"] == 1
    stale = [row["stale"] for row in lines(spec, "order_book")]
    # One run of stale rows between fresh ones.
    assert [old for old, new in pairwise(stale) if old != new] == [False, True]
    # A machine that is busy with other tests may hold up the loop, too.
    reasons = {gap["reason"] for gap in lines(spec, "gap")} - {NOT_RUNNING, HELD_UP}
    assert len(reasons) == 2


async def test_what_falls_due_while_the_triggerer_is_held_up_is_a_gap(market: SandboxServer, begin: Begin) -> None:
    spec = begin()
    task = start(spec)
    await written(spec, 2)
    time.sleep(0.5)  # noqa: ASYNC251 - a trigger of somebody else's that does so
    check(spec, await summary_of(task))
    assert HELD_UP in {gap["reason"] for gap in lines(spec, "gap")}


async def test_a_snapshot_that_cannot_be_read_is_a_gap_and_the_next_is_none(
    market: SandboxServer, begin: Begin
) -> None:
    spec = begin("product", duration=6.0)
    await asyncio.to_thread(market.control.set_market_rate, 0)
    task = start(spec)
    await until(lambda: market.control.publish("product_cash_btcjpy_5", "updated", "[]"))
    await written(spec, 2)
    await asyncio.to_thread(market.control.publish, "product_cash_btcjpy_5", "updated", {"id": 5})
    summary = await summary_of(task)
    unread = [gap["until"] for gap in lines(spec, "gap") if gap["reason"] == "what was there could not be read"]
    rows = [row["due_at"] for row in lines(spec, "product")]
    assert unread
    assert summary["rows"] == len(rows) > 0
    assert max(unread) < min(rows)


async def test_a_silence_is_stated_in_the_files_of_its_time_and_none_says_before_that_it_listened(
    market: SandboxServer, begin: Begin
) -> None:
    spec = begin(duration=6.0)
    task = start(spec)
    await written(spec, 2)
    await asyncio.to_thread(market.control.fault, "silence", "stream")
    check(spec, await summary_of(task))
    gaps = lines(spec, "gap")
    assert sum(gap["seconds"] for gap in gaps) > 1.5
    # It is known only when the connection is given up for dead, and lies in parts that were over by then.
    assert len(gaps) >= 3


async def test_a_restarted_capture_listens_before_it_reads_what_is_there_and_reads_no_old_row(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    began_at = datetime.now(UTC) - timedelta(seconds=1000)
    spec = begin("execution", began_at=began_at.isoformat(), duration=3600.0, part_seconds=1.0)
    folder, store = Path(spec.folder), PartStore(spec)
    store.open()
    old = int((datetime.now(UTC) - began_at).total_seconds()) - 3
    for period in range(old):
        span, name, content = spec.periods.span(period), f"{store.stem}_{period:06d}_000000_old-1.jsonl", b""
        entry = entry_of(
            StoredPart(0, [], [Stretch(*span, life="old")]), span, part_from=span.since, name=name, content=content
        )
        (folder / name).write_bytes(content)
        (folder / entry_name(name)).write_bytes(write_entry(entry))
    gate, read, entries, decoded = threading.Event(), PartStore._read_entry, count(), count()

    def wait_and_read(self: PartStore, name: str) -> bool:
        assert gate.wait(LIMIT)
        next(entries)
        return read(self, name)

    def decode(content: bytes) -> Any:
        next(decoded)
        return read_lines(content)

    monkeypatch.setattr(PartStore, "_read_entry", wait_and_read)
    monkeypatch.setattr(forms, "read_lines", decode)
    task = start(spec)
    await until(lambda: market.control.state()["stream"]["events"] > 5)
    gate.set()
    await written(spec, old + 3)
    await stop(task)
    assert not any(entry["gaps"] for entry in lines(spec, "part")[:old])
    # Those of the moment when it began.
    assert next(entries) < 10
    assert next(decoded) < 10


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
async def test_a_capture_that_is_taken_up_after_its_time_only_states_what_is_missing(
    market: SandboxServer, begin: Begin, file_format: str
) -> None:
    spec = begin("execution", duration=3.0, part_seconds=1.0, file_format=file_format)
    task = start(spec)
    await written(spec, 1)
    await stop(task)
    await until(lambda: datetime.now(UTC) > spec.periods.ends_at)
    connections = market.control.state()["stream"]["connections_total"]
    summary = await summary_of(start(spec))
    assert market.control.state()["stream"]["connections_total"] == connections
    assert summary["files"] == 3
    assert summary["gap_seconds"] > 0.2


async def test_a_capture_of_which_nothing_was_written_in_its_time_is_to_begin_anew(
    market: SandboxServer, begin: Begin
) -> None:
    result = await run(begin("execution", began_at="2026-01-02T03:04:05+00:00"))
    assert result.summary == {}
    assert "begins a new one" in result.empty


async def test_a_capture_of_a_silent_pair_says_that_it_is_empty(market: SandboxServer, begin: Begin) -> None:
    result = await run(begin(pair="btcjpn", duration=1.0))
    assert result.summary["rows"] == 0
    assert result.empty.startswith("No order book of btcjpn within 1 s on ")
    assert "misspelt" in result.empty


@pytest.mark.parametrize("on_doubt", ["skip", "fail"])
async def test_doubtful_snapshots_can_be_skipped_or_a_failure(
    market: SandboxServer, begin: Begin, on_doubt: str
) -> None:
    spec = begin(on_doubt=on_doubt, duration=3.0)
    task = start(spec)
    await written(spec, 1)
    await asyncio.to_thread(market.control.set_market_rate, 0)
    await asyncio.to_thread(market.control.fault, "close", "stream", abrupt=True)
    if on_doubt == "skip":
        assert (await summary_of(task))["skipped"] > 0
        assert not any(row["stale"] for row in lines(spec, "order_book"))
        return
    with pytest.raises(QuoineDoubtfulSnapshotError, match="is stale") as caught:
        await task
    assert f"{len(lines(spec, 'order_book'))} rows in {len(files(spec))} files were kept" in str(caught.value)


async def test_a_refusal_for_good_keeps_what_there_is(market: SandboxServer, begin: Begin) -> None:
    spec = begin("execution", duration=60.0, part_seconds=30.0)
    task = start(spec)
    await until(lambda: market.control.state()["stream"]["events"] > 5)
    await asyncio.to_thread(market.control.fault, "pusher_error", "stream", code=4001, message="no such app")
    with pytest.raises(QuoineStreamError, match="refuses the connection for good") as caught:
        await task
    rows = lines(spec, "execution")
    assert rows
    assert f"{len(rows)} rows in 1 files were kept: {spec.folder}/execution_btcjpy_" in str(caught.value)
