"""Streams of Pusher events on the event loop: where they are, and what comes, over one connection for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.stream.endpoint import PusherEndpoint
from airflow_provider_quoine.exchange.stream.events import StreamEvent, StreamGap
from airflow_provider_quoine.exchange.stream.hub import StreamHub
from airflow_provider_quoine.exchange.stream.listener import Share
from airflow_provider_quoine.exchange.stream.policy import StreamTiming

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["PusherEndpoint", "PusherStream", "StreamEvent", "StreamGap", "StreamTiming"]

_EVENTS_PER_TURN = 100
"""Events handed out in a row before the event loop gets a turn, so that a burst starves no other trigger."""


class PusherStream:
    """
    A share in the one connection that an event loop has to an endpoint, made again whenever it breaks.

    An async context manager. All streams of a loop with the same endpoint and timing use one connection; the last
    one that leaves closes it. A server that cannot be reached is logged, once per outage, and tried again for ever:
    who waits must limit the waiting.

    Without a queue it keeps the newest event of each channel (:meth:`newest`, :meth:`news`), at a cost that does not
    grow with what comes. With one it is also an async iterator of every
    :class:`~airflow_provider_quoine.exchange.stream.events.StreamEvent`.

    :param endpoint: where the stream is.
    :param channels: public channels to subscribe to.
    :param timing: how patient it is.
    :param queue_size: events kept for a slow consumer; beyond it the oldest is dropped, and counted. None queues
        nothing.
    :raises QuoineInputError: if there is no channel, or no room in the queue.
    """

    def __init__(
        self,
        *,
        endpoint: PusherEndpoint,
        channels: Collection[str],
        timing: StreamTiming | None = None,
        queue_size: int | None = None,
    ) -> None:
        if not channels:
            raise QuoineInputError("A stream needs at least one channel.")
        if queue_size is not None and queue_size < 1:
            raise QuoineInputError(f"A queue of {queue_size} events keeps none: give at least 1, or None for no queue.")
        self._endpoint = endpoint
        self._timing = timing or StreamTiming()
        self._share = Share(channels, queue_size)
        self._hub: StreamHub | None = None
        self._connections_before = self._connection_left = 0
        self._handed_out = 0

    @property
    def connection(self) -> int:
        """
        Number of the present connection, or else of the latest; 0 before the first. Events carry theirs.

        A stream that has left stays at the one that it left.
        """
        return self._hub.supervisor.connections if self._hub else self._connection_left

    @property
    def connections(self) -> int:
        """How many connections were there since this stream joined."""
        return self.connection - self._connections_before

    @property
    def reconnects(self) -> int:
        """How often the connection was made again since this stream joined."""
        return max(0, self.connections - 1)

    @property
    def confirmed(self) -> bool:
        """Whether every channel is subscribed on the present connection."""
        return self._share.confirmed

    @property
    def gaps(self) -> tuple[StreamGap, ...]:
        """The gaps since this stream joined: none before its channels were confirmed for the first time."""
        return tuple(self._share.gaps)

    @property
    def gap_seconds(self) -> float:
        """Seconds of the gaps, all told, an open one up to now."""
        return self._share.gap_seconds

    @property
    def dropped(self) -> int:
        """Events dropped because the consumer was too slow."""
        return self._share.queue.dropped if self._share.queue else 0

    @property
    def problem(self) -> str | None:
        """Why no event can come now, in words; None while every channel is confirmed."""
        if self.confirmed:
            return None
        if self._share.failure:
            return str(self._share.failure)
        if self._hub and self._hub.supervisor.problem:
            return self._hub.supervisor.problem
        subscriptions = self._share.subscriptions.values()
        told = (each.problem for each in subscriptions if not each.confirmed and each.problem)
        return next(told, "not every channel is confirmed yet")

    async def __aenter__(self) -> PusherStream:
        """
        Join the connection, or start making one, without waiting for it.

        :raises QuoineStreamError: if ``ca_path`` cannot be read.
        """
        self._hub = hub = StreamHub.at(self._endpoint, self._timing)
        self._connections_before = hub.supervisor.connections - hub.supervisor.established
        await hub.join(self._share)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave; if it was the last, the connection's thread, socket and task are gone on return."""
        if self._hub:
            hub, self._connection_left, self._hub = self._hub, self.connection, None
            await hub.leave(self._share)

    def newest(self, channel: str) -> StreamEvent | None:
        """
        Return the newest event of a channel, whichever connection it came by; None if none came.

        It may have come before this stream joined, if others had the channel then. Each call without news gives
        the same object.

        :param channel: one of this stream's.
        """
        subscription = self._share.subscriptions.get(channel)
        return subscription.feed.newest_event() if subscription else None

    def is_current(self, event: StreamEvent) -> bool:
        """
        Tell whether an event still shows the state of its channel, if it is the newest one.

        It does if every channel is confirmed and the event came by the present connection. Pusher has no history, so an
        event that came by an earlier connection may have been superseded unseen.
        """
        return self.confirmed and event.connection == self.connection

    async def news(self) -> None:
        """
        Wait until an event of its channels, a loss or a confirmation came since the last call, one or many.

        :raises QuoineStreamError: when the stream cannot go on.
        """
        await self._share.wait_for_news()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """
        Hold this while decoding: ``async with stream.turn(): ...``.

        One stream of the connection at a time has it, in the order of asking, and between two of them the loop
        runs whatever else is due, so that a thousand snapshots at once do not block it.

        :raises QuoineInputError: if the stream was not entered.
        """
        if self._hub is None:
            raise QuoineInputError("Enter the stream before asking for its turn.")
        at_once = not self._hub.turns.locked()
        async with self._hub.turns:
            if at_once:
                # Those that wait come one to each round of the loop; so must one that need not wait.
                await asyncio.sleep(0)
            yield

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        """Iterate over the events from joining on."""
        return self

    async def __anext__(self) -> StreamEvent:
        """
        Wait for the next event.

        :raises QuoineInputError: if there is no queue.
        :raises QuoineStreamError: when the stream cannot go on.
        """
        self._handed_out += 1
        if self._handed_out % _EVENTS_PER_TURN == 0:
            await asyncio.sleep(0)
        while True:
            arrival = await self._share.take()
            event = arrival.feed.decode(arrival)
            if event is not None:
                return event
