"""The times of which a part is made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_quoine.formats.pieces import Gap, Span, disjoint, within

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def at(second: float) -> datetime:
    return NOON + timedelta(seconds=second)


def gap(since: float, until: float, reason: str = "lost") -> Gap:
    return Gap(at(since), at(until), reason)


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


def test_a_gap_is_cut_to_the_periods_it_touches() -> None:
    spans = [Span(at(0), at(10)), Span(at(10), at(20))]
    assert [within([gap(4, 12), gap(10, 10, "b")], span) for span in spans] == [
        [gap(4, 10), gap(10, 10, "b")],
        [gap(10, 12)],
    ]
