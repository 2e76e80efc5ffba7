"""The channels of a connection, and the listeners that share them. A message is decoded when it is handed out."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection
from math import inf
from typing import Any, NamedTuple

from airflow_provider_quoine.exchange.clock import Clock
from airflow_provider_quoine.exchange.errors import QuoineStreamError
from airflow_provider_quoine.exchange.stream.events import Moment, StreamEvent, utc
from airflow_provider_quoine.exchange.stream.gaps import GapBook, Missed
from airflow_provider_quoine.exchange.stream.messages import read_last, read_message

log = logging.getLogger(__name__)

MOST_QUEUED_BYTES = 64 * 2**20
"""Of the messages in one queue: one message of the largest size that can be set."""


class RawMessage(NamedTuple):
    """
    A message as it came, not decoded; its event's name, as far as it was read.

    :param data_at: place of its data's opening quote, if the text before it is known to say event and channel; else 0.
    """

    channel: Channel
    event: str
    payload: bytes
    at: Moment
    connection: int
    data_at: int = 0

    def decode(self) -> StreamEvent | None:
        """Return its event, or None if it is not one that Pusher could have sent."""
        channel, name, payload, (wall, monotonic), connection, data_at = self
        data: Any = read_last(payload, data_at) if data_at else None
        if data is None:
            event, data, of = read_message(payload) or ("", None, None)
            if of != channel.name or event != name or data is None:
                return None
        # Not by its constructor, a function in Python.
        return tuple.__new__(StreamEvent, (channel.name, name, data, utc(wall), connection, monotonic))


class MessageQueue:
    """
    Every message of one listener's channels. While it is too full, the oldest is dropped, and noted as missed.

    It needs no lock: a deque is safe between threads, and each of the two sums has one thread that adds to it.
    """

    def __init__(self, size: int, gaps: GapBook) -> None:
        self._messages: deque[RawMessage] = deque()
        self._size = size
        self._gaps = gaps
        self._bytes_kept = self._bytes_taken = 0
        """Of all messages so far that were put and not dropped; of those that were taken."""

    def put(self, message: RawMessage) -> None:
        """Append a message; called on the connection's thread."""
        self._messages.append(message)
        self._bytes_kept += len(message.payload)
        while len(self._messages) > self._size or self._bytes_kept - self._bytes_taken > MOST_QUEUED_BYTES:
            try:
                dropped = self._messages.popleft()
            except IndexError:
                return  # The event loop has taken them all.
            self._bytes_kept -= len(dropped.payload)
            self._gaps.miss(Missed.DROPPED, dropped.at)

    def take(self) -> RawMessage | None:
        """Remove and return the oldest message, or None if there is none; called on the event loop."""
        try:
            message = self._messages.popleft()
        except IndexError:
            return None
        self._bytes_taken += len(message.payload)
        return message

    @property
    def waiting_since(self) -> Moment | None:
        """When the oldest message came; None if there is none."""
        try:
            return self._messages[0].at
        except IndexError:
            return None


class Channel:
    """A channel: its listeners, its subscription, which all of them share, and its messages."""

    def __init__(self, name: str, timeout: float) -> None:
        self.name = name
        self.listeners: dict[Listener, None] = {}
        self.timeout = timeout
        """Seconds that the server has to confirm it."""
        self.confirmed = False
        """Whether the server has confirmed it on the present connection."""
        self.overdue_at = inf
        """Monotonic time of the end of the time-out; infinite if no confirmation is awaited."""
        self.answered = False
        """Whether an answer came in that time, which may have been for an earlier subscription."""
        self.complaint = self.problem = ""
        """The server's words in an error that named no channel and came while this one was not confirmed; why it is
        not confirmed, in words."""
        self.newest: dict[str, RawMessage] = {}
        """By the event's name; ``last`` is the newest of them all."""
        self.last: RawMessage | None = None
        self.doubtful_until = -inf
        """Monotonic time when the present connection began, or a message came that could not be read, and so may have
        been a newer one: until then newer events may have been missed."""
        self.count = 0
        self.queues: tuple[MessageQueue, ...] = ()
        self.wanted = False
        """Whether a listener waits for the next message."""
        self.decoded: dict[str, tuple[RawMessage, StreamEvent | None]] = {}
        self._warned = False

    def newest_event(self, event: str | None) -> StreamEvent | None:
        """Return an event's newest, decoded once for all listeners; the one before it if it cannot be read."""
        newest = self.last if event is None else self.newest.get(event)
        if newest is None:
            return None
        decoded, found = self.decoded.get(newest.event, (None, None))
        if newest is not decoded:
            known = newest.decode()
            if known is None:
                self.note_unreadable(newest.at, *(each for each in self.listeners if each.queue is None))
            found = known or found
            self.decoded[newest.event] = newest, found
        return found

    def note_unreadable(self, at: Moment, *listeners: Listener) -> None:
        """Doubt all its events until now, and have listeners count a message that could not be read; on any thread."""
        if not self._warned:
            self._warned = True
            log.warning("The stream sends messages on %s that are not Pusher's; they are left out.", self.name)
        self.doubtful_until = max(self.doubtful_until, at.monotonic)
        for listener in listeners:
            listener.gaps.miss(Missed.UNREADABLE, at)


class Listener:
    """
    One user of a shared connection: its channels, its queue, its gaps, and why it ended.

    :param queue_size: messages kept in its queue; None for no queue, only the newest message of each event.
    """

    def __init__(self, names: Collection[str], queue_size: int | None, clock: Clock) -> None:
        self.names = tuple(sorted(set(names)))
        self.gaps = GapBook(clock)
        self.queue = None if queue_size is None else MessageQueue(queue_size, self.gaps)
        self.channels: dict[str, Channel] = {}
        """By name; empty before it joins and after it fails."""
        self.woken = asyncio.Event()
        self.failure: QuoineStreamError | None = None
        self.connections = 0
        """How many it had."""
        self._changes = 0

    @property
    def confirmed(self) -> bool:
        """Whether all its channels are confirmed on the present connection."""
        return bool(self.channels) and all(each.confirmed for each in self.channels.values())

    def note_loss(self, since: Moment, reason: str) -> None:
        """Begin a gap at the connection's last sign of life."""
        self.gaps.begin(since, reason)
        self._note_change()

    def note_confirmation(self) -> None:
        """End the gap, if all channels are confirmed."""
        if self.confirmed:
            self.gaps.end()
        self._note_change()

    def fail(self, failure: QuoineStreamError) -> None:
        """End it, and its gap, for good."""
        self.failure = self.failure or failure
        self.gaps.end()
        self._note_change()

    async def wait_until(self, come: Callable[[], object]) -> None:
        """Wait until something has come that wakes this listener, or raise the failure."""
        while not come():
            if self.failure is not None:
                # A new one each time, because several tasks may wait.
                raise type(self.failure)(*self.failure.args) from self.failure.__cause__
            self.woken.clear()
            for channel in self.channels.values():
                channel.wanted = True
            # Looked at again: a message that came before the thread could see "wanted" wakes nobody.
            if not come():
                await self.woken.wait()

    @property
    def news(self) -> int:
        """Messages, losses, confirmations and failures so far."""
        return self._changes + sum(each.count for each in self.channels.values())

    def _note_change(self) -> None:
        self._changes += 1
        self.woken.set()
