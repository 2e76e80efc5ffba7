"""Gaps of several kinds at the same time."""

from __future__ import annotations

from airflow_provider_quoine.exchange.clock import Clock
from airflow_provider_quoine.exchange.stream.events import Moment
from airflow_provider_quoine.exchange.stream.gaps import GapBook, Missed


def test_seconds_that_lie_in_two_gaps_count_once() -> None:
    now = 0.0
    gaps = GapBook(Clock(monotonic=lambda: now, wall=lambda: now))
    gaps.end()
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


def test_messages_that_turn_out_unreadable_late_do_not_cut_the_gap_of_those_that_come_now() -> None:
    gaps = GapBook(Clock(monotonic=lambda: 20.0, wall=lambda: 20.0))
    for number in range(100):
        # One is found by the thread that receives, the other in the queue of a reader that lags by five seconds.
        for second in (10.0, 5.0):
            at = second + number / 1_000
            gaps.miss(Missed.UNREADABLE, Moment(at, at))
    assert [(gap.began, gap.ended) for gap in gaps.stated] == [(10.0, 10.099), (5.0, 5.099)]
