"""The state of a pair's market at one moment. Conditions are judged by it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from airflow_provider_quoine.exchange.market.messages import Execution
from airflow_provider_quoine.exchange.market.top_of_book import TopOfBook


class MarketData(StrEnum):
    """The kind of data that a state is made from."""

    BOOK = "book"
    TRADES = "trades"


class PriceSource(StrEnum):
    """The kinds of price that a state has."""

    LAST_TRADE = "last_trade"
    BEST_BID = "best_bid"
    BEST_ASK = "best_ask"
    MID = "mid"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketState:
    """
    All that is known of a pair's market at one moment.

    :param at: the moment, UTC.
    :param monotonic: the moment in seconds of the monotonic clock.
    :param epoch: equal in two states if no data can have been missed between them.
    :param last_heard: on the monotonic clock, when data last came, or when listening began.
    :param connected: whether data could come.
    :param top: best prices of the book; a side that has not come by this connection yet is None.
    :param trade: the trade that just came.
    :param missed_trades: trades since the state before that were dropped from a full queue or could not be read.
    """

    at: datetime
    monotonic: float
    epoch: Hashable
    last_heard: float
    connected: bool = True
    top: TopOfBook = field(default_factory=TopOfBook)
    trade: Execution | None = None
    missed_trades: int = 0

    @property
    def heard_at(self) -> datetime:
        """When data last came, UTC."""
        silence = self.monotonic - self.last_heard
        return self.at - timedelta(seconds=silence) if silence else self.at

    @property
    def spread(self) -> Decimal | None:
        """
        Spread in quote currency; None if a side is missing or the book is crossed.

        One side of a crossed book is still on its way, so its spread is no event.
        """
        return None if self.top.crossed else self.top.spread

    def price(self, source: PriceSource) -> Decimal | None:
        """Return a price in quote currency; None if it is not known. A crossed book has no mid price."""
        match source:
            case PriceSource.LAST_TRADE:
                return self.trade.price if self.trade else None
            case PriceSource.BEST_BID:
                return self.top.bid
            case PriceSource.BEST_ASK:
                return self.top.ask
            case PriceSource.MID:
                return None if self.top.crossed else self.top.mid
