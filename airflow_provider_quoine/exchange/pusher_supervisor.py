"""Keeps one Pusher connection alive from the event loop: connect, subscribe, heartbeat, reconnect, close."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from airflow_provider_quoine.exchange.errors import (
    QuoineStreamError,
    QuoineStreamRefusedError,
    QuoineSubscriptionRefusedError,
)

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.pusher import PusherEndpoint
    from airflow_provider_quoine.exchange.pusher_transport import ConnectionEnd, PusherTransport

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

EventHandler = Callable[[str, str, str, datetime, int], None]
"""Takes channel, event, data, UTC time of receipt and the connection's number, on the connection's thread."""

_WORDS = 200
"""Characters kept of a server's own words."""


@dataclass(frozen=True, kw_only=True)
class StreamTiming:
    """
    How patient a stream is, in seconds (pusher notes, Protocol 7 and Recipe).

    :param connect: for a connection to be made and greeted.
    :param subscribe: for every channel to be confirmed.
    :param quiet: of silence before a ping; the server's ``activity_timeout`` can only shorten it.
    :param pong: for any message after a ping.
    :param first_wait: before the first attempt to reconnect; at least 1 by the protocol (4100-4199).
    :param longest_wait: between two attempts.
    :param steady: that a connection must have lived for its end not to count as one more failure in a row.
    :param goodbye: for the server to answer our close frame.
    :param stuck: for a thread to end that was told to; only name resolution takes longer, and it is then left.
    """

    connect: float = 10.0
    subscribe: float = 10.0
    quiet: float = 30.0
    pong: float = 30.0
    first_wait: float = 1.0
    longest_wait: float = 60.0
    steady: float = 5.0
    goodbye: float = 1.0
    stuck: float = 5.0


class After(Enum):
    """What to do after an error or a close code."""

    GIVE_UP = "unchanged, it would be refused again"
    BACK_OFF = "reconnect after a wait that grows"
    AT_ONCE = "reconnect at once"
    CARRY_ON = "the connection stays"


CODE_POLICY = (
    (range(4000, 4100), After.GIVE_UP),
    (range(4100, 4200), After.BACK_OFF),
    (range(4200, 4300), After.AT_ONCE),
)
"""
Pusher's codes for ending a connection (pusher notes, Protocol 7). A connection that ends by any other code, or by
none, is made again after a back-off; an error message with any other code leaves the connection as it is.
"""


class _Lost(Exception):  # noqa: N818 - it ends a connection, not the stream
    def __init__(self, reason: str, *, code: int | None = None, since: float | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.since = since


_Signal = tuple[str, Any, "str | None"]


@dataclass
class _Link:
    """
    One connection.

    :param signals: what its thread tells the loop: event, data, channel; at last how it ended.
    :param quiet: seconds of silence before a ping.
    :param established_at: ``time.monotonic()`` when the server greeted, or None before.
    """

    transport: PusherTransport
    signals: asyncio.Queue[_Signal | ConnectionEnd]
    quiet: float
    established_at: float | None = None


class PusherSupervisor:
    """
    One connection at a time, made again for ever unless the server refuses for good.

    All that may block (imports, certificates, sending) runs on a thread of its own, receiving on pysher's.

    :param endpoint: where to connect.
    :param channels: what to subscribe to, on every connection.
    :param timing: how patient to be.
    :param on_event: what to do with the channels' events.
    """

    def __init__(
        self, *, endpoint: PusherEndpoint, channels: Collection[str], timing: StreamTiming, on_event: EventHandler
    ) -> None:
        self.connections = 0
        """How many connections were made so far."""
        self.problem: str | None = "not connected yet"
        """Why no event can come now; None while every channel is confirmed."""
        self._endpoint = endpoint
        self._channels = frozenset(channels)
        self._timing = timing
        self._on_event = on_event
        self._closed_gaps = 0.0
        self._down_since: float | None = None
        self._warned = False
        self._failures = 0
        self._ending: asyncio.Task[None] | None = None

    @property
    def gap_seconds(self) -> float:
        """Seconds, all told, from the loss of a connection until every channel was confirmed again."""
        return self._closed_gaps + (0.0 if self._down_since is None else time.monotonic() - self._down_since)

    @property
    def ended(self) -> bool:
        """Whether no further event will come."""
        return self._task.done()

    def raise_failure(self) -> None:
        """
        Tell why it ended; do nothing if it was stopped.

        :raises QuoineStreamError: refused for good.
        """
        if not self._task.cancelled():
            self._task.result()

    async def start(self) -> asyncio.Task[None]:
        """
        Begin to connect, without waiting for it.

        :return: the task that goes on until :meth:`stop` or a refusal.
        :raises QuoineStreamError: if ``ca_path`` cannot be read.
        """
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(1, "quoine-stream-sender")
        try:
            self._new_transport = await self._off_loop(self._prepare)
        except BaseException:
            self._worker.shutdown(wait=False)
            raise
        self._task = asyncio.create_task(self._run(), name="quoine-stream")
        return self._task

    async def stop(self) -> None:
        """Close the connection; its thread, socket and task are gone on return."""
        self._task.cancel()
        try:
            # Waited for, not awaited: the task's error is the iterator's.
            await asyncio.wait({self._task})
            if self._ending is not None:
                await asyncio.wait({self._ending})
        finally:
            self._worker.shutdown(wait=False)
        self._worker.shutdown(wait=True)

    def _prepare(self) -> Callable[..., PusherTransport]:
        """Do once what takes long: import pysher, read the certificates."""
        from airflow_provider_quoine.exchange.pusher_socket import tls_context
        from airflow_provider_quoine.exchange.pusher_transport import PusherTransport

        endpoint = self._endpoint
        try:
            tls = tls_context(endpoint.ca_path) if endpoint.tls else None
        except OSError as error:
            raise QuoineStreamError(
                f"The CA file {endpoint.ca_path!r} for the stream cannot be used: {error}. Correct its path in the "
                "connection."
            ) from error
        return partial(PusherTransport, key=endpoint.key, host=endpoint.host, port=endpoint.port, tls=tls)

    async def _off_loop(self, call: Callable[..., _Result], *args: Any) -> _Result:
        return await self._loop.run_in_executor(self._worker, call, *args)

    async def _run(self) -> None:
        while True:
            wait = await self._connect_once()
            await asyncio.sleep(wait)

    async def _connect_once(self) -> float:
        """Live through one connection; return the seconds to wait before the next."""
        signals: asyncio.Queue[_Signal | ConnectionEnd] = asyncio.Queue()

        def tell(signal: _Signal | ConnectionEnd) -> None:
            self._loop.call_soon_threadsafe(signals.put_nowait, signal)

        on_frame = partial(self._on_frame, tell, self.connections + 1)
        link = _Link(self._new_transport(on_frame=on_frame, on_end=tell), signals, self._timing.quiet)
        link.transport.connect()
        try:
            await self._establish(link)
            await self._subscribe(link)
            await self._listen(link)
        except _Lost as lost:
            self._note_loss(lost)
            return self._wait_after(lost, link)
        finally:
            # A task of its own, because ending goes on even if this one is cancelled.
            self._ending = asyncio.create_task(self._end(link), name="quoine-stream-end")
            await asyncio.wait({self._ending})

    def _on_frame(
        self, tell: Callable[[_Signal], None], number: int, event: str, data: Any, channel: str | None
    ) -> None:
        """Sort a frame, on the connection's thread."""
        if channel is None or event.startswith(("pusher:", "pusher_internal:")):
            tell((event, data, channel))
        elif channel in self._channels:
            self._on_event(channel, event, data, datetime.now(UTC), number)

    async def _establish(self, link: _Link) -> None:
        event, data = "", None
        try:
            async with asyncio.timeout(self._timing.connect):
                while event != "pusher:connection_established":
                    event, data, _ = await self._next_signal(link)
        except TimeoutError:
            raise _Lost("the server did not greet in time") from None
        seconds = _object(data).get("activity_timeout")
        if isinstance(seconds, int | float) and seconds > 0:
            link.quiet = min(link.quiet, seconds)
        link.established_at = time.monotonic()
        self.connections += 1

    async def _subscribe(self, link: _Link) -> None:
        """Subscribe to each channel, once, and wait until each is confirmed."""
        pending = set(self._channels)
        complaint = ""
        try:
            async with asyncio.timeout(self._timing.subscribe):
                for channel in sorted(pending):
                    await self._send(link, "pusher:subscribe", {"channel": channel})
                while pending:
                    event, data, confirmed = await self._next_signal(link)
                    if event == "pusher_internal:subscription_succeeded":
                        pending.discard(confirmed or "")
                    elif event == "pusher:error":
                        complaint = self._words_of(data)
        except TimeoutError:
            names = ", ".join(sorted(pending))
            if complaint:
                # Some servers refuse a channel by an error with neither code nor channel (pusher notes).
                raise self._refused(names, complaint) from None
            raise _Lost(f"the server did not confirm {names} in time") from None
        self._note_up()

    async def _listen(self, link: _Link) -> NoReturn:
        """Take signals, and see to it by pings that a silent connection is a live one."""
        while True:
            silent_until = link.transport.last_received + link.quiet
            try:
                async with asyncio.timeout(silent_until - time.monotonic()):
                    await self._next_signal(link)
            except TimeoutError:
                if link.transport.last_received + link.quiet <= time.monotonic():
                    await self._ping(link)

    async def _ping(self, link: _Link) -> None:
        since = link.transport.last_received
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timing.pong):
                await self._send(link, "pusher:ping", {})
                while link.transport.last_received == since:
                    await self._next_signal(link)
        # Asked again, because a channel's event is a sign of life too, and no signal.
        if link.transport.last_received == since:
            raise _Lost("a ping was not answered in time", since=since)

    async def _next_signal(self, link: _Link) -> _Signal:
        """
        Return the next signal.

        :raises _Lost: if the connection ended or is about to.
        :raises QuoineSubscriptionRefusedError: if the server refuses a channel.
        """
        signal = await link.signals.get()
        if not isinstance(signal, tuple):
            raise _Lost(self._clean(signal.reason), code=signal.code)
        event, data, channel = signal
        if event in ("pusher:subscription_error", "pusher_internal:subscription_error"):
            raise self._refused(channel or "a channel", self._words_of(data))
        if event == "pusher:error":
            words, code = self._words_of(data), _code(data)
            if _after(code) is not After.CARRY_ON:
                raise _Lost(words, code=code)
            log.info("The stream's server complains: %s", words)
        return signal

    async def _send(self, link: _Link, event: str, data: dict[str, str]) -> None:
        # A send that failed needs no answer here: the reader will tell how the connection ended, with its code, or
        # the time-out strikes.
        with contextlib.suppress(ConnectionError):
            await self._off_loop(link.transport.send, event, data)

    async def _end(self, link: _Link) -> None:
        """End a connection and wait until its thread is gone."""
        transport, patience = link.transport, self._timing.goodbye if link.established_at else 0.0
        last_word = time.monotonic() + patience
        try:
            if patience and transport.is_alive:
                # RuntimeError: the worker is gone, because stop() itself was cancelled.
                with contextlib.suppress(TimeoutError, RuntimeError):
                    async with asyncio.timeout(patience):
                        await self._off_loop(transport.say_goodbye)
            while transport.is_alive and time.monotonic() < last_word + self._timing.stuck:
                if time.monotonic() >= last_word:
                    transport.abort()
                await asyncio.sleep(0.002)
        finally:
            transport.abort()

    def _note_loss(self, lost: _Lost) -> None:
        if self.problem is None:
            self._down_since = lost.since or time.monotonic()
        self.problem = f"{lost} (code {lost.code})" if lost.code else str(lost)
        level = logging.DEBUG if self._warned else logging.WARNING
        self._warned = True
        log.log(level, "No stream from %s: %s. It is tried again until it is back.", self._where, self.problem)

    def _note_up(self) -> None:
        self._closed_gaps, self._down_since, self.problem = self.gap_seconds, None, None
        if self._warned:
            log.info("The stream from %s is back; its gaps are %.1f s so far.", self._where, self.gap_seconds)
        self._warned = False

    def _wait_after(self, lost: _Lost, link: _Link) -> float:
        after = _after(lost.code)
        if after is After.GIVE_UP:
            raise QuoineStreamRefusedError(
                f"The stream's server at {self._where} refuses the connection for good: {self.problem}. Check the "
                f"Pusher key, host, port, TLS and cluster of the connection. {QuoineStreamRefusedError.advice}"
            )
        if link.established_at and time.monotonic() - link.established_at >= self._timing.steady:
            self._failures = 0
            if after is After.AT_ONCE:
                return 0.0
        self._failures += 1
        doubled = self._timing.first_wait * 2.0 ** min(self._failures - 1, 16)
        return min(doubled, self._timing.longest_wait / 2) * random.uniform(1, 2)  # noqa: S311 - only jitter

    def _refused(self, channels: str, words: str) -> QuoineSubscriptionRefusedError:
        return QuoineSubscriptionRefusedError(
            f"The stream's server at {self._where} refuses {channels}: {words}. Check the channel's name and that the "
            f"Pusher key may read it. {QuoineSubscriptionRefusedError.advice}"
        )

    @property
    def _where(self) -> str:
        return f"{self._endpoint.host}:{self._endpoint.port}"

    def _words_of(self, data: Any) -> str:
        said = _object(data)
        return self._clean(str(said.get("message") or said.get("error") or data or "no reason given"))

    def _clean(self, words: str) -> str:
        # Pusher's own "App key ... not in this cluster" quotes the key.
        return words.replace(self._endpoint.key, "***")[:_WORDS]


def _after(code: int | None) -> After:
    return next((after for codes, after in CODE_POLICY if code in codes), After.CARRY_ON)


def _object(data: Any) -> dict[str, Any]:
    """Return the object of a ``pusher:`` event's data, which servers send as JSON string or as object."""
    with contextlib.suppress(ValueError, RecursionError):
        data = json.loads(data) if isinstance(data, str) else data
    return data if isinstance(data, dict) else {}


def _code(data: Any) -> int | None:
    code = _object(data).get("code")
    return int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdigit()) else None
