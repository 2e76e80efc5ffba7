"""States of a market for the tests of conditions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from airflow_provider_quoine.exchange.market.market_state import MarketState
from airflow_provider_quoine.exchange.market.messages import Execution, Side
from airflow_provider_quoine.exchange.market.top_of_book import TopOfBook

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def state(clock: float = 0.0, *, epoch: int = 1, **known: Any) -> MarketState:
    """Return the state some seconds after noon, with data that has just come."""
    at = NOON + timedelta(seconds=clock)
    return MarketState(**{"at": at, "monotonic": clock, "epoch": epoch, "last_heard": clock, **known})


def trade(price: str, clock: float = 0.0, *, quantity: str = "1", id_: str = "90001", **known: Any) -> MarketState:
    """Return the state of a trade."""
    made = Execution(id=id_, price=Decimal(price), quantity=Decimal(quantity), taker_side=Side.SELL, created_at=NOON)
    return state(clock, trade=made, **known)


def book(bid: str | None, ask: str | None, clock: float = 0.0, **known: Any) -> MarketState:
    """Return the state of a book with these best prices."""
    best_bid, best_ask = (None if price is None else Decimal(price) for price in (bid, ask))
    return state(clock, top=TopOfBook(bid=best_bid, ask=best_ask), **known)
