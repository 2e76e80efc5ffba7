"""Views of a market for the tests of conditions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from airflow_provider_quoine.exchange.market.conditions import MarketView
from airflow_provider_quoine.exchange.market.messages import Execution, Side

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def view(clock: float = 0.0, *, unbroken: int = 1, **known: Any) -> MarketView:
    """A view some seconds after noon, of a feed that has just been heard."""
    at = NOON + timedelta(seconds=clock)
    return MarketView(**{"at": at, "clock": clock, "unbroken": unbroken, "heard": clock, **known})


def trade(price: str, clock: float = 0.0, *, quantity: str = "1", **known: Any) -> MarketView:
    """The moment of a trade."""
    made = Execution(
        id="90001", price=Decimal(price), quantity=Decimal(quantity), taker_side=Side.SELL, created_at=NOON
    )
    return view(clock, trade=made, **known)


def book(bid: str | None, ask: str | None, clock: float = 0.0, **known: Any) -> MarketView:
    """A book's best prices."""
    best_bid, best_ask = (None if price is None else Decimal(price) for price in (bid, ask))
    return view(clock, best_bid=best_bid, best_ask=best_ask, **known)
