"""Streams of Pusher events on an event loop, over one connection for all listeners. The entrance of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.stream.channels import Listener
from airflow_provider_quoine.exchange.stream.endpoint import PusherEndpoint, StreamTiming
from airflow_provider_quoine.exchange.stream.events import Moment, StreamEvent, StreamGap
from airflow_provider_quoine.exchange.stream.gaps import Missed
from airflow_provider_quoine.exchange.stream.hub import StreamHub, open_connections

__all__ = ["PusherEndpoint", "PusherStream", "StreamEvent", "StreamGap", "StreamTiming", "open_connections"]

_EVENTS_IN_A_ROW = 100
"""Events handed out in a row before the event loop runs its other tasks, so that a burst starves no other trigger."""


class PusherStream:
    """
    The events of some channels, over a connection that is made again whenever it breaks.

    An async context manager. All streams of an event loop with the same endpoint share one connection; the last one
    that leaves closes it. If the server cannot be reached, that is logged once per outage, and the connection
    is tried again for ever: callers must limit how long they wait.

    Without a queue a stream keeps the newest of each channel's events by name (:meth:`newest`, :meth:`news`), at a cost
    that does not grow with the number of messages. With a queue it is also an async iterator of every
    :class:`~airflow_provider_quoine.exchange.stream.events.StreamEvent`.

    :param endpoint: the stream's server.
    :param channels: public channels to subscribe to.
    :param queue_size: events kept for a slow consumer, up to 64 MiB of them; beyond either, the oldest is dropped,
        counted, and stated as a gap. None for no queue.
    :raises QuoineInputError: if there is no channel, or no room in the queue.
    """

    def __init__(self, *, endpoint: PusherEndpoint, channels: Collection[str], queue_size: int | None = None) -> None:
        if not channels:
            raise QuoineInputError("A stream needs at least one channel.")
        if queue_size is not None and queue_size < 1:
            raise QuoineInputError(f"A queue of {queue_size} events keeps none: give at least 1, or None for no queue.")
        self._endpoint = endpoint
        self._listener = Listener(channels, queue_size, endpoint.clock)
        self._hub: StreamHub | None = None
        self._handed_out = self._news_seen = 0

    @property
    def connections(self) -> int:
        """How many connections there were since this stream joined."""
        return self._listener.connections

    @property
    def heard(self) -> Moment | None:
        """
        The last byte of the last whole message of the present connection: its last sign of life; None without one.

        If the connection turns out to be dead, the gap begins then. Until a ping is not answered nobody can know, so a
        stream that is left in a silence may have missed what was sent since.
        """
        return self._hub.supervisor.heard if self._hub else None

    @property
    def waiting_since(self) -> Moment | None:
        """When the oldest of the events came that wait in the queue; None if none waits."""
        return self._listener.queue.waiting_since if self._listener.queue is not None else None

    @property
    def reconnects(self) -> int:
        """How often the connection was made again since this stream joined."""
        return max(0, self.connections - 1)

    @property
    def confirmed(self) -> bool:
        """Whether every channel is subscribed on the present connection."""
        return self._listener.confirmed

    @property
    def gaps(self) -> tuple[StreamGap, ...]:
        """
        The gaps since this stream joined, in the order in which they became known, which is not that of their times.

        A gap may become known after its time: a lost connection, when it is noticed; a dropped message, when it is
        dropped. Each keeps its place; the newest of each kind may still grow. There is none for the time before the
        channels are confirmed for the first time.
        """
        return self._listener.gaps.stated

    @property
    def gap_seconds(self) -> float:
        """Seconds that lie in at least one gap, those of an open one up to now included."""
        return self._listener.gaps.seconds

    @property
    def dropped(self) -> int:
        """Events dropped because the consumer was too slow; they lie in gaps."""
        return self._listener.gaps.missed[Missed.DROPPED]

    @property
    def unreadable(self) -> int:
        """Messages that could not be read, and may have been events of its channels; they lie in gaps. Without a queue
        only those are counted that were looked at."""
        return self._listener.gaps.missed[Missed.UNREADABLE]

    @property
    def problem(self) -> str | None:
        """Why events may be missing now, in words; None while every channel is confirmed."""
        if self.confirmed:
            return None
        if self._listener.failure:
            return str(self._listener.failure)
        if self._hub and self._hub.supervisor.problem:
            return self._hub.supervisor.problem
        problems = (each.problem for each in self._listener.channels.values() if each.problem)
        return next(problems, "not every channel is confirmed yet")

    async def __aenter__(self) -> PusherStream:
        """Join the connection, or start making one, without waiting; QuoineStreamError if ``ca_path`` is unreadable."""
        self._hub = hub = StreamHub.at(self._endpoint)
        await hub.join(self._listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave; after the last stream, the connection's thread, socket and task are gone on return."""
        if self._hub:
            hub, self._hub = self._hub, None
            await hub.leave(self._listener)

    def newest(self, channel: str, event: str | None = None) -> StreamEvent | None:
        """
        Return the newest event of a channel, whichever connection it came on; None if none came.

        It may have come before this stream joined, if another stream had the channel then. Two calls return the same
        object if no event came between them. If the newest message cannot be read, it is the last event of that name
        that was returned before, which is not current then; None if none was.

        :param channel: one of this stream's.
        :param event: name of the event; by default any. An event of another name hides the one that is wanted.
        """
        found = self._listener.channels.get(channel)
        return found.newest_event(event) if found else None

    def is_current(self, event: StreamEvent) -> bool:
        """
        Tell whether an event still shows the state of its channel, if it is the newest one.

        It does if every channel is confirmed, the event came by the present connection, and no message came after it
        that could not be read. Pusher has no history, so an event that came by an earlier connection may have been
        superseded unseen.
        """
        channel = self._listener.channels.get(event.channel)
        return channel is not None and self.confirmed and channel.doubtful_until < event.monotonic

    async def news(self) -> None:
        """
        Wait until something has come since the last call: an event of its channels, a loss or a confirmation.

        :raises QuoineStreamError: when the stream cannot go on.
        """
        listener = self._listener
        await listener.wait_until(lambda: listener.failure is None and listener.news != self._news_seen)
        self._news_seen = listener.news

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        """Iterate over the events since this stream joined."""
        return self

    async def __anext__(self) -> StreamEvent:
        """
        Wait for the next event.

        :raises QuoineInputError: if there is no queue.
        :raises QuoineStreamError: when the stream cannot go on.
        """
        self._handed_out += 1
        if self._handed_out % _EVENTS_IN_A_ROW == 0:
            await asyncio.sleep(0)
        queue = self._listener.queue
        if queue is None:
            raise QuoineInputError("A stream without a queue keeps the newest only: give queue_size to iterate.")
        while True:
            message = queue.take()
            if message is None:
                await self._listener.wait_until(lambda: queue.waiting_since)
            elif (event := message.decode()) is not None:
                return event
            else:
                message.channel.note_unreadable(message.at, self._listener)
