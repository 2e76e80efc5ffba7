"""The events of a stream, and the gaps in which events may have been missed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple


class Moment(NamedTuple):
    """A moment by the wall clock, in Unix seconds, and by ``time.monotonic()``."""

    wall: float
    monotonic: float


@lru_cache(maxsize=1)
def utc(wall: float) -> datetime:
    """Return a wall clock's time in UTC; the messages of a chunk have the same one."""
    return datetime.fromtimestamp(wall, UTC)


OnMessages = Callable[[list[bytes], Moment], None]
"""Takes messages in their order, and the moment of their last bytes, on the connection's thread."""

OnEnd = Callable[[int | None, str], None]
"""
Is called once, last, on that thread: with the close code (None where the socket just broke) and the server's or the
system's words, which may contain the application key.
"""


class StreamEvent(NamedTuple):
    """
    One event of a channel.

    :param channel: the channel's name.
    :param event: the event's name.
    :param data: the event's data as it was sent: a string, not yet parsed (pusher, Protocol 7).
    :param received_at: when its last byte arrived here, UTC, by a clock that may be set back.
    :param connection: id of the connection that it came on. The ids of a process count up, over all its streams, from
        the microsecond in which it began, by the wall clock: those of a later process, or of one beside it, are others.
        Pusher has no history, so an event of an earlier connection may be out of date.
    :param monotonic: ``time.monotonic()`` when it arrived. Where ``received_at - monotonic`` of two events differs, the
        wall clock was set in between.
    """

    channel: str
    event: str
    data: str
    received_at: datetime
    connection: int
    monotonic: float = 0.0


@dataclass(slots=True)
class StreamGap:
    """
    A time in which events were missed, or may have been.

    :param since: UTC, by the clock of that moment: the last byte of the last whole message before the connection was
        lost; or the arrival of the first message that was dropped or could not be read.
    :param reason: in words.
    :param began: ``time.monotonic()`` of ``since``.
    :param ended: ``time.monotonic()`` of ``until``.
    """

    since: datetime
    reason: str
    began: float
    ended: float | None = None

    @property
    def until(self) -> datetime | None:
        """UTC; every channel is confirmed again, or the last such message has arrived. None while the connection is
        lost. A stream that is left or refused ends its gap. A clock that is set does not lengthen it."""
        if self.ended is None:
            return None
        # One microsecond more: a time that holds a single message must not be empty.
        return self.since + timedelta(seconds=self.ended - self.began, microseconds=1)
