"""
The parts of a capture: what each holds, and how two records of the same period become one.

A capture is cut into periods of time, counted from when it began, and each period is one part, one file. A part
covers its own period only. It says when a capture listened (its stretches), and for which times rows may be missing
(its gaps). So a restarted capture, or a second copy, merges with the part that it finds: its own rows for the time it
was listening, the file's rows for any other time. No row is doubled by that, and none is lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

NOT_RUNNING = "the capture was not running"
"""Reason of the gaps in which no capture listened."""


class Span(NamedTuple):
    """A stretch of time without its beginning and with its end: a snapshot belongs to the time before it."""

    since: datetime
    until: datetime

    def holds(self, moment: datetime) -> bool:
        """Whether a moment is in it."""
        return self.since < moment <= self.until


class Gap(NamedTuple):
    """A time of which rows may be missing; both ends are part of it."""

    since: datetime
    until: datetime
    reason: str

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.until - self.since).total_seconds()


class Stretch(NamedTuple):
    """
    A time in which a capture listened, as :class:`Span`.

    :param reconnects: how often the connection was made again in it.
    :param dropped: events that came and were not taken, because the capture was too slow.
    :param skipped: snapshots left out because they were in doubt.
    """

    since: datetime
    until: datetime
    reconnects: int = 0
    dropped: int = 0
    skipped: int = 0


class Row(NamedTuple):
    """
    A row.

    :param at: the moment that places it in time.
    :param line: its JSON, without a line's end.
    """

    at: datetime
    line: bytes


@dataclass(kw_only=True)
class Part:
    """The data of one period."""

    period: int
    rows: list[Row] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)

    @property
    def gap_seconds(self) -> float:
        """All its gaps together; they do not overlap once it is merged."""
        return sum(gap.seconds for gap in self.gaps)


@dataclass(frozen=True, kw_only=True)
class Periods:
    """
    The periods of a capture.

    :param began_at: aware, UTC.
    :param ends_at: end of the last period, which may be shorter than the others.
    """

    began_at: datetime
    ends_at: datetime
    length: timedelta

    @property
    def count(self) -> int:
        """How many there are."""
        return -((self.began_at - self.ends_at) // self.length)

    def number_of(self, moment: datetime) -> int:
        """Return the period that a moment is in; one before the beginning or after the end is in the nearest."""
        number = -((self.began_at - moment) // self.length) - 1
        return min(max(number, 0), self.count - 1)

    def over(self, moment: datetime) -> int:
        """Return how many periods are over at a moment."""
        return self.number_of(moment) + (moment >= self.ends_at)

    def span(self, number: int) -> Span:
        """Return a period's time."""
        since = self.began_at + number * self.length
        return Span(since, min(since + self.length, self.ends_at))


_Piece = TypeVar("_Piece", Gap, Stretch)


def within(pieces: Iterable[_Piece], span: Span) -> list[_Piece]:
    """Return what of some pieces lies in a span."""
    found = []
    for piece in pieces:
        since, until = max(piece.since, span.since), min(piece.until, span.until)
        if since < until or (since == until == piece.since == piece.until and span.holds(since)):
            found.append(piece._replace(since=since, until=until))
    return found


def outside(pieces: Iterable[_Piece], spans: Iterable[Stretch | Gap]) -> list[_Piece]:
    """Return what of some pieces lies in none of the spans."""
    rest = list(pieces)
    for since, until, *_ in spans:
        rest = [left for piece in rest for left in _without(piece, Span(since, until))]
    return rest


def _without(piece: _Piece, span: Span) -> list[_Piece]:
    if piece.since == piece.until:
        return [] if span.holds(piece.since) else [piece]
    ends = ((piece.since, min(piece.until, span.since)), (max(piece.since, span.until), piece.until))
    return [piece._replace(since=since, until=until) for since, until in ends if since < until]


def disjoint(gaps: Iterable[Gap]) -> list[Gap]:
    """Return gaps that cover the same time, in order, none over another; of two the one that began earlier stays."""
    found: list[Gap] = []
    for gap in sorted(gaps):
        since = max(gap.since, found[-1].until) if found else gap.since
        if gap.until < since or (found and gap.until == found[-1].until):
            continue
        if found and found[-1].until == since and found[-1].reason == gap.reason:
            found[-1] = found[-1]._replace(until=gap.until)
        else:
            found.append(gap._replace(since=since))
    return found


def merge(there: Part, own: Part) -> Part:
    """
    Make one part of two records of the same period.

    :param there: the stored part.
    :param own: the part to add. It replaces the stored one in the time of its own stretches; a row of other time is
        added once, however often it is tried.
    """
    listened = [Span(since, until) for since, until, *_ in own.stretches]
    kept = [row for row in there.rows if not any(span.holds(row.at) for span in listened)]
    known = set(kept)
    return Part(
        period=own.period,
        rows=sorted([*kept, *(row for row in own.rows if row not in known)], key=lambda row: row.at),
        gaps=disjoint(outside(there.gaps, own.stretches) + own.gaps),
        stretches=sorted(outside(there.stretches, own.stretches) + own.stretches),
    )


def with_silence_stated(part: Part, span: Span) -> Part:
    """
    State as gaps the time in which no capture listened.

    :param part: is left as it is.
    :param span: the time to account for.
    """
    silent = outside([Gap(*span, NOT_RUNNING)], part.stretches)
    return Part(
        period=part.period,
        rows=part.rows,
        gaps=disjoint([*part.gaps, *outside(silent, part.gaps)]),
        stretches=part.stretches,
    )
