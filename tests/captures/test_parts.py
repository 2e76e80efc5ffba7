"""Two records of the same period become one, whoever wrote them and in whatever order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from airflow_provider_quoine.captures.parts import (
    NOT_RUNNING,
    Gap,
    Part,
    Periods,
    Row,
    Span,
    Stretch,
    disjoint,
    merge,
    with_silence_stated,
    within,
)

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
WINDOW = 20


def at(second: float) -> datetime:
    return NOON + timedelta(seconds=second)


def gap(since: float, until: float, reason: str = "lost") -> Gap:
    return Gap(at(since), at(until), reason)


def part_of(since: float, until: float, *, mark: str = "a", gaps: tuple[Gap, ...] = (), every: int = 1) -> Part:
    """What somebody has who listened from one second to another, with a row each second."""
    seconds = [second for second in range(0, WINDOW + 1, every) if since < second <= until]
    rows = [Row(at(second), f"{mark}{second}".encode()) for second in seconds]
    return Part(period=0, rows=rows, gaps=list(gaps), stretches=[Stretch(at(since), at(until), reconnects=1)])


def lines(part: Part) -> list[str]:
    return [row.line.decode() for row in part.rows]


def test_of_the_time_that_both_listened_the_own_rows_count() -> None:
    merged = merge(part_of(0, 6, mark="there"), part_of(3, 8, mark="own"))
    assert lines(merged) == ["there1", "there2", "there3", *(f"own{second}" for second in range(4, 9))]
    assert [(one.since, one.until) for one in merged.stretches] == [(at(0), at(3)), (at(3), at(8))]


def test_a_gap_of_one_is_none_where_the_other_listened() -> None:
    there = part_of(0, 10, gaps=(gap(2, 8),))
    assert merge(there, part_of(4, 6)).gaps == [gap(2, 4), gap(6, 8)]


def test_gaps_and_rows_that_become_known_later_are_added_and_nothing_goes() -> None:
    late = Part(period=0, rows=[Row(at(2.5), b"late")], gaps=[gap(4, 9)])
    merged = merge(part_of(0, 5, gaps=(gap(3, 6),)), late)
    assert lines(merged) == ["a1", "a2", "late", "a3", "a4", "a5"]
    assert merged.gaps == [gap(3, 9)]
    assert merged.stretches == part_of(0, 5).stretches


def test_time_that_nobody_listened_is_stated_once() -> None:
    part = merge(part_of(2, 5, gaps=(gap(2, 3),)), part_of(8, 9))
    stated = with_silence_stated(part, Span(at(0), at(10)))
    expected = [gap(0, 2, NOT_RUNNING), gap(2, 3), gap(5, 8, NOT_RUNNING), gap(9, 10, NOT_RUNNING)]
    assert stated.gaps == expected
    assert with_silence_stated(stated, Span(at(0), at(10))).gaps == expected
    assert stated.gap_seconds == 7
    assert merge(stated, part_of(4, 10)).gaps == expected[:2]


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ([gap(0, 5), gap(3, 8, "b"), gap(4, 5)], [gap(0, 5), gap(5, 8, "b")]),
        ([gap(2, 4), gap(0, 2)], [gap(0, 4)]),
        ([gap(0, 9), gap(3, 4, "b")], [gap(0, 9)]),
        ([gap(3, 3), gap(3, 3), gap(5, 5)], [gap(3, 3), gap(5, 5)]),
        ([gap(0, 3), gap(3, 3), gap(2, 2)], [gap(0, 3)]),
    ],
)
def test_gaps_are_counted_once(gaps: list[Gap], expected: list[Gap]) -> None:
    assert disjoint(gaps) == expected


stretches = some.tuples(some.integers(0, WINDOW), some.integers(0, WINDOW)).filter(lambda ends: ends[0] < ends[1])


@given(some.lists(stretches, min_size=1, max_size=6))
def test_no_row_is_doubled_or_lost_and_what_is_missing_is_stated_whoever_writes_when(
    writers: list[tuple[int, int]],
) -> None:
    stored = Part(period=0)
    for number, (since, until) in enumerate(writers):
        stored = with_silence_stated(merge(stored, part_of(since, until, mark=f"{number}:")), Span(at(0), at(WINDOW)))
    found = [row.at for row in stored.rows]
    listened = {second for since, until in writers for second in range(since + 1, until + 1)}
    assert found == [at(second) for second in sorted(listened)]
    assert {at(second) for second in range(1, WINDOW + 1)} - set(found) == {
        at(second)
        for second in range(1, WINDOW + 1)
        if any(Span(one.since, one.until).holds(at(second)) for one in stored.gaps)
    }
    assert stored.gap_seconds == WINDOW - len(listened)


def test_periods_hold_their_end_and_the_last_may_be_short() -> None:
    periods = Periods(began_at=NOON, ends_at=at(25), length=timedelta(seconds=10))
    assert periods.count == 3
    assert periods.span(2) == Span(at(20), at(25))
    numbers = {0: 0, 0.1: 0, 10: 0, 10.000001: 1, 20: 1, 25: 2, 99: 2, -5: 0}
    assert {second: periods.number_of(at(second)) for second in numbers} == numbers
    assert all(periods.span(number).holds(at(second)) for second, number in numbers.items() if 0 < second <= 25)


def test_a_gap_is_cut_to_the_periods_it_touches() -> None:
    spans = [Span(at(0), at(10)), Span(at(10), at(20))]
    assert [within([gap(4, 12), gap(10, 10, "b")], span) for span in spans] == [
        [gap(4, 10), gap(10, 10, "b")],
        [gap(10, 12)],
    ]
