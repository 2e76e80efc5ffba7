"""Keeps one Pusher connection alive, on the event loop: connect, subscribe, heartbeat, reconnect, close."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import Any, NoReturn

from airflow_provider_quoine.exchange.back_off import back_off
from airflow_provider_quoine.exchange.clock import CLOCK
from airflow_provider_quoine.exchange.errors import QuoineStreamRefusedError
from airflow_provider_quoine.exchange.stream.endpoint import PusherEndpoint
from airflow_provider_quoine.exchange.stream.events import Moment
from airflow_provider_quoine.exchange.stream.inboxes import Inboxes
from airflow_provider_quoine.exchange.stream.messages import ConnectionLostError, Message, Reaction, redacted
from airflow_provider_quoine.exchange.stream.network import PysherNetwork
from airflow_provider_quoine.exchange.stream.subscriptions import Subscriptions

log = logging.getLogger(__name__)

LEAST_ACTIVITY_TIMEOUT = 1.0
"""Seconds of silence before a ping, if a server asks for fewer: else it could have us send without a pause."""

MOST_SIGNALS = 10_000
"""Events of the protocol's own that wait to be acted on; no server that means well sends so many."""

_ids = itertools.count(int(CLOCK.wall() * 1_000_000))
"""Of the connections of this process, on all its event loops."""

_Signal = Message | ConnectionLostError
"""One of the protocol's own events, or how the connection ended."""


class _Session:
    """One connection, from the attempt to make it to its end."""

    def __init__(self, number: int, endpoint: PusherEndpoint, network: PysherNetwork, inboxes: Inboxes) -> None:
        loop = asyncio.get_running_loop()
        self.id = number
        self.signals: deque[_Signal] = deque()
        self.signalled = asyncio.Event()
        """Set when there are signals, or something may be due earlier."""
        self.activity_timeout = endpoint.timing.activity_timeout
        """Seconds of silence before a ping."""
        self.greet_by = endpoint.clock.monotonic() + endpoint.timing.connect_timeout
        self.established_at: float | None = None
        """Monotonic time when the server greeted; None before, and after the end."""
        self.silent_since: Moment | None = None
        """The last sign of life before the ping that is not answered yet."""
        self.pong: Future[Any] | None = None
        """Our latest answer: while a server does not read it, its other pings are not answered."""
        self.pong_due_at = 0.0
        """Monotonic time when the answer to that ping is overdue."""

        def tell(signal: _Signal) -> None:
            self.signals.append(signal)
            loop.call_soon_threadsafe(self.signalled.set)

        def tell_message(message: Message) -> None:
            # On the connection's thread, which this ends: an event loop that is held up could not stop it.
            if len(self.signals) >= MOST_SIGNALS:
                raise ConnectionError("the server sends more of the protocol's own events than can be acted on")
            tell(message)

        def on_end(code: int | None, reason: str) -> None:
            # Pusher's own "App key ... not in this cluster" quotes the key.
            tell(ConnectionLostError(redacted(reason, endpoint.key), code=code))

        self.link = network.connect(partial(inboxes.take, number, tell_message), on_end)


class PusherSupervisor:
    """
    One connection at a time, made again for ever unless the server refuses for good.

    It has no thread, no socket and no clock of its own: the network and the endpoint bring them.
    """

    def __init__(self, endpoint: PusherEndpoint, network: PysherNetwork, subscriptions: Subscriptions) -> None:
        self.endpoint = endpoint
        self.problem: str | None = "not connected yet"
        """Why no event can come now; None while there is a connection with a confirmed channel."""
        self._network = network
        self._subscriptions = subscriptions
        self._now = endpoint.clock.monotonic
        self._session: _Session | None = None
        self._down_since: float | None = None
        self._failures = 0

    @property
    def heard(self) -> Moment | None:
        """The last sign of life of the connection that is established now."""
        return self._session.link.heard if self._session and self._session.established_at is not None else None

    @property
    def doubt_since(self) -> Moment | None:
        """The last sign of life, while a ping after it is not answered yet; None while all seems well."""
        return self.heard if self._session and self._session.silent_since == self.heard else None

    async def run(self) -> NoReturn:
        """Keep a connection until cancelled, or until the server refuses for good."""
        while True:
            wait = await self._connect_once()
            await self.close()
            await asyncio.sleep(wait)

    async def close(self) -> None:
        """End the connection, politely if it was established; nothing of it is left on return. After a call that was
        cancelled, the next one ends it at once."""
        if (session := self._session) is not None:
            politely, session.established_at = session.established_at is not None, None
            await session.link.end(politely=politely)

    async def _connect_once(self) -> float:
        """Make a connection and keep it until it is lost; return the seconds to wait before the next attempt."""
        session = self._session = _Session(next(_ids), self.endpoint, self._network, self._subscriptions.inboxes)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._due_at(session) - self._now()):
                        await session.signalled.wait()
                if session.signals:
                    self._act(session, session.signals.popleft())
                else:
                    session.signalled.clear()
                self._subscriptions.check()
                if self._subscriptions.settled:
                    self._note_up()
                # While there are signals nothing waits: a flood of the protocol's own events would hold the loop.
                await asyncio.sleep(0)
        except ConnectionLostError as lost:
            self._note_loss(session, lost)
            return self._wait_after(lost, session)
        finally:
            self._subscriptions.end()

    def _due_at(self, session: _Session) -> float:
        """Ping a silent connection, and give up one that does not answer or greet. Return when to look again."""
        now = self._now()
        if session.established_at is None:
            if session.greet_by <= now:
                raise ConnectionLostError("the server did not greet in time")
            return session.greet_by
        # Any message is a sign of life, also a channel's event, which makes no signal.
        heard = session.link.heard
        if session.silent_since == heard and session.pong_due_at <= now:
            raise ConnectionLostError("a ping was not answered in time")
        if session.silent_since != heard and heard.monotonic + session.activity_timeout <= now:
            session.silent_since, session.pong_due_at = heard, now + self.endpoint.timing.pong_timeout
            session.link.send("pusher:ping", {})
        pong_due = session.silent_since == heard
        due_at = session.pong_due_at if pong_due else heard.monotonic + session.activity_timeout
        return min(due_at, self._subscriptions.overdue_at)

    def _act(self, session: _Session, signal: _Signal) -> None:
        """Act on a signal; raise ConnectionLostError if the connection ended or is about to."""
        if isinstance(signal, ConnectionLostError):
            raise signal
        match signal:
            case Message("pusher:connection_established") if session.established_at is None:
                self._establish(session, signal.fields.get("activity_timeout"))
            case Message("pusher:ping") if session.pong is None or session.pong.done():
                session.pong = session.link.send("pusher:pong", {})
            case Message("pusher_internal:subscription_succeeded", _, str(name)):
                self._subscriptions.confirm(name)
            case Message("pusher:subscription_error" | "pusher_internal:subscription_error", _, str(name)) if name:
                self._subscriptions.refuse(name, signal.reason(self.endpoint.key))
            case Message("pusher:error" | "pusher:subscription_error" | "pusher_internal:subscription_error"):
                reason = signal.reason(self.endpoint.key)
                lost = ConnectionLostError(reason, code=signal.code)
                if lost.reaction is not None:
                    raise lost
                log.info("The stream's server complains: %s", reason)
                self._subscriptions.complain(reason)

    def _establish(self, session: _Session, activity_timeout: Any) -> None:
        if isinstance(activity_timeout, int | float) and activity_timeout > 0:
            session.activity_timeout = min(session.activity_timeout, max(activity_timeout, LEAST_ACTIVITY_TIMEOUT))
        session.established_at = self._now()

        def send(event: str, channel: str) -> None:
            session.link.send(event, {"channel": channel})
            # The next check may be due earlier now.
            session.signalled.set()

        self._subscriptions.begin(send)

    def _note_loss(self, session: _Session, lost: ConnectionLostError) -> None:
        # One warning per outage. A refusal for good needs none: every listener raises it as an error.
        quietly = self._down_since is not None or lost.reaction is Reaction.GIVE_UP
        level = logging.DEBUG if quietly else logging.WARNING
        log.log(level, "No stream from %s: %s. It is tried again until it is back.", self.endpoint, lost)
        if self._down_since is None:
            self._down_since = session.link.heard.monotonic
        self.problem = str(lost)
        self._subscriptions.note_loss(session.link.heard, self.problem)

    def _note_up(self) -> None:
        if self._down_since is not None:
            log.info("The stream from %s is back after %.1f s.", self.endpoint, self._now() - self._down_since)
        self._down_since = self.problem = None

    def _wait_after(self, lost: ConnectionLostError, session: _Session) -> float:
        timing = self.endpoint.timing
        if lost.reaction is Reaction.GIVE_UP:
            raise QuoineStreamRefusedError(
                f"The stream's server at {self.endpoint} refuses the connection for good: {lost}. Check the "
                f"Pusher key, host, port, TLS and cluster of the connection. {QuoineStreamRefusedError.advice}"
            )
        steady = session.established_at is not None and self._now() - session.established_at >= timing.steady
        if steady and lost.reaction is Reaction.AT_ONCE:
            self._failures = 0
            return 0.0
        proven = steady or self._subscriptions.proven(session.id)
        # A server that asks for a wait gets the whole first one.
        self._failures = int(lost.reaction is Reaction.BACK_OFF) if proven else self._failures + 1
        return back_off(self._failures, first=timing.first_wait, longest=timing.longest_wait)
