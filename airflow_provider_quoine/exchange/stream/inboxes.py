"""
One inbox for each channel, between pysher's thread and the event loop.

The thread keeps each channel's newest message undecoded, and fills the queues of the listeners that want every message.
It wakes the event loop only if a listener waits there. A message is decoded when it is handed out. So the cost depends
on the events that are read, not on the messages that arrive.
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
from airflow_provider_quoine.exchange.stream.messages import read_message

log = logging.getLogger(__name__)

_DATA = b'"data"'
_MOST_PREFIXES = 10_000


class RawMessage(NamedTuple):
    """
    A message as it came.

    :param payload: the whole message, not decoded.
    :param received_at: ``time.time()`` when it came.
    :param connection: number of the connection that it came on.
    """

    inbox: ChannelInbox
    payload: bytes
    received_at: float
    connection: int


class MessageQueue:
    """Every message of one listener's channels. When it is full, the oldest is dropped and counted."""

    def __init__(self, size: int) -> None:
        self.dropped = 0
        self._messages: deque[RawMessage] = deque(maxlen=size)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: RawMessage) -> None:
        """Append a message; called on the connection's thread."""
        with self._lock:
            self.dropped += len(self._messages) == self._messages.maxlen
            self._messages.append(message)

    def take(self) -> RawMessage | None:
        """Remove and return the oldest message, or None if there is none."""
        with self._lock:
            return self._messages.popleft() if self._messages else None


class ChannelInbox:
    """The messages of one channel."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.newest: RawMessage | None = None
        self.count = 0
        """How many messages have come."""
        self.queues: tuple[MessageQueue, ...] = ()
        self.wanted = False
        """Whether a listener waits for the next message."""
        self.wake_ups: dict[asyncio.Event, None] = {}
        """To be set on the event loop when a wanted message has come."""
        self._decoded: tuple[RawMessage | None, StreamEvent | None] = None, None
        self._warned = False

    def newest_event(self) -> StreamEvent | None:
        """Return the newest message's event, decoded once for all listeners; the event before it if it is broken."""
        newest, (decoded, event) = self.newest, self._decoded
        if newest is not None and newest is not decoded:
            event = self.decode(newest) or event
            self._decoded = newest, event
        return event

    def decode(self, message: RawMessage) -> StreamEvent | None:
        """Return a message's event, or None if it is not one that Pusher could have sent."""
        event, data, channel = read_message(message.payload) or ("", None, None)
        if channel != self.channel or data is None:
            if not self._warned:
                self._warned = True
                log.warning("The stream sends messages on %s that are not Pusher's; they are left out.", self.channel)
            return None
        received_at = datetime.fromtimestamp(message.received_at, UTC)
        return StreamEvent(channel, event, data, received_at, message.connection)


class Inboxes:
    """The inboxes of a connection's channels. pysher's thread may read at any moment what the event loop changes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._inboxes: dict[str, ChannelInbox] = {}
        self._by_prefix: dict[bytes, ChannelInbox] = {}
        self._woken: deque[ChannelInbox] = deque()
        self._wake_up_due = False

    def open(self, channel: str) -> ChannelInbox:
        """Begin to take a channel's messages."""
        self._inboxes[channel] = inbox = ChannelInbox(channel)
        return inbox

    def close(self, channel: str) -> None:
        """Take no more of a channel's messages."""
        del self._inboxes[channel]
        # Last: the thread reads these two in the opposite order, so it cannot learn a prefix of this channel again.
        self._by_prefix = {}

    def take_by_prefix(self, payload: bytes, connection: int) -> bool:
        """
        Take a message, undecoded, if one with the same text before its data has come before.

        Called on the connection's thread.

        :return: whether it was taken.
        """
        inbox = self._by_prefix.get(_prefix(payload))
        if inbox is None:
            return False
        self._put(inbox, payload, connection)
        return True

    def take(self, payload: bytes, channel: str, connection: int) -> None:
        """Take a message that was decoded and is an event of a channel; called on the connection's thread."""
        by_prefix = self._by_prefix
        inbox = self._inboxes.get(channel)
        if inbox is None:
            return
        prefix = _prefix(payload)
        known = read_message(prefix + b'"}')
        if known is not None and known[2] == channel and len(by_prefix) < _MOST_PREFIXES:
            by_prefix[prefix] = inbox
        self._put(inbox, payload, connection)

    def _put(self, inbox: ChannelInbox, payload: bytes, connection: int) -> None:
        inbox.newest = message = RawMessage(inbox, payload, time.time(), connection)
        for queue in inbox.queues:
            queue.put(message)
        # Counted last, so that the message is there for a reader that sees the count.
        inbox.count += 1
        if inbox.wanted:
            inbox.wanted = False
            self._woken.append(inbox)
            if not self._wake_up_due:
                # One wake-up for many messages: a wake-up costs as much as a message.
                self._wake_up_due = True
                # RuntimeError: the loop is closed, so there is nobody to wake.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._wake_up)

    def _wake_up(self) -> None:
        # Reset first, so that a message added from now on asks for another wake-up.
        self._wake_up_due = False
        while self._woken:
            for wake_up in self._woken.popleft().wake_ups:
                wake_up.set()


def _prefix(payload: bytes) -> bytes:
    """Return a message's text before its data, the data's opening quote included."""
    return payload[: payload.find(b'"', payload.find(_DATA) + len(_DATA)) + 1]
