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
from math import inf, nextafter

from airflow_provider_quoine.exchange.stream.channels import Channel, RawMessage
from airflow_provider_quoine.exchange.stream.events import Moment
from airflow_provider_quoine.exchange.stream.gaps import Missed
from airflow_provider_quoine.exchange.stream.messages import INTERNAL, Message, read_message

log = logging.getLogger(__name__)

_DATA = b'"data"'
_MOST_PREFIXES = 10_000
_LONGEST_PREFIX = 1_000
_MOST_EVENTS = 100
"""Names of events of a channel whose newest message is kept; the one that came first is forgotten."""

_LONGEST_OWN = 4_000
"""Bytes of one of the protocol's own events; the data of a longer one is nothing that we know."""

_Known = tuple[Channel, str, int]
"""Channel and event, and the place of the data's opening quote; 0 where only decoding tells."""


class Inboxes:
    """Takes the messages of a connection's channels. Its methods are called on pysher's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.channels: dict[str, Channel] = {}
        """By name; the event loop changes it at any moment."""
        self._loop = loop
        self._by_prefix: dict[bytes, _Known] = {}
        self._woken: deque[Channel] = deque()
        self._wake_up_due = self._warned = False
        self._doubted_at = -inf
        """Monotonic time of the last message that could not be read."""

    def close(self, channel: Channel) -> None:
        """Take no more of a channel's messages; called on the event loop."""
        del self.channels[channel.name]
        # Last: the thread reads these two in the opposite order, so it cannot learn a prefix of this channel again.
        self._by_prefix = {}

    def take(self, connection: int, tell: Callable[[Message], None], payloads: list[bytes], at: Moment) -> None:
        """Take messages, undecoded those with a text before their data that is known. Tell the protocol's own."""
        at = self._behind_doubt(at)
        for payload in payloads:
            # Its text before its data, the data's opening quote included.
            prefix = payload[: payload.find(b'"', payload.find(_DATA) + len(_DATA)) + 1]
            known = self._by_prefix.get(prefix) or self._learn(prefix, payload, tell, at)
            if known is None:
                at = self._behind_doubt(at)
                continue
            channel, event, data_at = known
            # Not by its constructor, a function in Python that would take a sixth of the time of a message.
            message = tuple.__new__(RawMessage, (channel, event, payload, at, connection, data_at))
            newest = channel.newest
            newest[event] = channel.last = message
            if len(newest) > _MOST_EVENTS:
                forgotten = next(iter(newest))
                del newest[forgotten]
                channel.decoded.pop(forgotten, None)
            for queue in channel.queues:
                queue.put(message)
            # Counted last, so that the message is there for a reader that sees the count.
            channel.count += 1
            if channel.wanted:
                channel.wanted = False
                self._woken.append(channel)
        if self._woken and not self._wake_up_due:
            # One wake-up for many messages: a wake-up costs as much as several.
            self._wake_up_due = True
            # RuntimeError: the loop is closed, so there is nobody to wake.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wake_up)

    def _learn(self, prefix: bytes, payload: bytes, tell: Callable[[Message], None], at: Moment) -> _Known | None:
        """Decode a message; return what is known of it if it is an event, and remember that for others like it."""
        by_prefix, message = self._by_prefix, read_message(payload)
        if message is None:
            self._doubt_all(at)
            return None
        event, _, name = message
        if event.startswith(INTERNAL):
            tell(message if len(payload) <= _LONGEST_OWN else message._replace(data=None))
            return None
        # An event without a channel is nobody's.
        channel = self.channels.get(name) if name is not None else None
        if channel is None:
            return None
        known = channel, event, len(prefix) - 1
        short = len(prefix) < _LONGEST_PREFIX and len(by_prefix) < _MOST_PREFIXES and prefix.isascii()
        if short and read_message(prefix + b'"}') == (event, "", channel.name):
            by_prefix[prefix] = known
            return known
        return channel, event, 0

    def _behind_doubt(self, at: Moment) -> Moment:
        """Put what came in one chunk with a message that could not be read, but behind it, behind it in time too."""
        return at if at.monotonic > self._doubted_at else Moment(at.wall, nextafter(self._doubted_at, inf))

    def _doubt_all(self, at: Moment) -> None:
        """Note a message that could not be read: it may have been an event of any channel."""
        self._doubted_at = at.monotonic
        if not self._warned:
            self._warned = True
            log.warning("The stream's server sends messages that are not Pusher's; they are left out.")
        channels = tuple(self.channels.values())
        for channel in channels:
            channel.doubtful_until = at.monotonic
            channel.count += 1
            channel.wanted = False
            self._woken.append(channel)
        for listener in {each for channel in channels for each in tuple(channel.listeners)}:
            listener.gaps.miss(Missed.UNREADABLE, at)

    def _wake_up(self) -> None:
        # Reset first, so that a message added from now on asks for another wake-up.
        self._wake_up_due = False
        while self._woken:
            for listener in self._woken.popleft().listeners:
                listener.woken.set()
