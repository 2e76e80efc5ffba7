"""The depth of an order book, whatever a task has returned."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from airflow_provider_quoine.datasets.depth import DEEPEST, NoBookError, read_depth

BOOK: dict[str, Any] = {
    "pair": "btcjpy",
    "taken_at": "2026-01-02T12:00:00.000300+00:00",
    "bids": [["600.5", "0.1"], ["600", "0.00000001"], ["0.1", "9" * 38]],
    "asks": [["601", "0.2"], ["700.123456789", "2"]],
    "bids_age": 0.02,
    "asks_age": 0.05,
    "stale": False,
    "reconnects": 0,
    "gap_seconds": 0.0,
    "unreadable": 0,
}


def test_quantities_are_cumulated_exactly() -> None:
    chart = json.loads(json.dumps(read_depth(BOOK).as_chart()))
    for side in ("bids", "asks"):
        assert [price for price, _ in chart[side]] == [price for price, _ in BOOK[side]]
        sums = [sum(Fraction(quantity) for _, quantity in BOOK[side][: count + 1]) for count in range(len(BOOK[side]))]
        assert [Fraction(total) for _, total in chart[side]] == sums
    assert chart["mid"] == "600.75"


def test_a_side_in_another_order_is_put_right() -> None:
    turned = BOOK | {side: BOOK[side][::-1] for side in ("bids", "asks")}
    assert read_depth(turned) == read_depth(BOOK)


def test_whether_it_is_crossed_is_computed_and_not_believed() -> None:
    assert read_depth(BOOK | {"crossed": True, "mid": "1", "spread": "<b>"}).top.crossed is False
    top = read_depth(BOOK | {"asks": [["600.25", "1"]], "crossed": False}).top
    assert (top.crossed, top.spread) == (True, Decimal("-0.25"))


@pytest.mark.parametrize("side", ["bids", "asks"])
def test_an_empty_side_has_no_middle(side: str) -> None:
    depth = read_depth(BOOK | {side: []})
    assert (depth.top.mid, depth.as_chart()["mid"], depth.as_chart()[side]) == (None, None, [])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.02", None, True, [], 10**400, -(2**60)])
def test_a_number_that_is_none_is_left_out(value: Any) -> None:
    assert read_depth(BOOK | {"bids_age": value}).numbers == {
        "bids_age": None,
        "asks_age": 0.05,
        "reconnects": 0,
        "gap_seconds": 0.0,
        "unreadable": 0,
    }


NESTED: list[Any] = []
for _ in range(100):
    NESTED = [NESTED]


@pytest.mark.parametrize("value", [None, 5, "bids", [], {}, [BOOK], {"path": "/captures/x_*.jsonl"}])
def test_anything_else_is_no_book(value: Any) -> None:
    with pytest.raises(NoBookError):
        read_depth(value)


@pytest.mark.parametrize(
    "changes",
    [
        {"pair": "../../etc"},
        {"pair": 7},
        {"pair": "-" * 500_000},
        {"pair": "<script>"},
        {"taken_at": "2026-01-02T12:00:00"},
        {"taken_at": "noon"},
        {"taken_at": 5},
        {"stale": "no"},
        {"stale": 0},
        {"bids": None},
        {"bids": "600"},
        {"bids": {"600": "1"}},
        {"bids": [["600"]]},
        {"bids": [["600", "1", "2"]]},
        {"bids": ["60"]},
        {"bids": NESTED},
        {"bids": [[float("nan"), "1"]]},
        {"bids": [[float("inf"), "1"]]},
        {"bids": [["NaN", "1"]]},
        {"bids": [["-1", "1"]]},
        {"bids": [["1e400", "1"]]},
        {"bids": [["1" * 5000, "1"]]},
        {"bids": [["1", "9" * 40]] * 20},
        {"bids": [["<script>", "1"]]},
        {"bids": [[True, "1"]]},
        {"asks": [["1", "1"]] * (DEEPEST + 1)},
    ],
)
def test_what_is_wrong_with_a_book_is_said(changes: dict[str, Any]) -> None:
    with pytest.raises(NoBookError, match=r"\S") as caught:
        read_depth(BOOK | changes)
    assert len(str(caught.value)) <= 200


@pytest.mark.parametrize("field", ["pair", "taken_at", "bids", "asks", "stale"])
def test_a_field_that_is_missing_is_named(field: str) -> None:
    with pytest.raises(NoBookError, match=field):
        read_depth({name: value for name, value in BOOK.items() if name != field})
