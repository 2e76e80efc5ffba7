"""What a part is made of: rows, gaps, and the stretches of time that somebody listened to."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

TOLERANCE = timedelta(seconds=1)
"""Most time between the moments at which two lives have the same event."""


class Span(NamedTuple):
    """A stretch of time without its beginning and with its end: a snapshot belongs to the time before it."""

    since: datetime
    until: datetime

    def holds(self, moment: datetime) -> bool:
        """Whether a moment is in it."""
        return self.since < moment <= self.until


class Gap(NamedTuple):
    """
    A time of which rows may be missing; both ends are part of it.

    :param life: whose rows, if it is a gap of one life only, as of a stretch.
    """

    since: datetime
    until: datetime
    reason: str
    life: str = ""

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
    :param life: the run of the capture that listened: a restart and a second copy are others.
    :param monotonic: the host's monotonic clock when ``since`` was, in seconds.
    """

    since: datetime
    until: datetime
    reconnects: int = 0
    dropped: int = 0
    skipped: int = 0
    life: str = ""
    monotonic: float = 0.0


class Row(NamedTuple):
    """
    A row.

    :param at: the moment that places it in time. No two rows of a life have the same.
    :param line: its JSON, without a line's end.
    :param life: as of a stretch; empty for a snapshot.
    :param event: is equal if the event is the same, whichever life has it; None for a snapshot.
    """

    at: datetime
    line: bytes
    life: str = ""
    event: int | None = None


class Share(NamedTuple):
    """A time, as :class:`Span`, of which a file has the rows."""

    since: datetime
    until: datetime
    name: str


_Piece = TypeVar("_Piece", Gap, Stretch, Share)


def within(pieces: Iterable[_Piece], span: Span) -> list[_Piece]:
    """Return what of some pieces lies in a span."""
    found = []
    for piece in pieces:
        since, until = max(piece.since, span.since), min(piece.until, span.until)
        if since < until or (since == until == piece.since == piece.until and span.holds(since)):
            found.append(_cut(piece, since, until))
    return found


def outside(pieces: Iterable[_Piece], spans: Iterable[Span | Stretch | Gap | Share]) -> list[_Piece]:
    """Return what of some pieces lies in none of the spans."""
    rest = list(pieces)
    for since, until, *_ in spans:
        rest = [left for piece in rest for left in _without(piece, Span(since, until))]
    return rest


def _without(piece: _Piece, span: Span) -> list[_Piece]:
    if piece.since == piece.until:
        return [] if span.holds(piece.since) else [piece]
    ends = ((piece.since, min(piece.until, span.since)), (max(piece.since, span.until), piece.until))
    return [_cut(piece, since, until) for since, until in ends if since < until]


def _cut(piece: _Piece, since: datetime, until: datetime) -> _Piece:
    """Cut a piece; what a stretch has counted stays with its beginning."""
    cut = piece._replace(since=since, until=until)
    if isinstance(cut, Stretch) and since > piece.since:
        moved = cut.monotonic + (since - piece.since).total_seconds()
        return cut._replace(reconnects=0, dropped=0, skipped=0, monotonic=moved)
    return cut


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
