"""The edge detector: one event each time a condition becomes true, none if it may have been true before."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quoine.exchange.market.conditions import (
    BookSilent,
    Condition,
    PriceReaches,
    SpreadAbove,
    TradeAbove,
)
from airflow_provider_quoine.exchange.market.edge_detector import EdgeDetector
from airflow_provider_quoine.exchange.market.market_state import MarketState
from airflow_provider_quoine.exchange.market.pairs import Pair
from tests.exchange.market.states import book, state, trade


def events(condition: Condition, states: Sequence[MarketState], *, cooldown: float = 0) -> list[tuple[int, Any]]:
    """Return the events, each with the index of the state that made it."""
    detector = EdgeDetector(pair=Pair("btcjpy"), condition=condition, cooldown=cooldown)
    told = [(index, detector.observe(each)) for index, each in enumerate(states)]
    return [(index, event) for index, event in told if event is not None]


def prices(*each: str) -> list[MarketState]:
    return [trade(price) for price in each]


@pytest.mark.parametrize(
    ("direction", "path", "crossed"),
    [
        ("up", ["599", "600"], [(1, "up")]),
        ("up", ["599", "601", "602", "600"], [(1, "up")]),
        ("up", ["599", "601", "599", "601"], [(1, "up"), (3, "up")]),
        ("up", ["601", "602"], []),
        ("up", ["601", "599"], []),
        ("down", ["601", "600"], [(1, "down")]),
        ("down", ["599", "601", "599"], [(2, "down")]),
        ("down", ["599", "598"], []),
        ("either", ["599", "601", "599"], [(1, "up"), (2, "down")]),
        ("either", ["599", "600", "601", "600", "599"], [(1, "up"), (3, "down")]),
        ("either", ["599", "600", "599"], [(1, "up")]),
        ("either", ["600", "601", "600"], [(2, "down")]),
        ("either", ["600", "600"], []),
    ],
)
def test_a_crossing_is_one_event_with_its_direction(
    direction: str, path: list[str], crossed: list[tuple[int, str]]
) -> None:
    told = events(PriceReaches.of(level="600", direction=direction), prices(*path))
    assert [(index, event["direction"]) for index, event in told] == crossed


def test_after_a_gap_the_state_before_is_not_known() -> None:
    states = [trade("599"), trade("601", epoch=2), trade("599", epoch=2), trade("601", epoch=2)]
    assert [index for index, _ in events(PriceReaches.of(level="600"), states)] == [3]


def test_a_missing_side_does_not_arm_again() -> None:
    states = [book("590", "600"), book("590", "610"), book(None, "610"), book("610", "600"), book("590", "610")]
    assert [index for index, _ in events(SpreadAbove.of(bound="15"), states)] == [1]


def test_each_large_trade_is_an_event_also_the_first() -> None:
    states = [trade("1", quantity=size) for size in ("9", "9", "1", "9")]
    assert [index for index, _ in events(TradeAbove.of(size="5"), states)] == [0, 1, 3]


def test_each_silence_is_one_event() -> None:
    heard = [0, 0, 0, 0, 63, 63, 63]
    states = [state(clock, last_heard=heard[index]) for index, clock in enumerate([0, 59, 61, 62, 63, 122, 124])]
    assert [index for index, _ in events(BookSilent.of(seconds=60), states)] == [2, 6]


def test_a_silence_goes_on_through_a_lost_connection() -> None:
    states = [state(0), state(59, last_heard=0), state(61, last_heard=0, epoch=2), state(70, last_heard=0, epoch=3)]
    assert [index for index, _ in events(BookSilent.of(seconds=60), states)] == [2]


def test_a_watcher_measures_a_silence_from_its_own_start() -> None:
    states = [state(1000, last_heard=0), state(1059, last_heard=0), state(1061, last_heard=0)]
    ((index, event),) = events(BookSilent.of(seconds=60), states)
    assert (index, event["silent_seconds"]) == (2, 61.0)


def test_the_cooldown_counts_the_events_that_it_suppresses() -> None:
    states = [trade("1", clock, quantity="9") for clock in (0, 1, 9, 10, 11, 30)]
    told = events(TradeAbove.of(size="5"), states, cooldown=10)
    assert [(index, event["suppressed"]) for index, event in told] == [(0, 0), (3, 2), (5, 1)]


def test_an_edge_within_the_cooldown_makes_no_later_event() -> None:
    states = [trade(price, clock) for price, clock in (("1", 0), ("9", 1), ("1", 2), ("9", 3), ("9", 20))]
    assert [index for index, _ in events(PriceReaches.of(level="5"), states, cooldown=10)] == [1]


def test_the_next_event_counts_the_lost_trades() -> None:
    states = [
        trade("1", missed_trades=2),
        trade("1", missed_trades=1),
        trade("9"),
        trade("1"),
        trade("9", missed_trades=4),
    ]
    told = events(PriceReaches.of(level="5"), states)
    assert [(index, event["missed_trades"]) for index, event in told] == [(2, 3), (4, 4)]


PRICE = st.integers(1, 5)


@given(st.lists(st.tuples(PRICE, st.integers(1, 3))), st.sampled_from(["up", "down", "either"]))
def test_crossings_are_between_neighbouring_prices_without_a_gap(path: list[tuple[int, int]], direction: str) -> None:
    path.sort(key=lambda step: step[1])
    crossed = [
        (index, way)
        for index, ((before, line_before), (now, line)) in enumerate(pairwise(path), start=1)
        for way, crosses in (("up", before < 3 <= now), ("down", before > 3 >= now))
        if line == line_before and direction in (way, "either") and crosses
    ]
    told = events(
        PriceReaches.of(level="3", direction=direction), [trade(str(price), epoch=line) for price, line in path]
    )
    assert [(index, event["direction"]) for index, event in told] == crossed


@given(st.lists(st.one_of(st.none(), st.integers(1, 5))), st.lists(st.integers(0, 4)), st.integers(0, 10))
def test_spread_events_equal_those_of_a_plain_loop(spreads: list[int | None], pauses: list[int], cooldown: int) -> None:
    """The oracle keeps what was known last, and the time of the last event."""
    clock, states, expected = 0, [], []
    wide: bool | None = None
    last = -100
    for index, (spread, pause) in enumerate(zip(spreads, pauses, strict=False)):
        clock += pause
        states.append(book("100", None if spread is None else str(100 + spread), clock))
        if spread is None:
            continue
        if spread > 3 and wide is False and clock - last >= cooldown:
            expected.append(index)
            last = clock
        wide = spread > 3
    assert [index for index, _ in events(SpreadAbove.of(bound="3"), states, cooldown=cooldown)] == expected
