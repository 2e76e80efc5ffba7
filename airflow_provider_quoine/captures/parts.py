"""
The parts of a capture: what each holds, and how two records of the same period become one.

A capture is cut into periods of time, counted from when it began, and each period is one part, one file; a period
with very many rows is several. A part covers its own time only. It says who listened when (its stretches), and for
which times rows may be missing (its gaps). So a restarted capture, or a second copy, merges with the part that it
finds: every row is kept, each event once, and a gap is only where nobody listened.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple, Self

from airflow_provider_quoine.formats.entries import StoredPart
from airflow_provider_quoine.formats.pieces import TOLERANCE, Gap, Row, Span, Stretch, disjoint, outside, within

NOT_RUNNING = "the capture was not running"
"""Reason of the gaps in which no capture listened."""

GONE = "what was written of this time is not there any more"
"""Reason of the gaps of parts that somebody has removed, or that the store has lost."""

EDGE = timedelta(seconds=0.25)
"""How far beyond its stretches a life may have heard an event."""

SECOND = timedelta(seconds=1)

STALE = b'"stale":true'


class PartKey(NamedTuple):
    """
    The name of a part.

    :param cut: seconds after the period's beginning at which the part begins: 0, unless the rows of the time before
        were written early.
    """

    period: int
    cut: int = 0


@dataclass(kw_only=True)
class Part:
    """
    The data of one period, or of the time between two cuts of it.

    :param life: the run of the capture that wants to add it; empty for what is stored.
    :param bytes: that its rows take in memory, as its writer counts them.
    """

    life: str = ""
    bytes: int = 0
    rows: list[Row] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether it says anything."""
        return bool(self.rows or self.gaps or self.stretches)

    def within(self, span: Span) -> Part:
        """Return what of it lies in a span."""
        return replace(
            self,
            rows=[row for row in self.rows if span.holds(row.at)],
            gaps=within(self.gaps, span),
            stretches=within(self.stretches, span),
        )

    def __iadd__(self, other: Part) -> Self:
        """Take what another one has, without merging it."""
        self.bytes += other.bytes
        self.rows += other.rows
        self.gaps += other.gaps
        self.stretches += other.stretches
        return self


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

    def spans(self, keys: Iterable[PartKey]) -> dict[PartKey, Span]:
        """Return the times of some parts, in order: each until the next one of its period begins."""
        ordered = sorted(keys)
        begins = [self.span(key.period).since + key.cut * SECOND for key in ordered]
        ends = [*begins[1:], self.ends_at]
        return {
            key: Span(begin, min(end, self.span(key.period).until))
            for key, begin, end in zip(ordered, begins, ends, strict=False)
        }


def merge(there: Part, own: Part, *, beside: Iterable[Row] = ()) -> Part:
    """
    Make one part of two records of the same time. No row goes, however often it is tried.

    :param there: the stored part.
    :param own: the part to add. Its gaps end its own life's listening, and no other's.
    :param beside: rows of the part before. An event that it has is left out.
    """
    lives = {stretch.life for stretch in own.stretches} | {own.life}
    heard = list(own.stretches)
    for stretch in there.stretches:
        heard += outside([stretch], [new for new in own.stretches if new.life == stretch.life])
    kept: list[Stretch] = []
    for stretch in heard:
        kept += _listened(stretch, own.gaps) if stretch.life == own.life else [stretch]
    rows = _united(
        [*_ranked(there.rows, there.stretches), *_ranked(own.rows, [one for one in kept if one.life in lives])],
        heard=there.stretches + own.stretches,
        beside=beside,
    )
    moments = {row.at for row in rows}
    # Who found nobody's word of a time did not know of a copy that writes later, and says why it missed it.
    told = [gap for gap in there.gaps + own.gaps if gap.reason != NOT_RUNNING]
    silent = [gap for gap in there.gaps + own.gaps if gap.reason == NOT_RUNNING]
    gaps = told + outside(silent, told)
    points = [gap for gap in gaps if gap.since == gap.until and gap.since not in moments]
    missing = outside([gap for gap in gaps if gap.since < gap.until], kept)
    return Part(rows=rows, gaps=disjoint(points + missing), stretches=sorted(kept))


def _listened(stretch: Stretch, gaps: Iterable[Gap]) -> list[Stretch]:
    """Return a stretch without gaps; what it counted is kept once, even if nothing else is."""
    pieces = outside([stretch], [gap for gap in gaps if gap.since < gap.until])
    if not pieces:
        return [stretch._replace(since=stretch.until)] if any(stretch[2:5]) else []
    shifts = [(piece.since - stretch.since).total_seconds() for piece in pieces]
    moved = [one._replace(monotonic=one.monotonic + shift) for one, shift in zip(pieces, shifts, strict=True)]
    return [moved[0], *(one._replace(reconnects=0, dropped=0, skipped=0) for one in moved[1:])]


def _ranked(rows: Iterable[Row], stretches: Sequence[Stretch]) -> list[tuple[datetime, bool, Row]]:
    """Place rows in time, and of two of the same moment the one first that was listened for and is not stale."""
    return [
        (row.at, not any(one.since < row.at <= one.until for one in stretches) or STALE in row.line, row)
        for row in rows
    ]


def _united(ranked: list[tuple[datetime, bool, Row]], *, heard: Sequence[Stretch], beside: Iterable[Row]) -> list[Row]:
    """
    Put rows in order, each event once.

    Two lives have the same event at almost the same moment. Two equal events of one life are two.

    :param heard: who listened when: equal events of two lives are two if neither listened when the other's came.
    :param beside: rows that stand elsewhere.
    """

    def listened(life: str, at: datetime) -> bool:
        return any(one.life == life and one.since - EDGE <= at <= one.until + EDGE for one in heard)

    def same(row: Row, other: Row, lives: set[str]) -> bool:
        if row.at == other.at:
            return True
        if row.life in lives or abs(row.at - other.at) > TOLERANCE:
            return False
        # What a life has from one of its gaps, such as a time when it was held up, is no event of its own.
        heard_by = [listened(one.life, event.at) for one in (row, other) for event in (row, other)]
        return heard_by != [True, False, False, True]

    seen: dict[object, list[tuple[Row, set[str]]]] = {}
    for row in beside:
        seen.setdefault(row.event, []).append((row, {row.life}))
    rows = []
    for at, _, row in sorted(ranked, key=lambda one: one[:2]):
        known = seen.setdefault(at if row.event is None else row.event, [])
        for other, lives in known:
            if same(row, other, lives):
                lives.add(row.life)
                break
        else:
            known.append((row, {row.life}))
            rows.append(row)
    return rows


def silence(span: Span, parts: Iterable[Part | StoredPart], reason: str = NOT_RUNNING) -> list[Gap]:
    """Return as gaps the time of which no part says that it was listened to, or why not."""
    silent = [Gap(*span, reason)]
    for part in parts:
        silent = outside(outside(silent, part.stretches), part.gaps)
    return silent
