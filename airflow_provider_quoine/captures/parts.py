"""
The parts of a capture: what each holds, and how several records of the same time become one.

A capture is cut into periods of time, counted from when it began; a period with very many rows is cut again. A part
covers its own time only. It says who listened when (its stretches), and what each life has missed (its gaps). So a
restarted capture, or a second copy, merges with what it finds: every row is kept, each event once, and rows are said to
be missing only where nobody listened. In which order, and how often, parts are merged does not matter.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain

from airflow_provider_quoine.formats.pieces import TOLERANCE, Gap, Row, Span, Stretch, disjoint, outside, within

NOT_RUNNING = "the capture was not running"
"""Reason of the gaps in which no capture listened."""

GONE = "what was written of this time is not there any more"
"""Reason of the gaps of parts that somebody has removed, or that the store has lost."""

EDGE = timedelta(seconds=0.25)
"""How far beyond its stretches a life may have heard an event."""

SECOND = timedelta(seconds=1)

STALE = b'"stale":true'


@dataclass(kw_only=True)
class Part:
    """
    The data of some time.

    :param bytes: that its rows take in memory, as its writer counts them.
    :param repeats: rows of its time whose events the part before has already.
    :param gaps: of single lives.
    """

    bytes: int = 0
    rows: list[Row] = field(default_factory=list)
    repeats: list[Row] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)

    def within(self, span: Span) -> Part:
        """Return what of it lies in a span."""
        return replace(
            self,
            rows=[row for row in self.rows if span.holds(row.at)],
            repeats=[row for row in self.repeats if span.holds(row.at)],
            gaps=within(self.gaps, span),
            stretches=within(self.stretches, span),
        )

    def missing(self, span: Span) -> list[Gap]:
        """Return the time of a span in which nobody listened, and the moments of which nobody has the row."""
        moments = {row.at for row in (*self.rows, *self.repeats)}
        points = [gap for gap in self.gaps if gap.since == gap.until and gap.since not in moments]
        told = [gap for gap in self.gaps if gap.since < gap.until]
        # Who was there and missed it says why.
        silent = outside([Gap(*span, NOT_RUNNING)], told)
        return disjoint(gap._replace(life="") for gap in points + outside(told + silent, self.stretches))


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

    def span(self, number: int) -> Span:
        """Return a period's time."""
        since = self.began_at + number * self.length
        return Span(since, min(since + self.length, self.ends_at))

    def number(self, moment: datetime) -> int:
        """Return which period a moment is in, counted from 0; one right between two is in the later one."""
        return (moment - self.began_at) // self.length


def merge(parts: Sequence[Part], *, before: Sequence[Part] = ()) -> Part:
    """
    Make one part of several records of the same time. No row goes, however often it is tried.

    :param parts: a gap of a life ends that life's listening, in whichever of them it is, and no other's.
    :param before: what is right before that time. Rows whose events it has are repeats.
    """
    gaps = sorted({gap for part in parts for gap in part.gaps})
    heard = [[piece for one in part.stretches for piece in _listened(one, gaps)] for part in parts]
    stretches: list[Stretch] = []
    for stretch in sorted({*chain.from_iterable(heard)}, key=lambda one: (one.since - one.until, one)):
        stretches += outside([stretch], [other for other in stretches if other.life == stretch.life])
    ranked = [
        [(_rank(row, own), row) for row in part.rows + part.repeats] for part, own in zip(parts, heard, strict=True)
    ]
    # The same life's row of each event, so that it is known for another one than the life's next.
    chosen = [min(event.values(), key=lambda row: row.life) for event in _events(ranked, stretches)]
    repeats = set[Row]()
    if before:
        there = merge([replace(part, repeats=[]) for part in before])
        sides = [[(False, row) for row in side] for side in (there.rows, chosen)]
        repeats = {event[1] for event in _events(sides, there.stretches + stretches) if len(event) == len(sides)}
    return Part(rows=sorted({*chosen} - repeats), repeats=sorted(repeats), gaps=gaps, stretches=sorted(stretches))


def _listened(stretch: Stretch, gaps: Iterable[Gap]) -> list[Stretch]:
    """Return a stretch without its life's gaps; what it counted is kept once, even if nothing else is."""
    pieces = outside([stretch], [gap for gap in gaps if gap.life == stretch.life and gap.since < gap.until])
    if not pieces:
        return [stretch._replace(since=stretch.until)] if any(stretch[2:5]) else []
    first = stretch._replace(since=pieces[0].since, until=pieces[0].until, monotonic=pieces[0].monotonic)
    return [first, *pieces[1:]]


def _rank(row: Row, stretches: Iterable[Stretch]) -> bool:
    """Return whether another snapshot of the same moment is preferred: this one was not listened for, or is stale."""
    return row.event is None and (not any(one.since < row.at <= one.until for one in stretches) or STALE in row.line)


def _events(records: Sequence[Iterable[tuple[bool, Row]]], heard: Collection[Stretch]) -> list[dict[int, Row]]:
    """
    Find the rows of the same event, or of snapshots of the same moment.

    Two lives have the same event at almost the same moment. Two equal events of one life or of one record are two.

    :param records: ranked rows.
    :param heard: who listened when: equal events of two lives are two if neither listened when the other's came.
    :return: of each event the rows by the number of their record, the preferred one first.
    """

    def listened(life: str, at: datetime) -> bool:
        return any(one.life == life and one.since - EDGE <= at <= one.until + EDGE for one in heard)

    def same(row: Row, rows: Collection[Row]) -> bool:
        if any(row.at == other.at for other in rows):
            return True
        if any(row.life == other.life for other in rows):
            return False
        # What a life has from one of its gaps, such as a time when it was held up, is no event of its own.
        pair = row, next(iter(rows))
        return [listened(one.life, event.at) for one in pair for event in pair] != [True, False, False, True]

    found, recent = list[dict[int, Row]](), defaultdict[object, deque[dict[int, Row]]](deque)
    ordered = sorted((row.at, rank, number, row) for number, rows in enumerate(records) for rank, row in rows)
    for at, _, number, row in ordered:
        known = recent[at if row.event is None else row.event]
        while known and at - next(iter(known[0].values())).at > TOLERANCE:
            known.popleft()
        for event in known:
            if number not in event and same(row, event.values()):
                event[number] = row
                break
        else:
            known.append({number: row})
            found.append(known[-1])
    return found
