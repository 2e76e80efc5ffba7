"""Streams of Pusher events on the event loop: where they are, what comes, and a bounded queue of it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.pusher_supervisor import PusherSupervisor, StreamTiming

if TYPE_CHECKING:
    from types import TracebackType

_EVENTS_PER_TURN = 100
"""Events handed out in a row before the event loop gets a turn, so that a burst starves no other trigger."""


@dataclass(frozen=True, kw_only=True)
class PusherEndpoint:
    """
    Where the market streams are (facts, Streams: all of it must be a setting).

    :param key: application key; handed out on contact, so not shown.
    :param host: server's name or address.
    :param port: server's port.
    :param tls: whether to encrypt; the certificate is always verified then.
    :param ca_path: PEM file or directory with the authorities to trust instead of the system's.
    """

    key: str = field(repr=False)
    host: str
    port: int
    tls: bool = True
    ca_path: str | None = None


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """
    One event of a channel.

    :param channel: the channel's name.
    :param event: the event's name.
    :param data: what was sent: a string, not yet parsed (pusher notes, Protocol 7).
    :param received_at: when it arrived here, UTC.
    :param connection: 1 for the first connection, one more after each reconnect. Pusher has no history, so what
        came by an earlier connection may have been overtaken unseen.
    """

    channel: str
    event: str
    data: str
    received_at: datetime
    connection: int


class PusherStream:
    """
    The events of some channels, over one connection at a time that is made again whenever it breaks.

    An async context manager and an async iterator of :class:`StreamEvent`. Iterating ends only by an error that no
    new connection would mend; who waits for events must limit the waiting. A server that cannot be reached is
    logged, once per outage, and tried again for ever.

    :param endpoint: where the stream is.
    :param channels: public channels to subscribe to.
    :param timing: how patient it is.
    :param queue_size: events kept for a slow consumer; beyond it the oldest is dropped, and counted.
    :raises QuoineInputError: if there is no channel.
    """

    def __init__(
        self,
        *,
        endpoint: PusherEndpoint,
        channels: Collection[str],
        timing: StreamTiming | None = None,
        queue_size: int = 1000,
    ) -> None:
        if not channels:
            raise QuoineInputError("A stream needs at least one channel.")
        self.dropped = 0
        """Events dropped because the consumer was too slow."""
        self._supervisor = PusherSupervisor(
            endpoint=endpoint, channels=channels, timing=timing or StreamTiming(), on_event=self._put
        )
        self._queue: deque[StreamEvent] = deque(maxlen=queue_size)
        self._queue_lock = threading.Lock()
        self._wake_up_due = False
        self._handed_out = 0

    @property
    def connections(self) -> int:
        """How many connections were made so far."""
        return self._supervisor.connections

    @property
    def reconnects(self) -> int:
        """How often the connection was made again."""
        return max(0, self.connections - 1)

    @property
    def gap_seconds(self) -> float:
        """Seconds, all told, from the loss of a connection until every channel was confirmed again."""
        return self._supervisor.gap_seconds

    @property
    def problem(self) -> str | None:
        """Why no event can come now, in words; None while every channel is confirmed."""
        return self._supervisor.problem

    async def __aenter__(self) -> PusherStream:
        """
        Start connecting, without waiting for it.

        :raises QuoineStreamError: if ``ca_path`` cannot be read.
        """
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        (await self._supervisor.start()).add_done_callback(lambda _: self._news.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connection; its thread, socket and task are gone on return."""
        await self._supervisor.stop()

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        """Iterate over the events from now on."""
        return self

    async def __anext__(self) -> StreamEvent:
        """
        Wait for the next event.

        :raises QuoineStreamError: when the stream cannot go on.
        """
        self._handed_out += 1
        if self._handed_out % _EVENTS_PER_TURN == 0:
            await asyncio.sleep(0)
        while not self._queue:
            if self._supervisor.ended:
                self._supervisor.raise_failure()
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        with self._queue_lock:
            return self._queue.popleft()

    def _put(self, channel: str, event: str, data: str, received_at: datetime, connection: int) -> None:
        """Keep an event; on the connection's thread."""
        with self._queue_lock:
            self.dropped += len(self._queue) == self._queue.maxlen
            self._queue.append(StreamEvent(channel, event, data, received_at, connection))
            wake_up_due, self._wake_up_due = self._wake_up_due, True
        if not wake_up_due:
            # One wake-up for many events: each would cost as much as an event.
            self._loop.call_soon_threadsafe(self._wake_up)

    def _wake_up(self) -> None:
        self._wake_up_due = False
        self._news.set()
