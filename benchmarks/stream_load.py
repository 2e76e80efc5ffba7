"""One event loop with many order-book triggers: ours, all over one pysher, or each with a pysher of its own."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.poller import _resident_kib, watch_the_loop

PAIRS = [f"aaa{number:02d}" for number in range(40)]
SETTLE = 4.0
"""Seconds in which all get connected; what comes in them is not counted."""


def run(pipe: Connection, way: str, port: int, triggers: int, interval: float, seconds: float) -> None:
    """Run triggers that take a snapshot every interval, all due at the same moments; report the cost."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["AIRFLOW_HOME"] = home
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
        extra = {"pusher_key": "key", "pusher_host": "127.0.0.1", "pusher_port": port, "pusher_tls": False}
        os.environ["AIRFLOW_CONN_EXCHANGE"] = json.dumps({"conn_type": "quoine", "extra": extra})
        pipe.send(asyncio.run(_run(WAYS[way], port, triggers, interval, seconds)))
    os._exit(0)


async def _run(
    begin: Callable[..., Coroutine[Any, Any, None]], port: int, triggers: int, interval: float, seconds: float
) -> dict[str, float]:
    from airflow_provider_quoine.hooks.quoine import QuoineHook

    # A triggerer has loaded all that looks connections up before its first trigger runs.
    await QuoineHook("exchange").aget_stream_endpoint()
    begin_at = datetime.now(UTC) + timedelta(seconds=SETTLE)
    delays: list[float] = []

    def note(due_at: datetime) -> None:
        if due_at > begin_at:
            delays.append((datetime.now(UTC) - due_at).total_seconds())

    # A triggerer's pool of threads is there anyhow.
    await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.2) for _ in range(40)))
    gc.collect()
    memory, threads_before = _resident_kib(), threading.active_count()
    holds: list[tuple[float, float]] = []
    tasks = []
    for number in range(triggers):
        tasks.append(asyncio.create_task(begin(port, PAIRS[number % len(PAIRS)], interval, begin_at, note)))
        await asyncio.sleep(0)
    await asyncio.sleep((begin_at - datetime.now(UTC)).total_seconds())
    watching = asyncio.create_task(watch_the_loop(holds))
    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    cpu, took = time.process_time() - cpu, time.perf_counter() - began
    names = [thread.name for thread in threading.enumerate()]
    watching.cancel()
    failed = [task for task in tasks if task.done()]
    if failed:
        failed[0].result()
        raise RuntimeError("A trigger has ended.")
    delays.sort()
    return {
        "snapshots/s": len(delays) / took,
        "processor, %": 100 * cpu / took,
        "memory, MiB": (_resident_kib() - memory) / 1024,
        "more threads": float(len(names) - threads_before),
        "longest hold of the event loop, ms": max(holds)[0],
        "longest by this process' work, ms": max(map(min, holds)),
        "due to event, p50, ms": 1000 * delays[len(delays) // 2],
        "due to event, p99, ms": 1000 * delays[int(len(delays) * 0.99)],
    }


async def ours(port: int, pair: str, interval: float, begin_at: datetime, note: Callable[[datetime], None]) -> None:
    """Run one of our triggers."""
    from airflow_provider_quoine.triggers.market_data import QuoineOrderBookTrigger

    trigger = QuoineOrderBookTrigger(
        quoine_conn_id="exchange", pair=pair, timeout=60, interval=interval, began_at=begin_at.isoformat()
    )
    events: AsyncIterator[Any] = trigger.run()
    async for event in events:
        if event.payload["status"] != "success":
            raise RuntimeError(str(event.payload))
        note(datetime.fromisoformat(event.payload["result"]["due_at"]))


def _pysher(port: int, channels: Iterable[str], keep: Callable[[Any], None]) -> None:
    """Receive channels by a pysher as it is, as one would write it; each event is kept on its thread."""
    import pysher

    from airflow_provider_quoine.exchange.stream.pusher import StreamEvent

    client = pysher.Pusher("key", secure=False, custom_host="127.0.0.1", port=port)

    def callback(channel: str, data: str) -> None:
        keep(StreamEvent(channel, "updated", data, datetime.now(UTC), 1))

    def subscribe(_: str) -> None:
        for channel in channels:
            client.subscribe(channel).bind("updated", partial(callback, channel))

    client.connection.bind("pusher:connection_established", subscribe)
    client.connect()


def _books() -> list[Any]:
    from airflow_provider_quoine.exchange.market.order_book import OrderBook
    from airflow_provider_quoine.exchange.market.pairs import Pair

    return [OrderBook(pair=Pair(pair)) for pair in PAIRS]


@cache
def _shared_by_pysher(port: int) -> dict[str, Any]:
    """Keep the newest of all channels by one pysher."""
    newest: dict[str, Any] = {}
    channels = [channel for book in _books() for channel in book.channels]
    _pysher(port, channels, lambda event: newest.__setitem__(event.channel, event))
    return newest


async def pysher_shared(
    port: int, pair: str, interval: float, begin_at: datetime, note: Callable[[datetime], None]
) -> None:
    """Do the same over one pysher as it is, which all triggers share."""
    await _snapshots(_shared_by_pysher(port), pair, interval, begin_at, note)


async def pysher_each(
    port: int, pair: str, interval: float, begin_at: datetime, note: Callable[[datetime], None]
) -> None:
    """Do the same with a pysher of this trigger's own, as it is."""
    newest: dict[str, Any] = {}
    _pysher(port, _books()[PAIRS.index(pair)].channels, lambda event: newest.__setitem__(event.channel, event))
    await _snapshots(newest, pair, interval, begin_at, note)


async def _snapshots(
    newest: dict[str, Any], pair: str, interval: float, due_at: datetime, note: Callable[[datetime], None]
) -> None:
    book = _books()[PAIRS.index(pair)]
    while True:
        await asyncio.sleep((due_at - datetime.now(UTC)).total_seconds())
        events = [newest[channel] for channel in book.channels if channel in newest]
        if len(events) == len(book.channels):
            for event in events:
                book.update(event)
            book.snapshot(datetime.now(UTC), due_at=due_at, stale=False).as_dict()
            note(due_at)
        due_at += timedelta(seconds=interval)


EACH = "a pysher each"
WAYS: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "ours": ours,
    "one pysher for all": pysher_shared,
    EACH: pysher_each,
}


def probe(pipe: Connection, way: str, port: int) -> None:
    """Take a snapshot of one book with each of its messages, under the full load; report how late each was."""
    sent_and_arrived: list[tuple[float, float]] = []
    asyncio.run(PROBES[way](port, sent_and_arrived))
    by_sending, by_arrival = (sorted(1000 * each for each in delays) for delays in zip(*sent_and_arrived, strict=True))
    figures = {"snapshots": float(len(by_sending))}
    for name, delays in (("arrival", by_arrival), ("sending", by_sending)):
        figures[f"from {name}, p50, ms"] = delays[len(delays) // 2]
        figures[f"from {name}, p99, ms"] = delays[int(len(delays) * 0.99)]
    pipe.send(figures)
    os._exit(0)


def _note(book: Any, delays: list[tuple[float, float]], arrived: datetime) -> None:
    """Take a snapshot as a trigger's event has it; the newest price's fraction says when it was sent."""
    now = datetime.now(UTC)
    snapshot = book.snapshot(now).as_dict()
    done = time.time()
    newest = max((snapshot["bids_received_at"], snapshot["bids"]), (snapshot["asks_received_at"], snapshot["asks"]))
    stamps = [quantity for _, quantity in newest[1] if len(quantity.partition(".")[2]) > 2]
    sent = int(stamps[0].partition(".")[2].ljust(8, "0")) if stamps else 0
    late = (done * 100_000 - sent) % 100_000_000 / 100_000
    delays.append((late, done - arrived.timestamp()))


async def _probe_ours(port: int, delays: list[tuple[float, float]]) -> None:
    from airflow_provider_quoine.exchange.market.messages import decoding
    from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint, PusherStream

    endpoint = PusherEndpoint(key="key", host="127.0.0.1", port=port, tls=False)
    books = _books()
    others = [channel for book in books[1:] for channel in book.channels]
    book, end = books[0], time.monotonic() + PROBE_SECONDS
    async with (
        PusherStream(endpoint=endpoint, channels=others),
        PusherStream(endpoint=endpoint, channels=book.channels) as stream,
    ):
        while time.monotonic() < end:
            await stream.news()
            events = [event for channel in book.channels if (event := stream.newest(channel))]
            if len(events) < 2:
                continue
            for event in events:
                book.update(event)
            async with decoding():
                _note(book, delays, max(event.received_at for event in events))


async def _probe_pysher(port: int, delays: list[tuple[float, float]]) -> None:
    loop, came, newest = asyncio.get_running_loop(), asyncio.Event(), {}
    books = _books()
    book = books[0]

    def keep(event: Any) -> None:
        newest[event.channel] = event
        if event.channel in book.channels:
            loop.call_soon_threadsafe(came.set)

    _pysher(port, [channel for each in books for channel in each.channels], keep)
    end = time.monotonic() + PROBE_SECONDS
    while time.monotonic() < end:
        await came.wait()
        came.clear()
        events = [newest[channel] for channel in book.channels if channel in newest]
        if len(events) == 2:
            for event in events:
                book.update(event)
            _note(book, delays, max(event.received_at for event in events))


PROBE_SECONDS = 6.0
PROBES: dict[str, Callable[[int, list[tuple[float, float]]], Coroutine[Any, Any, None]]] = {
    "ours": _probe_ours,
    "one pysher as it is": _probe_pysher,
}
