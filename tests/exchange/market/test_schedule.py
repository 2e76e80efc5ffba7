"""When snapshots are due."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_quoine.exchange.clock import Clock
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.market.schedule import Schedule, moment

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def schedule_of(**given: Any) -> Schedule:
    return Schedule.of(**{"began_at": NOON, "interval": None, "count": None, "duration": None, **given})


@pytest.mark.parametrize(
    ("given", "interval", "count"),
    [
        ({"interval": 10}, 10, None),
        ({"interval": 0.1, "count": 3}, 0.1, 3),
        ({"interval": 0.1, "duration": 0.3}, 0.1, 3),
        ({"interval": 7, "duration": 20}, 7, 2),
        ({"count": 4, "duration": 60}, 15, 4),
    ],
)
def test_two_of_interval_count_and_duration_give_the_third(
    given: dict[str, Any], interval: float, count: int | None
) -> None:
    schedule = schedule_of(**given)
    assert (schedule.interval.total_seconds(), schedule.count) == (interval, count)
    assert schedule.ends_at == (count and NOON + timedelta(seconds=interval) * count)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "Give an interval"),
        ({"count": 3}, "Give an interval"),
        ({"duration": 3}, "Give an interval"),
        ({"interval": 1, "count": 3, "duration": 3}, "give two"),
        ({"interval": 4, "duration": 3}, "shorter than the interval"),
        ({"interval": 0}, "interval is 0"),
        ({"interval": "1"}, "interval is '1'"),
        ({"interval": True}, "interval is True"),
        ({"interval": math.nan}, "interval is nan"),
        ({"interval": math.inf}, "interval is inf"),
        ({"interval": 1e-7}, "interval is 1e-07: give a microsecond or more"),
        ({"interval": 1e-3}, "Snapshots every 0.001 s: give 0.01 s or more"),
        ({"count": 10**9, "duration": 60}, "give 0.01 s or more"),
        ({"interval": 1, "count": 0}, "count is 0"),
        ({"interval": 1, "count": 1.5}, "count is 1.5"),
        ({"interval": 60, "count": 10**30}, "more than a year"),
        ({"interval": 1, "duration": 1e12}, "no more than a year"),
    ],
)
def test_what_makes_no_schedule_is_refused_in_words(given: dict[str, Any], words: str) -> None:
    with pytest.raises(QuoineInputError, match=words):
        schedule_of(**given)


@pytest.mark.parametrize(("after", "number"), [(-5, 1), (0, 1), (0.5, 1), (1, 2), (1.999999, 2), (10, 11)])
def test_the_next_moment_is_the_first_one_after_now_whoever_asks_and_whenever(after: float, number: int) -> None:
    schedule = schedule_of(interval=1, count=3)
    assert schedule.next_after(NOON + timedelta(seconds=after)) == number


def test_what_falls_due_while_the_caller_is_busy_is_left_out_and_told() -> None:
    missed: list[tuple[datetime, datetime]] = []
    schedule = schedule_of(interval=1, count=40)
    seconds = 0.0
    clock = Clock(wall=lambda: schedule.began_at.timestamp() + seconds, monotonic=lambda: seconds)
    moments = schedule.moments(
        schedule.began_at, on_missed=lambda first, last: missed.append((first, last)), clock=clock
    )
    assert next(moments) == schedule.due_at(1)
    seconds = 1.5
    assert next(moments) == schedule.due_at(2)
    assert missed == []
    seconds = 20.5
    assert next(moments) == schedule.due_at(21)
    assert missed == [(schedule.due_at(3), schedule.due_at(20))]
    seconds = 41.0
    assert list(moments) == []
    assert missed[1:] == [(schedule.due_at(22), schedule.due_at(40))]


def test_moments_do_not_drift() -> None:
    assert schedule_of(interval=0.1).due_at(36_000) == NOON + timedelta(hours=1)


@pytest.mark.parametrize("text", ["2026-01-02T12:00:00+00:00", "2026-01-02T21:00:00+09:00", "2026-01-02T12:00:00Z"])
def test_a_moment_is_read_as_utc(text: str) -> None:
    assert moment(text) == NOON
    assert moment(text).tzinfo is UTC


@pytest.mark.parametrize("text", ["2026-01-02T12:00:00", "noon", "", None, 5])
def test_a_moment_without_offset_is_refused(text: Any) -> None:
    with pytest.raises(QuoineInputError, match="began_at"):
        moment(text)
