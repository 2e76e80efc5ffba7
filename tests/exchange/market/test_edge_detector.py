"""The edge detector: one event each time a condition becomes true, none if it may have been true before."""

from __future__ import annotations

import json
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
from airflow_provider_quoine.exchange.market.watcher_memory import WatcherMemory
from tests.exchange.market.states import book, state, trade


def events(condition: Condition, states: Sequence[MarketState], *, cooldown: float = 0) -> list[tuple[int, Any]]:
    """Return the events, each with the index of the state that made it."""
    detector = EdgeDetector(pair=Pair("btcjpy"), condition=condition, cooldown=cooldown, source="it")
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
        ("either", ["599", "600", "599", "600", "599"], [(1, "up"), (2, "down"), (3, "up"), (4, "down")]),
        ("either", ["601", "600", "601", "600", "601"], [(1, "down"), (2, "up"), (3, "down"), (4, "up")]),
        ("either", ["600", "601", "600"], [(2, "down")]),
        ("either", ["600", "599", "600"], [(2, "up")]),
        ("either", ["600", "600"], []),
    ],
)
def test_a_crossing_is_one_event_with_its_direction(
    direction: str, path: list[str], crossed: list[tuple[int, str]]
) -> None:
    told = events(PriceReaches.of(level="600", direction=direction), prices(*path))
    assert [(index, event["direction"]) for index, event in told] == crossed


UNKNOWN = ("seen_after_gap", "unknown_since", "unknown_until")


def test_a_crossing_in_a_gap_is_told_after_it_with_the_time_that_is_not_known() -> None:
    states = [trade("599", 1), trade("601", 5, epoch=2), trade("599", 6, epoch=2), trade("601", 7, epoch=2)]
    told = events(PriceReaches.of(level="600"), states)
    assert [(index, *(event[name] for name in UNKNOWN)) for index, event in told] == [
        (1, True, "2026-01-02T12:00:01+00:00", "2026-01-02T12:00:05+00:00"),
        (3, False, None, None),
    ]


@pytest.mark.parametrize("direction", ["up", "down", "either"])
def test_the_next_event_says_in_which_time_something_may_have_happened_unseen(direction: str) -> None:
    path = [("599", 1, 1), ("598", 3, 2), ("599", 5, 2), ("599", 9, 3), ("601", 10, 3), ("599", 11, 3), ("601", 12, 3)]
    states = [trade(price, clock, epoch=epoch) for price, clock, epoch in path]
    first, *rest = [event for _, event in events(PriceReaches.of(level="600", direction=direction), states)]
    unknown = (False, "2026-01-02T12:00:01+00:00", "2026-01-02T12:00:09+00:00")
    assert tuple(first[name] for name in UNKNOWN) == unknown
    assert all(tuple(event[name] for name in UNKNOWN) == (False, None, None) for event in rest)


def test_a_crossing_beside_lost_trades_may_have_been_one_of_them() -> None:
    states = [trade("599", 1), trade("601", 5, missed_trades=2)]
    ((_, event),) = events(PriceReaches.of(level="600"), states)
    assert [event[name] for name in (*UNKNOWN, "missed_trades")] == [
        *(True, "2026-01-02T12:00:01+00:00", "2026-01-02T12:00:05+00:00", 2)
    ]


def test_a_large_trade_is_itself_never_of_a_gap_but_says_what_may_be_missing() -> None:
    states = [trade("1", 1, quantity="1"), trade("1", 5, quantity="9", epoch=2)]
    ((_, event),) = events(TradeAbove.of(size="5"), states)
    assert [event[name] for name in UNKNOWN] == [False, "2026-01-02T12:00:01+00:00", "2026-01-02T12:00:05+00:00"]


def test_each_direction_has_a_cooldown_of_its_own() -> None:
    states = [trade(price, clock) for price, clock in (("1", 0), ("9", 1), ("1", 2), ("9", 3), ("1", 12), ("9", 13))]
    told = events(PriceReaches.of(level="5", direction="either"), states, cooldown=10)
    assert [(index, event["direction"], event["suppressed"]) for index, event in told] == [
        (1, "up", 0),
        (2, "down", 0),
        (4, "down", 1),
        (5, "up", 0),
    ]


def ids(condition: Condition, states: Sequence[MarketState], **given: Any) -> list[str]:
    return [event["event_id"] for _, event in events(condition, states, **given)]


def test_an_event_has_the_id_of_what_happened_whoever_sees_it() -> None:
    condition = PriceReaches.of(level="600.50", direction="either")
    seen = [trade("599", 1), trade("600.5", 2, id_="90002"), trade("599", 3, id_="90003")]
    later = [trade("598", 1.5), trade("600.5", 2.2, id_="90002", epoch=7), trade("599", 3.3, id_="90003", epoch=7)]
    expected = [f"it/price_crossed/btcjpy/600.5/{way}" for way in ("up/last_trade/90002", "down/last_trade/90003")]
    assert ids(condition, seen) == ids(condition, later) == expected
    assert ids(TradeAbove.of(size="5"), [trade("1", quantity="9")]) == ["it/trade_above/btcjpy/5/90001"]


def test_an_event_of_the_book_has_the_id_of_its_moment() -> None:
    spread, price = SpreadAbove.of(bound="5"), PriceReaches.of(level="600", price="best_bid")
    states = [book("599", "600", 11), book("601", "609", 14.2), book("599", "600", 15), book("601", "609", 16)]
    other = [book("599", "600", 11), book("601", "609", 14.3), book("599", "600", 15.1), book("601", "609", 16.05)]
    moment = "2026-01-02T12:00:10+00:00"
    expected = [f"it/spread_above/btcjpy/5/{moment}", f"it/spread_above/btcjpy/5/{moment}#2"]
    assert ids(spread, states) == ids(spread, other) == expected
    assert ids(price, states)[0] == f"it/price_crossed/btcjpy/600/up/best_bid/{moment}"


def test_a_silence_has_the_id_of_the_moment_when_something_was_heard_last() -> None:
    silences = [[state(0), state(19), state(80 + late, last_heard=19)] for late in (0, 0.9)]
    silent = BookSilent.of(seconds=60)
    assert [ids(silent, each) for each in silences] == [["it/book_silent/btcjpy/60.0/2026-01-02T12:00:10+00:00"]] * 2


def restarted(detector: EdgeDetector) -> EdgeDetector:
    """Return the detector of the watcher that goes on with what this one has stored."""
    memory = WatcherMemory.of(json.loads(json.dumps(detector.memory.as_json())))
    return EdgeDetector(pair=detector.pair, condition=detector.condition, cooldown=10, source="it", memory=memory)


def new_detector(condition: Condition) -> EdgeDetector:
    return EdgeDetector(pair=Pair("btcjpy"), condition=condition, cooldown=10, source="it")


@pytest.mark.parametrize(("price", "told"), [("601", True), ("599", False)])
def test_after_a_restart_a_crossing_is_told_late(price: str, told: bool) -> None:
    first = new_detector(PriceReaches.of(level="600"))
    assert first.observe(trade("599", 1)) is None
    event = restarted(first).observe(trade(price, 500))
    assert bool(event) is told
    if event:
        assert event["seen_after_gap"]
        assert event["unknown_since"] == "2026-01-02T12:00:01+00:00"


def test_after_a_restart_neither_an_event_nor_a_cooldown_comes_again() -> None:
    first = new_detector(PriceReaches.of(level="600"))
    assert first.observe(trade("599", 1)) is None
    assert first.observe(trade("601", 2))
    second = restarted(first)
    assert [second.observe(trade(price, clock)) for price, clock in (("602", 3), ("599", 4), ("601", 5))] == [None] * 3
    third = restarted(second)
    assert third.observe(trade("599", 12)) is None
    event = third.observe(trade("601", 13))
    assert event
    assert event["suppressed"] == 1


def test_after_a_restart_a_silence_that_was_told_is_no_new_one() -> None:
    first = new_detector(BookSilent.of(seconds=60))
    assert [bool(first.observe(state(clock, last_heard=0))) for clock in (0, 61, 70)] == [False, True, False]
    second = restarted(first)
    assert [second.observe(state(clock, last_heard=99)) for clock in (100, 161, 200)] == [None] * 3
    assert second.observe(state(201)) is None
    assert second.observe(state(262, last_heard=201))


def test_a_clock_that_jumps_back_ends_a_cooldown() -> None:
    detector = new_detector(TradeAbove.of(size="5"))
    assert [bool(detector.observe(trade("1", clock, quantity="9"))) for clock in (3600, 3605, 0)] == [True, False, True]


@pytest.mark.parametrize(
    "stored",
    [
        *("", [], 5, {}, {"version": 0}),
        {**WatcherMemory().as_json(), "position": "beside"},
        {**WatcherMemory().as_json(), "as_of": "noon"},
        {**WatcherMemory().as_json(), "told": [1]},
        {**WatcherMemory().as_json(), "last": {"up": None}},
    ],
)
def test_a_memory_of_another_form_is_refused(stored: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        WatcherMemory.of(stored)


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


@given(st.lists(st.tuples(PRICE, st.integers(1, 3))), st.sampled_from(["up", "down"]))
def test_crossings_are_between_neighbouring_prices_and_say_whether_a_gap_is_between_them(
    path: list[tuple[int, int]], direction: str
) -> None:
    path.sort(key=lambda step: step[1])
    crossed = [
        (index, way, line != line_before)
        for index, ((before, line_before), (now, line)) in enumerate(pairwise(path), start=1)
        for way, crosses in (("up", before < 3 <= now), ("down", before > 3 >= now))
        if direction == way and crosses
    ]
    told = events(
        PriceReaches.of(level="3", direction=direction), [trade(str(price), epoch=line) for price, line in path]
    )
    assert [(index, event["direction"]) for index, event in told] == [(index, way) for index, way, _ in crossed]
    assert [event["seen_after_gap"] for _, event in told] == [after_gap for *_, after_gap in crossed]


@given(st.lists(PRICE))
def test_of_a_level_watched_both_ways_every_move_to_it_and_from_it_back_is_told(path: list[int]) -> None:
    """The oracle says for each move which way it went, and leaves out what only goes on."""
    expected: list[tuple[int, str]] = []
    last = ""
    for index, (before, now) in enumerate(pairwise(path), start=1):
        if before == now or (before - 3) * (now - 3) > 0:
            continue
        way = "up" if now > before else "down"
        if way != last and (last or before != 3):
            expected.append((index, way))
        last = way
    told = events(PriceReaches.of(level="3", direction="either"), [trade(str(price)) for price in path])
    assert [(index, event["direction"]) for index, event in told] == expected


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
