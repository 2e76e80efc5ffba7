"""Keeps one Pusher connection alive, on the event loop: connect, subscribe, heartbeat, reconnect, close."""

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

from airflow_provider_quoine.exchange.back_off import back_off
from airflow_provider_quoine.exchange.errors import QuoineStreamError, QuoineStreamRefusedError
from airflow_provider_quoine.exchange.stream.close_codes import ConnectionLostError, Reaction, reaction_to
from airflow_provider_quoine.exchange.stream.messages import (
    ERROR,
    GREETING,
    INTERNAL,
    NOT_SUBSCRIBED,
    SUBSCRIBED,
    code_of,
    object_of,
)
from airflow_provider_quoine.exchange.stream.timing import StreamTiming

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.stream.endpoint import PusherEndpoint
    from airflow_provider_quoine.exchange.stream.inboxes import Inboxes
    from airflow_provider_quoine.exchange.stream.subscriptions import Subscriptions
    from airflow_provider_quoine.exchange.stream.transport import ConnectionEnd, PusherTransport

log = logging.getLogger(__name__)

_LONGEST_REASON = 200
"""Characters kept of a reason that a server gives."""

_Signal = tuple[str, Any, "str | None"]


@dataclass
class _Session:
    """
    One connection, from the attempt to make it to its end.

    :param signals: from the connection's thread: event, data and channel of each of the protocol's own events, at last
        how the connection ended. None, from the event loop, asks to look again at what is due.
    :param activity_timeout: seconds of silence before a ping.
    :param established_at: ``time.monotonic()`` when the server greeted; None before.
    :param silent_since: ``time.monotonic()`` of the last message before the ping that is not answered yet.
    :param pong_due_at: ``time.monotonic()`` when the answer to that ping is overdue.
    """

    transport: PusherTransport
    signals: asyncio.Queue[_Signal | ConnectionEnd | None]
    activity_timeout: float
    established_at: float | None = None
    silent_since: float | None = None
    pong_due_at: float = 0.0


class PusherSupervisor:
    """
    One connection at a time, made again for ever unless the server refuses for good.

    Everything that may block (imports, certificates, sending) runs on a thread of its own; receiving runs on pysher's.

    :param on_loss: called with ``time.monotonic()`` of the beginning of the gap, and why the connection was lost.
    :param on_refusal: called when the server refuses for good, before the connection is taken down.
    """

    def __init__(
        self,
        *,
        endpoint: PusherEndpoint,
        timing: StreamTiming,
        inboxes: Inboxes,
        subscriptions: Subscriptions,
        on_loss: Callable[[float, str], None],
        on_refusal: Callable[[QuoineStreamRefusedError], None],
    ) -> None:
        self.connections = 0
        """How many connections were established so far."""
        self.established = False
        """Whether one is established now."""
        self.problem: str | None = "not connected yet"
        """Why no event can come now; None while there is a connection with a confirmed channel."""
        self._endpoint = endpoint
        self._timing = timing
        self._inboxes = inboxes
        self._subscriptions = subscriptions
        self._on_loss = on_loss
        self._on_refusal = on_refusal
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(1, "quoine-stream-sender")
        self._down_since: float | None = None
        self._failures = 0
        self._ending: asyncio.Task[None] | None = None

    def prepare(self) -> asyncio.Future[None]:
        """Start the slow work that is done once: import pysher, read the certificates."""
        return self._loop.run_in_executor(self._worker, self._prepare)

    def _prepare(self) -> None:
        from airflow_provider_quoine.exchange.stream.abortable_socket import tls_context
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
        """Clean up after :meth:`run` has ended: thread and socket are gone on return."""
        if self._ending is not None:
            await asyncio.wait({self._ending})
        self._worker.shutdown(wait=True)

    async def _connect_once(self) -> float:
        """Make a connection and keep it until it is lost; return the seconds to wait before the next attempt."""
        signals: asyncio.Queue[_Signal | ConnectionEnd | None] = asyncio.Queue()

        def tell(signal: _Signal | ConnectionEnd) -> None:
            self._loop.call_soon_threadsafe(signals.put_nowait, signal)

        number = self.connections + 1

        def on_event(payload: bytes, event: str, data: Any, channel: str | None) -> None:
            if channel is None or event.startswith(INTERNAL):
                tell((event, data, channel))
            else:
                self._inboxes.take(payload, channel, number)

        transport = self._new_transport(
            on_message=partial(self._inboxes.take_by_prefix, connection=number), on_event=on_event, on_end=tell
        )
        session = _Session(transport, signals, self._timing.activity_timeout)
        transport.connect()
        try:
            await self._establish(session)
            self._subscriptions.begin(partial(self._send_about, session))
            await self._listen(session)
        except ConnectionLostError as lost:
            self._note_loss(lost)
            return self._wait_after(lost, session)
        finally:
            self.established = False
            self._subscriptions.end()
            # A task of its own: ending goes on even if this one is cancelled.
            self._ending = asyncio.create_task(self._end(session), name="quoine-stream-end")
            await asyncio.wait({self._ending})

    async def _establish(self, session: _Session) -> None:
        event, data = "", None
        try:
            async with asyncio.timeout(self._timing.connect_timeout):
                while event != GREETING:
                    event, data, _ = await self._next_signal(session)
        except TimeoutError:
            raise ConnectionLostError("the server did not greet in time") from None
        seconds = object_of(data).get("activity_timeout")
        if isinstance(seconds, int | float) and seconds > 0:
            session.activity_timeout = min(session.activity_timeout, seconds)
        session.established_at = time.monotonic()
        self.established = True
        self.connections += 1

    async def _listen(self, session: _Session) -> NoReturn:
        """Take signals, and look in time at overdue confirmations and at the heartbeat."""
        while True:
            due_at = min(self._heartbeat(session), self._subscriptions.overdue_at)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due_at - time.monotonic()):
                    await self._next_signal(session)
            self._subscriptions.check()
            if self._subscriptions.settled:
                self._note_up()

    def _heartbeat(self, session: _Session) -> float:
        """
        Ping a silent connection, and give up one that does not answer.

        :return: ``time.monotonic()`` of the next check.
        :raises ConnectionLostError: if a ping was not answered in time.
        """
        # Any message is a sign of life, also a channel's event, which makes no signal.
        last, now = session.transport.last_received, time.monotonic()
        if session.silent_since == last and session.pong_due_at <= now:
            raise ConnectionLostError("a ping was not answered in time", since=last)
        if session.silent_since != last and last + session.activity_timeout <= now:
            session.silent_since, session.pong_due_at = last, now + self._timing.pong_timeout
            self._send(session, "pusher:ping", {})
        return session.pong_due_at if session.silent_since == last else last + session.activity_timeout

    async def _next_signal(self, session: _Session) -> _Signal:
        """
        Wait for the next signal, act on it, and return it.

        :raises ConnectionLostError: if the connection ended or is about to.
        """
        signal = await session.signals.get()
        if signal is None:
            return "", None, None
        if not isinstance(signal, tuple):
            raise ConnectionLostError(self._redact(signal.reason), code=signal.code)
        event, data, channel = signal
        if event == SUBSCRIBED and channel:
            self._subscriptions.confirm(channel)
        elif event in NOT_SUBSCRIBED and channel:
            self._subscriptions.refuse(channel, self._reason_in(data))
        elif event in (ERROR, *NOT_SUBSCRIBED):
            reason, code = self._reason_in(data), code_of(data)
            if reaction_to(code) is not Reaction.CARRY_ON:
                raise ConnectionLostError(reason, code=code)
            log.info("The stream's server complains: %s", reason)
            self._subscriptions.complain(reason)
        return signal

    def _send_about(self, session: _Session, event: str, channel: str) -> None:
        self._send(session, event, {"channel": channel})
        # The next check may be due earlier now.
        session.signals.put_nowait(None)

    def _send(self, session: _Session, event: str, data: dict[str, str]) -> None:
        # Not waited for: if it fails, the reading thread tells how the connection ended, with its code, or a time-out
        # passes. RuntimeError: the sending thread is gone, because all is being closed.
        with contextlib.suppress(RuntimeError):
            self._worker.submit(session.transport.send, event, data)

    async def _end(self, session: _Session) -> None:
        """End a connection and wait until its thread is gone."""
        transport, timeout = session.transport, self._timing.close_timeout if session.established_at else 0.0
        abort_at = time.monotonic() + timeout
        try:
            if timeout and transport.is_alive:
                with contextlib.suppress(RuntimeError):
                    self._worker.submit(transport.send_close)
            while transport.is_alive and time.monotonic() < abort_at + self._timing.thread_timeout:
                if time.monotonic() >= abort_at:
                    transport.abort()
                await asyncio.sleep(0.002)
        finally:
            transport.abort()

    def _note_loss(self, lost: ConnectionLostError) -> None:
        since = lost.since or time.monotonic()
        # One warning per outage. A refusal for good needs none: every listener raises it as an error.
        quietly = self._down_since or reaction_to(lost.code) is Reaction.GIVE_UP
        log.log(
            logging.DEBUG if quietly else logging.WARNING,
            "No stream from %s: %s. It is tried again until it is back.",
            self.address,
            lost,
        )
        self._down_since = self._down_since or since
        self.problem = str(lost)
        self._on_loss(since, self.problem)

    def _note_up(self) -> None:
        if self._down_since is not None:
            log.info("The stream from %s is back after %.1f s.", self.address, time.monotonic() - self._down_since)
        self._down_since = self.problem = None

    def _wait_after(self, lost: ConnectionLostError, session: _Session) -> float:
        reaction = reaction_to(lost.code)
        if reaction is Reaction.GIVE_UP:
            refusal = QuoineStreamRefusedError(
                f"The stream's server at {self.address} refuses the connection for good: {lost}. Check the "
                f"Pusher key, host, port, TLS and cluster of the connection. {QuoineStreamRefusedError.advice}"
            )
            self._on_refusal(refusal)
            raise refusal
        if session.established_at and time.monotonic() - session.established_at >= self._timing.steady:
            self._failures = 0
            if reaction is Reaction.AT_ONCE:
                return 0.0
        self._failures += 1
        return back_off(self._failures, first=self._timing.first_wait, longest=self._timing.longest_wait)

    @property
    def address(self) -> str:
        """Host and port, for messages."""
        return f"{self._endpoint.host}:{self._endpoint.port}"

    def _reason_in(self, data: Any) -> str:
        said = object_of(data)
        return self._redact(str(said.get("message") or said.get("error") or data or "no reason given"))

    def _redact(self, reason: str) -> str:
        # Pusher's own "App key ... not in this cluster" quotes the key.
        return reason.replace(self._endpoint.key, "***")[:_LONGEST_REASON]
