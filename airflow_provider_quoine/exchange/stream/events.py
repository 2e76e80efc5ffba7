"""The events of a stream, and the gaps in which events may have been missed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """
    One event of a channel.

    :param channel: the channel's name.
    :param event: the event's name.
    :param data: the event's data as it was sent: a string, not yet parsed (pusher, Protocol 7).
    :param received_at: when it arrived here, UTC.
    :param connection: number of the connection that it came on: 1 for the first, one more after each reconnect. Pusher
        has no history, so an event of an earlier connection may be out of date.
    """

    channel: str
    event: str
    data: str
    received_at: datetime
    connection: int


@dataclass(frozen=True, slots=True)
class StreamGap:
    """
    A time in which events may have been missed: from the loss of a connection until every channel is confirmed again.

    :param since: UTC; the last message before a ping that was not answered, else the moment when the loss was noticed.
    :param until: UTC; None while the gap is open. A stream that is left or refused ends its gap. A jump of the clock
        does not lengthen it.
    :param reason: why the connection was lost, in words.
    """

    since: datetime
    until: datetime | None
    reason: str
