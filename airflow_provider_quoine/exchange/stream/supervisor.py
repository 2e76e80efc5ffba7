"""Keeps one Pusher connection alive from the event loop: connect, subscribe, heartbeat, reconnect, close."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_quoine.exchange.errors import QuoineStreamError, QuoineStreamRefusedError
from airflow_provider_quoine.exchange.stream.frames import (
    ERROR,
    GREETING,
    INTERNAL,
    NOT_SUBSCRIBED,
    SUBSCRIBED,
    code_of,
    object_of,
)
from airflow_provider_quoine.exchange.stream.policy import After, ConnectionLostError, StreamTiming, after, back_off

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.stream.endpoint import PusherEndpoint
    from airflow_provider_quoine.exchange.stream.feeds import Feeds
    from airflow_provider_quoine.exchange.stream.subscriptions import Subscriptions
    from airflow_provider_quoine.exchange.stream.transport import ConnectionEnd, PusherTransport

log = logging.getLogger(__name__)

_WORDS = 200
"""Characters kept of a server's own words."""

_Signal = tuple[str, Any, "str | None"]


@dataclass
class _Link:
    """
    One connection.

    :param signals: what its thread tells the loop: event, data, channel; at last how it ended. None says that
        there is something else to look after.
    :param quiet: seconds of silence before a ping.
    :param established_at: ``time.monotonic()`` when the server greeted, or None before.
    :param silent_since: ``time.monotonic()`` of the last message before the ping that is not answered yet.
    :param pong_due_at: ``time.monotonic()`` when that is overdue.
    """

    transport: PusherTransport
    signals: asyncio.Queue[_Signal | ConnectionEnd | None]
    quiet: float
    established_at: float | None = None
    silent_since: float | None = None
    pong_due_at: float = 0.0


class PusherSupervisor:
    """
    One connection at a time, made again for ever unless the server refuses for good.

    All that may block (imports, certificates, sending) runs on a thread of its own, receiving on pysher's.

    :param endpoint: where to connect.
    :param timing: how patient to be.
    :param feeds: what takes the channels' events.
    :param subscriptions: what to subscribe to.
    :param on_loss: told ``time.monotonic()`` of the last sign of a lost connection, and why it was lost.
    :param on_refusal: told when the server refuses for good, before the connection is taken down.
    """

    def __init__(
        self,
        *,
        endpoint: PusherEndpoint,
        timing: StreamTiming,
        feeds: Feeds,
        subscriptions: Subscriptions,
        on_loss: Callable[[float, str], None],
        on_refusal: Callable[[QuoineStreamRefusedError], None],
    ) -> None:
        self.connections = 0
        """How many connections were made so far."""
        self.established = False
        """Whether there is one now."""
        self.problem: str | None = "not connected yet"
        """Why no event can come now; None while there is a connection with a confirmed channel."""
        self._endpoint = endpoint
        self._timing = timing
        self._feeds = feeds
        self._subscriptions = subscriptions
        self._on_loss = on_loss
        self._on_refusal = on_refusal
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(1, "quoine-stream-sender")
        self._down_since: float | None = None
        self._failures = 0
        self._ending: asyncio.Task[None] | None = None

    def prepare(self) -> asyncio.Future[None]:
        """Begin what has to be done once and takes long: import pysher, read the certificates."""
        return self._loop.run_in_executor(self._worker, self._prepare)

    def _prepare(self) -> None:
        from airflow_provider_quoine.exchange.stream.socket import tls_context
        from airflow_provider_quoine.exchange.stream.transport import PusherTransport

        endpoint = self._endpoint
        try:
            tls = tls_context(endpoint.ca_path) if endpoint.tls else None
        except OSError as error:
            raise QuoineStreamError(
                f"The CA file {endpoint.ca_path!r} for the stream cannot be used: {error}. Correct its path in the "
                "connection."
            ) from error
        self._new_transport = partial(
            PusherTransport, key=endpoint.key, host=endpoint.host, port=endpoint.port, tls=tls
        )

    async def run(self) -> NoReturn:
        """
        Keep a connection until cancelled.

        :raises QuoineStreamRefusedError: if the server refuses for good.
        """
        while True:
            wait = await self._connect_once()
            await asyncio.sleep(wait)

    async def close(self) -> None:
        """Free what is left when :meth:`run` has ended: thread and socket are gone on return."""
        if self._ending is not None:
            await asyncio.wait({self._ending})
        self._worker.shutdown(wait=True)

    async def _connect_once(self) -> float:
        """Live through one connection; return the seconds to wait before the next."""
        signals: asyncio.Queue[_Signal | ConnectionEnd | None] = asyncio.Queue()

        def tell(signal: _Signal | ConnectionEnd) -> None:
            self._loop.call_soon_threadsafe(signals.put_nowait, signal)

        number = self.connections + 1

        def on_frame(message: bytes, event: str, data: Any, channel: str | None) -> None:
            if channel is None or event.startswith(INTERNAL):
                tell((event, data, channel))
            else:
                self._feeds.take(message, channel, number)

        transport = self._new_transport(
            on_message=partial(self._feeds.take_quickly, connection=number), on_frame=on_frame, on_end=tell
        )
        link = _Link(transport, signals, self._timing.quiet)
        transport.connect()
        try:
            await self._establish(link)
            self._subscriptions.begin(partial(self._send_about, link))
            await self._listen(link)
        except ConnectionLostError as lost:
            self._note_loss(lost)
            return self._wait_after(lost, link)
        finally:
            self.established = False
            self._subscriptions.end()
            # A task of its own, because ending goes on even if this one is cancelled.
            self._ending = asyncio.create_task(self._end(link), name="quoine-stream-end")
            await asyncio.wait({self._ending})

    async def _establish(self, link: _Link) -> None:
        event, data = "", None
        try:
            async with asyncio.timeout(self._timing.connect):
                while event != GREETING:
                    event, data, _ = await self._next_signal(link)
        except TimeoutError:
            raise ConnectionLostError("the server did not greet in time") from None
        seconds = object_of(data).get("activity_timeout")
        if isinstance(seconds, int | float) and seconds > 0:
            link.quiet = min(link.quiet, seconds)
        link.established_at = time.monotonic()
        self.established = True
        self.connections += 1

    async def _listen(self, link: _Link) -> NoReturn:
        """Take signals, and see in time to what is overdue: confirmations, and signs of life."""
        while True:
            due_at = min(self._heartbeat(link), self._subscriptions.overdue_at)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due_at - time.monotonic()):
                    await self._next_signal(link)
            self._subscriptions.check()
            if self._subscriptions.settled:
                self._note_up()

    def _heartbeat(self, link: _Link) -> float:
        """
        See to it by pings that a silent connection is a live one.

        :return: ``time.monotonic()`` when to look again.
        :raises ConnectionLostError: if a ping was not answered in time.
        """
        # Any message is a sign of life, an event too, which is no signal.
        last, now = link.transport.last_received, time.monotonic()
        if link.silent_since == last and link.pong_due_at <= now:
            raise ConnectionLostError("a ping was not answered in time", since=last)
        if link.silent_since != last and last + link.quiet <= now:
            link.silent_since, link.pong_due_at = last, now + self._timing.pong
            self._send(link, "pusher:ping", {})
        return link.pong_due_at if link.silent_since == last else last + link.quiet

    async def _next_signal(self, link: _Link) -> _Signal:
        """
        Return the next signal, after what follows from it was done.

        :raises ConnectionLostError: if the connection ended or is about to.
        """
        signal = await link.signals.get()
        if signal is None:
            return "", None, None
        if not isinstance(signal, tuple):
            raise ConnectionLostError(self._clean(signal.reason), code=signal.code)
        event, data, channel = signal
        if event == SUBSCRIBED and channel:
            self._subscriptions.confirm(channel)
        elif event in NOT_SUBSCRIBED and channel:
            self._subscriptions.refuse(channel, self._words_of(data))
        elif event in (ERROR, *NOT_SUBSCRIBED):
            words, code = self._words_of(data), code_of(data)
            if after(code) is not After.CARRY_ON:
                raise ConnectionLostError(words, code=code)
            log.info("The stream's server complains: %s", words)
            self._subscriptions.complain(words)
        return signal

    def _send_about(self, link: _Link, event: str, channel: str) -> None:
        self._send(link, event, {"channel": channel})
        # What is due next has changed.
        link.signals.put_nowait(None)

    def _send(self, link: _Link, event: str, data: dict[str, str]) -> None:
        # Not waited for: the reader will tell how the connection ended, with its code, or a time-out strikes.
        # RuntimeError: the worker is gone, because all is being closed.
        with contextlib.suppress(RuntimeError):
            self._worker.submit(link.transport.send, event, data)

    async def _end(self, link: _Link) -> None:
        """End a connection and wait until its thread is gone."""
        transport, patience = link.transport, self._timing.goodbye if link.established_at else 0.0
        last_word = time.monotonic() + patience
        try:
            if patience and transport.is_alive:
                with contextlib.suppress(RuntimeError):
                    self._worker.submit(transport.say_goodbye)
            while transport.is_alive and time.monotonic() < last_word + self._timing.stuck:
                if time.monotonic() >= last_word:
                    transport.abort()
                await asyncio.sleep(0.002)
        finally:
            transport.abort()

    def _note_loss(self, lost: ConnectionLostError) -> None:
        since = lost.since or time.monotonic()
        # A refusal for good is an error, which its receivers tell, and nothing that is tried again here.
        told = self._down_since or after(lost.code) is After.GIVE_UP
        log.log(
            logging.DEBUG if told else logging.WARNING,
            "No stream from %s: %s. It is tried again until it is back.",
            self.where,
            lost,
        )
        self._down_since = self._down_since or since
        self.problem = str(lost)
        self._on_loss(since, self.problem)

    def _note_up(self) -> None:
        if self._down_since is not None:
            log.info("The stream from %s is back after %.1f s.", self.where, time.monotonic() - self._down_since)
        self._down_since = self.problem = None

    def _wait_after(self, lost: ConnectionLostError, link: _Link) -> float:
        what = after(lost.code)
        if what is After.GIVE_UP:
            refusal = QuoineStreamRefusedError(
                f"The stream's server at {self.where} refuses the connection for good: {lost}. Check the "
                f"Pusher key, host, port, TLS and cluster of the connection. {QuoineStreamRefusedError.advice}"
            )
            self._on_refusal(refusal)
            raise refusal
        if link.established_at and time.monotonic() - link.established_at >= self._timing.steady:
            self._failures = 0
            if what is After.AT_ONCE:
                return 0.0
        self._failures += 1
        return back_off(self._failures, self._timing)

    @property
    def where(self) -> str:
        """Host and port, for messages."""
        return f"{self._endpoint.host}:{self._endpoint.port}"

    def _words_of(self, data: Any) -> str:
        said = object_of(data)
        return self._clean(str(said.get("message") or said.get("error") or data or "no reason given"))

    def _clean(self, words: str) -> str:
        # Pusher's own "App key ... not in this cluster" quotes the key.
        return words.replace(self._endpoint.key, "***")[:_WORDS]
