"""
From pysher's thread to the event loop.

The thread keeps the newest message of each event of a channel undecoded, and fills the queues of the listeners that
want every message. It wakes the event loop only if a listener waits there. So the cost depends on the events that are
read, not on the messages that arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable

from airflow_provider_quoine.exchange.stream.channels import Channel, Listener, RawMessage
from airflow_provider_quoine.exchange.stream.events import Moment
from airflow_provider_quoine.exchange.stream.gaps import Missed
from airflow_provider_quoine.exchange.stream.messages import INTERNAL, Message, read_message

log = logging.getLogger(__name__)

_DATA = b'"data"'
_MOST_PREFIXES = 10_000
_LONGEST_PREFIX = 1_000
_MOST_EVENTS = 100
"""Names of events of a channel whose newest message is kept; the one that came first is forgotten."""


class Inboxes:
    """Takes the messages of a connection's channels. Its methods are called on pysher's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.channels: dict[str, Channel] = {}
        """By name; the event loop changes it at any moment."""
        self._loop = loop
        self._by_prefix: dict[bytes, tuple[Channel, str]] = {}
        self._woken: deque[Channel] = deque()
        self._wake_up_due = self._warned = False

    def close(self, channel: Channel) -> None:
        """Take no more of a channel's messages; called on the event loop."""
        del self.channels[channel.name]
        # Last: the thread reads these two in the opposite order, so it cannot learn a prefix of this channel again.
        self._by_prefix = {}

    def take(self, connection: int, tell: Callable[[Message], None], payload: bytes, at: Moment) -> None:
        """Take a message, undecoded if one with the same text before its data came before. Tell the protocol's own."""
        # Its text before its data, the data's opening quote included.
        prefix = payload[: payload.find(b'"', payload.find(_DATA) + len(_DATA)) + 1]
        by_prefix = self._by_prefix
        known, data_at = by_prefix.get(prefix), len(prefix) - 1
        if known is None:
            message = read_message(payload)
            if message is None:
                self._doubt_all(at)
                return
            event, _, name = message
            if name is None or event.startswith(INTERNAL):
                tell(message)
                return
            channel = self.channels.get(name)
            if channel is None:
                return
            known = channel, event
            short = len(prefix) < _LONGEST_PREFIX and len(by_prefix) < _MOST_PREFIXES and prefix.isascii()
            if short and read_message(prefix + b'"}') == (event, "", name):
                by_prefix[prefix] = known
            else:
                data_at = 0
        # Not by its constructor, a function in Python that would take a sixth of the time of a message.
        self._put(tuple.__new__(RawMessage, (*known, payload, at, connection, data_at)))

    def _doubt_all(self, at: Moment) -> None:
        """Note a message that could not be read: it may have been an event of any channel."""
        if not self._warned:
            self._warned = True
            log.warning("The stream's server sends messages that are not Pusher's; they are left out.")
        told: dict[Listener, None] = {}
        for channel in tuple(self.channels.values()):
            channel.unreadable_at = at.monotonic
            told.update(channel.listeners)
            channel.count += 1
            self._wake(channel)
        for listener in told:
            listener.gaps.miss(Missed.UNREADABLE, at)

    def _put(self, message: RawMessage) -> None:
        channel = message.channel
        channel.newest[message.event] = channel.last = message
        if len(channel.newest) > _MOST_EVENTS:
            forgotten = next(iter(channel.newest))
            del channel.newest[forgotten]
            channel.decoded.pop(forgotten, None)
        for queue in channel.queues:
            queue.put(message)
        # Counted last, so that the message is there for a reader that sees the count.
        channel.count += 1
        if channel.wanted:
            self._wake(channel)

    def _wake(self, channel: Channel) -> None:
        channel.wanted = False
        self._woken.append(channel)
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
            for listener in self._woken.popleft().listeners:
                listener.woken.set()
