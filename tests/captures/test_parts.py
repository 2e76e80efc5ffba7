"""Two records of the same period become one, whoever wrote them and in whatever order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from airflow_provider_quoine.captures.parts import NOT_RUNNING, Part, Periods, merge
from airflow_provider_quoine.captures.run import HELD_UP
from airflow_provider_quoine.formats.pieces import Gap, Row, Span, Stretch

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
WINDOW = 20


def at(second: float) -> datetime:
    return NOON + timedelta(seconds=second)


def gap(since: float, until: float, reason: str = "lost") -> Gap:
    return Gap(at(since), at(until), reason)


def heard(life: str, *seconds: float) -> Part:
    """What a life has that heard the same event again and again."""
    rows = [Row(at(second), life.encode(), life, 1) for second in seconds]
    return Part(rows=rows, stretches=[Stretch(at(0), at(9), life=life)])


def missing(part: Part, since: float = 0, until: float = WINDOW) -> list[Gap]:
    """What the entry of its file says is missing."""
    return part.missing(Span(at(since), at(until)))


def part_of(
    since: float, until: float, *, life: str = "a", gaps: tuple[Gap, ...] = (), every: int = 1, late: float = 0
) -> Part:
    """What a life has that listened from one second to another: an event each second, but none in its gaps."""
    rows = [
        Row(at(second + late), f"{life}{second}".encode(), life, second)
        for second in range(0, WINDOW + 1, every)
        if since < second + late <= until and not any(one.since <= at(second + late) <= one.until for one in gaps)
    ]
    stretch = Stretch(at(since), at(until), reconnects=1, life=life, monotonic=100 + since)
    return Part(rows=rows, gaps=[one._replace(life=life) for one in gaps], stretches=[stretch])


def lines(part: Part) -> list[str]:
    return [row.line.decode() for row in part.rows]


def listened(part: Part) -> list[tuple[str, float, float]]:
    return [
        (one.life, (one.since - NOON).total_seconds(), (one.until - NOON).total_seconds()) for one in part.stretches
    ]


def test_events_that_both_lives_have_are_there_once_and_the_others_all() -> None:
    merged = merge([part_of(0, 6, life="a"), part_of(3, 8, life="b", late=0.01)])
    assert lines(merged) == ["a1", "a2", "a3", "a4", "a5", "a6", "b7"]
    assert listened(merged) == [("a", 0, 6), ("b", 3, 8)]
    assert missing(merged, 0, 8) == []


def test_time_that_a_life_was_held_up_is_not_listened_and_takes_no_row_of_the_other() -> None:
    there = part_of(0, 20, life="other")
    frozen = part_of(0, 20, life="frozen", gaps=(gap(4, 16, "held up"),), late=-0.01)
    merged = merge([there, frozen])
    assert [row.event for row in merged.rows] == list(range(1, 21))
    assert [row.life for row in merged.rows[4:15]] == 11 * ["other"]
    assert missing(merged) == []
    assert listened(merged) == [("frozen", 0, 4), ("other", 0, 20), ("frozen", 16, 20)]
    # In whatever order they write, and however often.
    assert merge([frozen, there]) == merge([merged, frozen]) == merge([there, merged, merged]) == merged


def test_a_gap_is_only_where_nobody_listened() -> None:
    there = merge([part_of(0, 10, gaps=(gap(2, 8),))])
    assert listened(there) == [("a", 0, 2), ("a", 8, 10)]
    assert [one.reconnects for one in there.stretches] == [1, 0]
    assert [one.monotonic for one in there.stretches] == [100, 108]
    merged = merge([there, part_of(4, 6, life="b")])
    assert missing(merged, 0, 10) == [gap(2, 4), gap(6, 8)]
    assert lines(merged) == ["a1", "b5", "b6", "a9", "a10"]


@pytest.mark.parametrize("order", [("first", "late"), ("late", "first")])
def test_a_copy_that_was_there_says_why_it_missed_something_whoever_writes_first(order: tuple[str, str]) -> None:
    """Under load the copy that began later may write a period before the other one does."""
    parts = {
        "first": part_of(1, 20, life="first", gaps=(gap(3, 5, HELD_UP),)),
        "late": part_of(8, 20, life="late"),
    }
    merged = merge([parts[life] for life in order])
    assert missing(merged) == [gap(0, 1, NOT_RUNNING), gap(3, 5, HELD_UP)]


def test_gaps_and_rows_that_become_known_later_are_added_and_nothing_goes() -> None:
    there = merge([part_of(0, 10, gaps=(gap(3, 6),))])
    late = Part(rows=[Row(at(2.5), b"late", "a", 99)], gaps=[gap(5, 9)._replace(life="a")])
    merged = merge([there, late])
    assert lines(merged) == ["a1", "a2", "late", "a7", "a8", "a9", "a10"]
    assert missing(merged, 0, 10) == [gap(3, 9)]
    assert listened(merged) == [("a", 0, 3), ("a", 9, 10)]
    assert merge([merged, late]) == merged
    # One that was made before the gap was known is no reason to forget it.
    assert merge([there, merged]) == merge([merged, part_of(0, 10, gaps=(gap(3, 6),))]) == merged


def test_equal_events_of_two_lives_are_two_where_neither_heard_the_others() -> None:
    one = Part(rows=[Row(at(4.9), b"x", "a", 1)], stretches=[Stretch(at(0), at(5), life="a")])
    other = Part(rows=[Row(at(5.6), b"x", "b", 1)], stretches=[Stretch(at(5.5), at(9), life="b")])
    assert len(merge([one, other]).rows) == 2
    both = Part(rows=[Row(at(4.9), b"x", "a", 1)], stretches=[Stretch(at(0), at(9), life="a")])
    assert len(merge([both, other]).rows) == 1


@pytest.mark.parametrize("lives", ["ab", "ba"])
def test_two_equal_events_that_two_lives_have_are_two_however_often_they_are_merged(lives: str) -> None:
    first, second = (heard(life, *seconds) for life, seconds in zip(lives, [(1, 1.5), (1.01, 1.49)], strict=True))
    merged = merge([first, second])
    assert len(merged.rows) == 2
    assert merge([merged]) == merge([merged, first]) == merge([second, merged]) == merge([merged, merged]) == merged
    # Those of the time before are two, too, whichever life they are of.
    before = merge([heard(lives[0], 0.99), heard(lives[1], 0.985)])
    for _ in range(3):
        merged = merge([merged], before=[before])
        assert (len(merged.rows), merged.repeats) == (2, [])


def test_an_event_that_the_part_before_has_is_kept_apart_and_back_when_that_has_it_no_more() -> None:
    merged = merge([heard("b", 5.01, 5.6), heard("a", 5.5)], before=[heard("a", 4.99)])
    assert [[row.at for row in rows] for rows in (merged.rows, merged.repeats)] == [[at(5.5)], [at(5.6)]]
    assert merge([merged], before=[heard("a", 4.99)]) == merged
    assert [row.at for row in merge([merged]).rows] == [at(5.5), at(5.6)]


def test_of_two_snapshots_of_a_moment_the_one_that_was_listened_for_stays() -> None:
    def snapshot(mark: str, since: float) -> Part:
        stretch = Stretch(at(since), at(9), life=mark)
        return Part(rows=[Row(at(5), mark.encode())], stretches=[stretch])

    assert lines(merge([snapshot("a", 0), snapshot("b", 0)])) == ["a"]
    assert lines(merge([snapshot("a", 0), snapshot("b", 6)])) == ["a"]
    assert lines(merge([snapshot("a", 6), snapshot("b", 0)])) == ["b"]
    assert lines(merge([snapshot('{"stale":true}', 0), snapshot('{"stale":false}', 0)])) == ['{"stale":false}']


def test_a_snapshot_that_one_could_not_read_is_missing_only_if_the_other_has_none() -> None:
    unread = Part(gaps=[gap(5, 5)._replace(life="a")], stretches=[Stretch(at(0), at(9), life="a")])
    assert missing(merge([unread]), 0, 9) == [gap(5, 5)]
    has_it = Part(rows=[Row(at(5), b"b")], stretches=[Stretch(at(0), at(9), life="b")])
    assert missing(merge([has_it, unread]), 0, 9) == missing(merge([unread, has_it]), 0, 9) == []


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_a_moment_in_which_the_snapshots_that_two_missed_meet_is_missing(order: tuple[str, str]) -> None:
    missed = {"a": (3, 5), "b": (5, 7)}
    stored: list[Part] = []
    for life in order:
        first, last = missed[life]
        rows = [Row(at(second), life.encode()) for second in range(1, 10) if not first <= second <= last]
        # As a run states them.
        gaps = [one._replace(life=life) for one in (gap(first, last), gap(first, first), gap(last, last))]
        stored.append(Part(rows=rows, gaps=gaps, stretches=[Stretch(at(0), at(9), life=life)]))
    merged = merge(stored)
    assert missing(merged, 0, 9) == [gap(5, 5)]
    assert [row.at for row in merged.rows] == [at(second) for second in (1, 2, 3, 4, 6, 7, 8, 9)]


def test_what_a_life_counted_stays_where_it_listened_to_nothing() -> None:
    merged = merge([part_of(0, 5, gaps=(gap(0, 5),))])
    assert [(one.since, one.until, one.reconnects) for one in merged.stretches] == [(at(5), at(5), 1)]
    assert merge([merged, part_of(0, 5, gaps=(gap(0, 5),))]) == merged


def test_time_that_nobody_listened_is_stated_once() -> None:
    part = merge([part_of(2, 5, gaps=(gap(2, 3),)), part_of(8, 9, life="b")])
    expected = [gap(0, 2, NOT_RUNNING), gap(2, 3), gap(5, 8, NOT_RUNNING), gap(9, 10, NOT_RUNNING)]
    assert missing(part, 0, 10) == missing(merge([part, part]), 0, 10) == expected
    assert sum(one.seconds for one in missing(part, 0, 10)) == 7
    assert missing(merge([part, part_of(4, 10, life="c")]), 0, 10) == expected[:2]


stretches = some.tuples(some.integers(0, WINDOW), some.integers(0, WINDOW)).filter(lambda ends: ends[0] < ends[1])


@given(some.lists(stretches, min_size=1, max_size=6), some.data())
def test_no_row_is_doubled_or_lost_and_what_is_missing_is_stated_whoever_writes_when(
    writers: list[tuple[int, int]], data: some.DataObject
) -> None:
    parts = [part_of(since, until, life=f"{number}") for number, (since, until) in enumerate(writers)]
    whole = merge(parts)
    # Some are merged before they are merged with others, and some twice.
    some_of = some.lists(some.sampled_from(parts), max_size=4)
    stored = merge([merge(data.draw(some_of)), *data.draw(some.permutations(parts)), merge(data.draw(some_of))])
    assert stored == whole
    found = [row.at for row in stored.rows]
    listened = {second for since, until in writers for second in range(since + 1, until + 1)}
    assert found == [at(second) for second in sorted(listened)]
    assert {at(second) for second in range(1, WINDOW + 1)} - set(found) == {
        at(second)
        for second in range(1, WINDOW + 1)
        if any(Span(one.since, one.until).holds(at(second)) for one in missing(stored))
    }
    assert sum(one.seconds for one in missing(stored)) == WINDOW - len(listened)


def test_periods_hold_their_end_and_the_last_may_be_short() -> None:
    periods = Periods(began_at=NOON, ends_at=at(25), length=timedelta(seconds=10))
    assert [periods.span(number) for number in range(periods.count)] == [
        Span(at(0), at(10)),
        Span(at(10), at(20)),
        Span(at(20), at(25)),
    ]
