"""
The channels' events on their way from pysher's thread to the event loop.

Cost follows what is asked for, not what comes: the thread keeps the newest raw message of each channel (and fills
the queues of those who want every one); nothing crosses to the loop unless somebody waits there, and a message is
decoded when it is handed out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import NamedTuple

from airflow_provider_quoine.exchange.stream.events import StreamEvent
from airflow_provider_quoine.exchange.stream.frames import read_frame

log = logging.getLogger(__name__)

_DATA = b'"data"'
_MOST_HEADS = 10_000


class Arrival(NamedTuple):
    """
    A message as it came.

    :param feed: of its channel.
    :param message: the whole frame, not decoded.
    :param received_at: ``time.time()`` when it came.
    :param connection: number of the connection by which it came.
    """

    feed: Feed
    message: bytes
    received_at: float
    connection: int


class EventQueue:
    """
    Every message of some channels, for one reader; beyond the limit the oldest is dropped, and counted.

    :param size: messages kept.
    """

    def __init__(self, size: int) -> None:
        self.dropped = 0
        self._arrivals: deque[Arrival] = deque(maxlen=size)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._arrivals)

    def put(self, arrival: Arrival) -> None:
        """Append one; on the connection's thread."""
        with self._lock:
            self.dropped += len(self._arrivals) == self._arrivals.maxlen
            self._arrivals.append(arrival)

    def take(self) -> Arrival | None:
        """Take the oldest, if there is one."""
        with self._lock:
            return self._arrivals.popleft() if self._arrivals else None


class Feed:
    """
    One channel's events.

    :param channel: its name.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.newest: Arrival | None = None
        self.count = 0
        """How many messages came."""
        self.queues: tuple[EventQueue, ...] = ()
        self.wanted = False
        """Whether somebody on the loop waits for the next one."""
        self.listeners: dict[asyncio.Event, None] = {}
        self._decoded: tuple[Arrival | None, StreamEvent | None] = None, None
        self._warned = False

    def newest_event(self) -> StreamEvent | None:
        """Decode the newest message, once for all who ask; one that is broken leaves the event before it."""
        newest, (arrival, event) = self.newest, self._decoded
        if newest is not None and newest is not arrival:
            event = self.decode(newest) or event
            self._decoded = newest, event
        return event

    def decode(self, arrival: Arrival) -> StreamEvent | None:
        """Return a message's event; None if the frame turns out not to be Pusher's."""
        event, data, channel = read_frame(arrival.message) or ("", None, None)
        if channel != self.channel or data is None:
            if not self._warned:
                self._warned = True
                log.warning("The stream sends frames on %s that are not Pusher's; they are left out.", self.channel)
            return None
        received_at = datetime.fromtimestamp(arrival.received_at, UTC)
        return StreamEvent(channel, event, data, received_at, arrival.connection)


class Feeds:
    """
    All channels of a connection; what the loop changes, pysher's thread may read at any moment.

    :param loop: where the listeners are.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._feeds: dict[str, Feed] = {}
        self._by_head: dict[bytes, Feed] = {}
        self._woken: deque[Feed] = deque()
        self._wake_up_due = False

    def open(self, channel: str) -> Feed:
        """Let a channel's events in."""
        self._feeds[channel] = feed = Feed(channel)
        return feed

    def close(self, channel: str) -> None:
        """Let them in no longer."""
        del self._feeds[channel]
        # After the channel itself: the thread looks these up in the opposite order, so none is learned again.
        self._by_head = {}

    def take_quickly(self, message: bytes, connection: int) -> bool:
        """
        Take a message whose beginning, up to its data, has come before; on the connection's thread.

        :return: whether it was one.
        """
        feed = self._by_head.get(_head(message))
        if feed is None:
            return False
        self._put(feed, message, connection)
        return True

    def take(self, message: bytes, channel: str, connection: int) -> None:
        """Take a message that is known to be an event of a channel; on the connection's thread."""
        by_head = self._by_head
        feed = self._feeds.get(channel)
        if feed is None:
            return
        head = _head(message)
        known = read_frame(head + b'"}')
        if known is not None and known[2] == channel and len(by_head) < _MOST_HEADS:
            by_head[head] = feed
        self._put(feed, message, connection)

    def _put(self, feed: Feed, message: bytes, connection: int) -> None:
        feed.newest = arrival = Arrival(feed, message, time.time(), connection)
        for queue in feed.queues:
            queue.put(arrival)
        # Counted last: who sees the count finds the message.
        feed.count += 1
        if feed.wanted:
            feed.wanted = False
            self._woken.append(feed)
            if not self._wake_up_due:
                # One wake-up for many events: each would cost as much as an event.
                self._wake_up_due = True
                # The loop may be closed already: then nobody is left to wake.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._wake_up)

    def _wake_up(self) -> None:
        # First, so that what the thread adds from now on asks for another wake-up.
        self._wake_up_due = False
        while self._woken:
            for listener in self._woken.popleft().listeners:
                listener.set()


def _head(message: bytes) -> bytes:
    """Return all of a frame before the content of its data, the opening quote included."""
    return message[: message.find(b'"', message.find(_DATA) + len(_DATA)) + 1]
