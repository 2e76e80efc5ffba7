"""
Ways to receive a stream on one connection, in rows of the same work: rivals that a program could use, and ours.

Each way runs in a process with an event loop, on which the consumer is. Four kinds of work (:class:`Work`): a consumer
is handed every message or reads the newest of each channel, and messages are decoded when they come or not.

A rival does the least that the work needs: no reconnecting, no heartbeat, no bound, no check of what comes. What ours
does beyond that is in the words beside each row.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.poller import watch_the_loop
from benchmarks.stream_server import END

QUEUE_SIZE = 10_000
"""Events that wait for our consumer at most: as a capture has it."""

READ_EVERY = 0.1
"""Seconds between two readings of the newest message of each channel."""

CHANNELS = ["price_ladders_cash_btcjpy_buy", "price_ladders_cash_btcjpy_sell"]

_LONGEST_END = 200
"""Bytes: only the server's last message of a channel is as short as this."""


class Work(StrEnum):
    """What is done with the messages; the rows of one work can be compared."""

    EVERY_DECODED = "every message handed to a consumer, decoded"
    EVERY_RAW = "every message handed to a consumer, not decoded"
    NEWEST_DECODED = "the newest of each channel kept, every message decoded as it comes"
    NEWEST_RAW = "the newest of each channel kept, decoded when it is read"

    @property
    def every(self) -> bool:
        """Whether every message is handed over."""
        return self in {Work.EVERY_DECODED, Work.EVERY_RAW}


@dataclass
class Consumer:
    """
    A program on the event loop that takes messages, until it has the server's last one of each channel.

    :param read: returns data and time of arrival of each channel's newest message; None where it is handed every one.
    """

    read: Callable[[], list[tuple[str, float]]] | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when every channel is confirmed."""
    taken: int = 0
    """Messages that it was handed, or that were decoded for it."""
    reads: int = 0
    """Messages that it read as the newest."""
    ended_at: float = 0.0
    _ends: int = 0
    _done: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, data: str, at: float) -> None:
        """Take the data of a message, and when it came."""
        self.taken += 1
        if data == END:
            self._end()

    def take_raw(self, message: bytes, at: float) -> None:
        """Take a message as it came."""
        self.taken += 1
        if len(message) < _LONGEST_END:
            self._end()

    def _end(self) -> None:
        self._ends += 1
        if self._ends == len(CHANNELS):
            self.ended_at = time.time()
            self._done.set()

    async def until_the_end(self, since: float) -> None:
        """Take until the server's last message of each channel; those of a time before do not count."""
        self.taken = self.reads = self._ends = 0
        self._done.clear()
        if self.read is None:
            await self._done.wait()
            return
        newest: dict[int, tuple[str, float]] = dict(enumerate(self.read()))
        while not (newest and all(data == END and at >= since for data, at in newest.values())):
            await asyncio.sleep(READ_EVERY)
            for number, one in enumerate(self.read()):
                self.reads += one != newest.get(number)
                newest[number] = one
        self.ended_at = max(at for _, at in newest.values())


Receive = Callable[[int, Consumer], Awaitable[None]]


@dataclass(frozen=True)
class Way:
    """
    One row.

    :param words: what it does beside its neighbours, and what it leaves out.
    :param receive: receives from a port for ever.
    """

    work: Work
    name: str
    words: str
    receive: Receive


def run(pipe: Connection, core: int | None, work: str, name: str, port: int) -> None:
    """Receive in one way; each time that it is told to, measure until the server's last messages."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    logging.basicConfig(filename=os.devnull, level=logging.WARNING)
    asyncio.run(_measure(pipe, next(way for way in WAYS if way.work == work and way.name == name), port))


async def _measure(pipe: Connection, way: Way, port: int) -> None:
    consumer = Consumer()
    receiving = asyncio.ensure_future(way.receive(port, consumer))
    receiving.add_done_callback(lambda done: done.cancelled() or done.result())
    await consumer.ready.wait()
    pipe.send("ready")
    while await asyncio.to_thread(pipe.recv) != "stop":
        holds: list[tuple[float, float]] = []
        watching = asyncio.create_task(watch_the_loop(holds))
        began, cpu = time.time(), time.process_time()
        pipe.send("begun")
        await consumer.until_the_end(began)
        figures = {
            "taken": float(consumer.taken),
            "read": float(consumer.reads),
            "seconds": consumer.ended_at - began,
            "processor seconds": time.process_time() - cpu,
            "longest hold of the event loop, ms": max(holds, default=(0.0, 0.0))[0],
        }
        watching.cancel()
        pipe.send(figures)
    os._exit(0)


# --- rivals


def _subscribe(channel: str) -> str:
    return json.dumps({"event": "pusher:subscribe", "data": {"channel": channel}})


def _is_confirmation(message: bytes) -> bool:
    return bool(json.loads(message)["event"] == "pusher_internal:subscription_succeeded")


async def _websockets(port: int) -> AsyncGenerator[bytes, None]:
    from websockets.asyncio.client import connect

    async with connect(f"ws://127.0.0.1:{port}/app/key?protocol=7", compression=None) as link:
        for channel in CHANNELS:
            await link.send(_subscribe(channel))
        while True:
            # As bytes: that is how its documentation has it faster for JSON.
            yield await link.recv(decode=False)


async def _aiohttp(port: int) -> AsyncGenerator[bytes, None]:
    import aiohttp

    url = f"http://127.0.0.1:{port}/app/key?protocol=7"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, decode_text=False) as link:
        for channel in CHANNELS:
            await link.send_str(_subscribe(channel))
        async for message in link:
            yield message.data


Library = Callable[[int], AsyncGenerator[bytes, None]]


async def _rival(library: Library, work: Work, port: int, consumer: Consumer) -> None:
    """Do a work with a library that yields messages on the event loop."""
    newest: dict[Any, Any] = {}

    def keep_decoded(message: bytes) -> None:
        frame = json.loads(message.decode())
        newest[frame["channel"]] = frame["data"], time.time()
        consumer.taken += 1

    def keep_raw(message: bytes) -> None:
        # Without decoding, the text before the data tells the channel.
        newest[message[: message.find(b'"data"')]] = message, time.time()

    def hand_over_decoded(message: bytes) -> None:
        consumer.take(json.loads(message.decode())["data"], time.time())

    def hand_over_raw(message: bytes) -> None:
        consumer.take_raw(message, time.time())

    take = {
        Work.EVERY_DECODED: hand_over_decoded,
        Work.EVERY_RAW: hand_over_raw,
        Work.NEWEST_DECODED: keep_decoded,
        Work.NEWEST_RAW: keep_raw,
    }[work]
    if work is Work.NEWEST_DECODED:
        consumer.read = lambda: list(newest.values())
    elif work is Work.NEWEST_RAW:
        consumer.read = lambda: [(json.loads(message)["data"], at) for message, at in newest.values()]
    async with aclosing(library(port)) as messages:
        confirmed = 0
        while confirmed < len(CHANNELS):
            confirmed += _is_confirmation(await anext(messages))
        consumer.ready.set()
        async for message in messages:
            take(message)


async def _pysher(skip_utf8_validation: bool, work: Work, port: int, consumer: Consumer) -> None:
    """Do a work with pysher: it receives and decodes on its thread, and calls back there."""
    import pysher

    loop = asyncio.get_running_loop()
    newest: dict[str, tuple[str, float]] = {}
    if not work.every:
        consumer.read = lambda: list(newest.values())
    client = pysher.Pusher("key", secure=False, custom_host="127.0.0.1", port=port)
    client.connection.socket_kwargs["skip_utf8_validation"] = skip_utf8_validation

    def hand_over(data: str) -> None:
        loop.call_soon_threadsafe(consumer.take, data, time.time())

    def keep(channel: str, data: str) -> None:
        newest[channel] = data, time.time()
        consumer.taken += 1

    confirmed: list[str] = []

    def confirm(data: str) -> None:
        confirmed.append(data)
        if len(confirmed) == len(CHANNELS):
            loop.call_soon_threadsafe(consumer.ready.set)

    def subscribe(_: str) -> None:
        for channel in CHANNELS:
            subscribed = client.subscribe(channel)
            subscribed.bind("updated", hand_over if work.every else partial(keep, channel))
            subscribed.bind("pusher_internal:subscription_succeeded", confirm)

    client.connection.bind("pusher:connection_established", subscribe)
    client.connect()
    await asyncio.Event().wait()


# --- ours


async def _ours(work: Work, port: int, consumer: Consumer) -> None:
    from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint, PusherStream

    endpoint = PusherEndpoint(key="key", host="127.0.0.1", port=port, tls=False)
    queue_size = None if work is Work.NEWEST_RAW else QUEUE_SIZE
    newest: dict[str, tuple[str, float]] = {}
    async with PusherStream(endpoint=endpoint, channels=CHANNELS, queue_size=queue_size) as stream:
        while not stream.confirmed:
            await stream.news()
        match work:
            case Work.NEWEST_DECODED:
                consumer.read = lambda: list(newest.values())
            case Work.NEWEST_RAW:
                consumer.read = partial(_read_ours, stream)
        consumer.ready.set()
        match work:
            case Work.EVERY_DECODED:
                async for event in stream:
                    consumer.take(event.data, 0.0)
            case Work.EVERY_RAW:
                await _take_raw(stream._listener, consumer)
            case Work.NEWEST_DECODED:
                async for event in stream:
                    newest[event.channel] = event.data, time.time()
                    consumer.taken += 1
            case Work.NEWEST_RAW:
                await asyncio.Event().wait()


async def _take_raw(listener: Any, consumer: Consumer) -> None:
    """Take messages that are not decoded, which is not public: a stream hands out decoded events only."""
    for number in itertools.count(1):
        while (message := listener.queue.take()) is None:
            await listener.wait_until(lambda: listener.queue.waiting_since)
        consumer.take_raw(message.payload, 0.0)
        if number % 100 == 0:
            await asyncio.sleep(0)


def _read_ours(stream: Any) -> list[tuple[str, float]]:
    events = [event for channel in CHANNELS if (event := stream.newest(channel))]
    return [(event.data, event.received_at.timestamp()) for event in events]


OURS = "ours"
WEBSOCKETS = "websockets"

_BARE = "A loop over the library, on the event loop. Slower than the server, it slows the server down"
_STOCK = "Decodes on its own thread"
_OURS_DOES = "notices a silent connection, reconnects, and stamps and checks each message"

WAYS: tuple[Way, ...] = (
    *(
        Way(work, name, f"{_STOCK}; {hands}.{words}", partial(_pysher, skip, work))
        for work, hands in (
            (Work.EVERY_DECODED, "each message is handed to the loop by call_soon_threadsafe, without a bound"),
            (Work.NEWEST_DECODED, "its callback keeps the newest there"),
        )
        for name, skip, words in (
            ("pysher as it is", False, ""),
            ("pysher, skip_utf8_validation", True, " UTF-8 is not checked."),
        )
    ),
    *(
        Way(work, name, f"{_BARE}.", partial(_rival, library, work))
        for work in Work
        for name, library in ((WEBSOCKETS, _websockets), ("aiohttp", _aiohttp))
    ),
    *(
        Way(work, OURS, f"{words}; {_OURS_DOES}.", partial(_ours, work))
        for work, words in (
            (
                Work.EVERY_DECODED,
                f"PusherStream as an iterator: a thread receives, {QUEUE_SIZE:,} messages wait for the loop at most, "
                "and beyond that the oldest is dropped and counted",
            ),
            (Work.EVERY_RAW, "The same without decoding, which nothing but this benchmark does"),
            (Work.NEWEST_DECODED, "As an iterator, of which the newest are kept: not how it is meant to be used"),
            (Work.NEWEST_RAW, "PusherStream without a queue, as every trigger of snapshots uses it"),
        )
    ),
)
