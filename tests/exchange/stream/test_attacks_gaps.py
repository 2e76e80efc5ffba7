"""Gaps of several kinds at the same time."""

from __future__ import annotations

from airflow_provider_quoine.exchange.clock import Clock
from airflow_provider_quoine.exchange.stream.events import Moment
from airflow_provider_quoine.exchange.stream.gaps import GapBook, Missed


def test_seconds_that_lie_in_two_gaps_count_once() -> None:
    now = 0.0
    gaps = GapBook(Clock(monotonic=lambda: now, wall=lambda: now))
    for now in (10.0, 10.5, 11.0):
        gaps.miss(Missed.DROPPED, Moment(now, now))
        gaps.miss(Missed.UNREADABLE, Moment(now, now))
    gaps.begin(Moment(10.8, 10.8), "lost")
    now = 12.0
    assert gaps.seconds == 2.0
    gaps.end()
    gaps.begin(Moment(20.0, 20.0), "lost")
    now = 21.0
    assert gaps.seconds == 3.0
    assert len(gaps.stated) == 4
