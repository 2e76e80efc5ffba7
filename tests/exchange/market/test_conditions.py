"""Conditions: their judgement of one state of the market, and the arguments that are accepted."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.market.conditions import (
    CONDITIONS,
    BookSilent,
    Condition,
    PriceReaches,
    SpreadAbove,
    TradeAbove,
    event_of,
)
from airflow_provider_quoine.exchange.market.market_state import MarketData, MarketState
from airflow_provider_quoine.exchange.market.pairs import Pair
from tests.exchange.market.states import book, state, trade


@pytest.mark.parametrize(
    ("direction", "price", "holds"),
    [
        ("up", "599.9", False),
        ("up", "600", True),
        ("up", "600.1", True),
        ("down", "600.1", False),
        ("down", "600", True),
        ("down", "599.9", True),
    ],
)
def test_a_price_equal_to_the_level_has_reached_it(direction: str, price: str, holds: bool) -> None:
    assert PriceReaches.of(level="600", direction=direction).holds(trade(price)) is holds


@pytest.mark.parametrize(
    ("source", "data", "seen", "price"),
    [
        ("last_trade", MarketData.TRADES, trade("601"), "601"),
        ("best_bid", MarketData.BOOK, book("600", "603"), "600"),
        ("best_ask", MarketData.BOOK, book("600", "603"), "603"),
        ("mid", MarketData.BOOK, book("600", "603"), "601.5"),
        ("best_bid", MarketData.BOOK, book("603", "600"), "603"),
    ],
)
def test_the_price_is_the_chosen_one(source: str, data: MarketData, seen: MarketState, price: str) -> None:
    condition = PriceReaches.of(level="1", price=source)
    assert condition.data == data
    assert condition.values(seen)["price"] == price


@pytest.mark.parametrize(
    ("condition", "seen"),
    [
        (PriceReaches.of(level="1"), state()),
        (PriceReaches.of(level="1", price="best_bid"), book(None, "600")),
        (PriceReaches.of(level="1", price="best_ask"), book("600", None)),
        (PriceReaches.of(level="1", price="mid"), book("600", None)),
        (PriceReaches.of(level="1", price="mid"), book("601", "600")),
        (SpreadAbove.of(bound="1"), book(None, "600")),
        (SpreadAbove.of(bound="1"), book("600", None)),
        (SpreadAbove.of(bound="1"), book("600", "600")),
        (TradeAbove.of(size="1"), state()),
    ],
)
def test_a_state_that_does_not_show_it_is_not_judged(condition: Condition, seen: MarketState) -> None:
    assert condition.holds(seen) is None


@pytest.mark.parametrize(("ask", "holds"), [("602", False), ("602.5", False), ("602.50000001", True)])
def test_a_spread_is_above_a_bound_in_quote_currency(ask: str, holds: bool) -> None:
    assert SpreadAbove.of(bound="2.5").holds(book("600", ask)) is holds


@pytest.mark.parametrize(("quantity", "holds"), [("5", False), ("5.00000001", True)])
def test_a_trade_is_above_a_size(quantity: str, holds: bool) -> None:
    assert TradeAbove.of(size="5.0").holds(trade("600", quantity=quantity)) is holds


@pytest.mark.parametrize(("clock", "holds"), [(60, False), (60.5, True)])
@pytest.mark.parametrize("connected", [True, False])
def test_a_book_is_silent_whatever_the_reason(clock: float, holds: bool, connected: bool) -> None:
    assert BookSilent.of(seconds=60).holds(state(clock, last_heard=0.0, connected=connected)) is holds


def test_an_event_is_plain_json_with_name_time_and_values() -> None:
    at = "2026-01-02T12:00:05+00:00"
    told = {
        condition: event_of(Pair("btcjpy"), condition, seen)
        for condition, seen in (
            (PriceReaches.of(level="600.50"), trade("601", 5)),
            (SpreadAbove.of(bound="2"), book("600", "603.5", 5)),
            (TradeAbove.of(size="0.5"), trade("1E+3", 5, quantity="0.75")),
            (BookSilent.of(seconds=4), state(5, last_heard=0.26, connected=False)),
        )
    }
    assert json.loads(json.dumps(list(told.values()), allow_nan=False)) == [
        {
            "event": "price_crossed",
            "pair": "btcjpy",
            "at": at,
            "price": "601",
            "source": "last_trade",
            "level": "600.5",
            "direction": "up",
        },
        {
            "event": "spread_above",
            "pair": "btcjpy",
            "at": at,
            "spread": "3.5",
            "best_bid": "600",
            "best_ask": "603.5",
            "bound": "2",
        },
        {
            "event": "trade_above",
            "pair": "btcjpy",
            "at": at,
            "trade": {
                "id": "90001",
                "price": "1000",
                "quantity": "0.75",
                "taker_side": "sell",
                "created_at": "2026-01-02T12:00:00+00:00",
            },
            "size": "0.5",
        },
        {
            "event": "book_silent",
            "pair": "btcjpy",
            "at": at,
            "silent_seconds": 4.7,
            "seconds": 4.0,
            "connected": False,
        },
    ]


AMOUNT = st.decimals(min_value="0.00000001", max_value="1e30", places=8).map(lambda number: format(number, "f"))


@given(st.one_of(st.builds(PriceReaches.of, level=AMOUNT), st.builds(SpreadAbove.of, bound=AMOUNT)))
def test_a_condition_is_made_again_from_its_arguments(condition: Condition) -> None:
    arguments = json.loads(json.dumps(condition.arguments()))
    again = CONDITIONS[condition.name](**arguments)
    assert again == condition
    assert again.arguments() == arguments


@given(AMOUNT, st.integers(0, 5))
def test_equal_numbers_make_equal_conditions(level: str, zeros: int) -> None:
    other = f"0{level}{'0' * zeros}"
    assert PriceReaches.of(level=other) == PriceReaches.of(level=level)
    assert PriceReaches.of(level=other).level == Decimal(level)


@pytest.mark.parametrize(
    "number", [600, 600.5, Decimal(600), "", "0", "0.00", "-1", "+1", "1e3", "1,000", " 1", "٣", "NaN", None, "9" * 41]
)
@pytest.mark.parametrize(
    ("kind", "name"), [(PriceReaches, "level"), (SpreadAbove, "bound"), (TradeAbove, "size")], ids=lambda one: str(one)
)
def test_an_inexact_or_wrong_number_is_refused_by_name(kind: Any, name: str, number: Any) -> None:
    with pytest.raises(QuoineInputError, match=f"^{name} is .*plain digits"):
        kind.of(**{name: number})


@pytest.mark.parametrize("seconds", [0, 0.5, -1, True, "60", None, float("nan"), float("inf")])
def test_a_wrong_number_of_seconds_is_refused(seconds: Any) -> None:
    with pytest.raises(QuoineInputError, match=r"^seconds is .*1 or more"):
        BookSilent.of(seconds=seconds)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"direction": "UP"}, "^direction is 'UP': give one of 'up', 'down', 'either'"),
        ({"direction": None}, "^direction is None"),
        ({"price": "last"}, "^price is 'last': give one of 'last_trade', 'best_bid', 'best_ask', 'mid'"),
        ({"price": ["mid"]}, "^price is"),
    ],
)
def test_an_unknown_choice_is_refused_with_the_known_ones(given: dict[str, Any], words: str) -> None:
    with pytest.raises(QuoineInputError, match=words):
        PriceReaches.of(level="600", **given)
