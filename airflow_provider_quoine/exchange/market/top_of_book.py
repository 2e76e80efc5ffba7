"""The best prices of an order book, and the one definition of its spread, its mid price and of being crossed."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from airflow_provider_quoine.exchange.market.messages import EXACT


@dataclass(frozen=True, slots=True, kw_only=True)
class TopOfBook:
    """
    The best bid and the best ask.

    :param bid: highest price offered for, in quote currency; None if the side is empty or not known.
    :param ask: lowest price asked, in quote currency; None if the side is empty or not known.
    """

    bid: Decimal | None = None
    ask: Decimal | None = None

    @property
    def spread(self) -> Decimal | None:
        """Best ask minus best bid, exact; negative in a crossed book, None if a side is missing."""
        if self.bid is None or self.ask is None:
            return None
        return EXACT.subtract(self.ask, self.bid)

    @property
    def mid(self) -> Decimal | None:
        """Exact middle of best bid and best ask; None if a side is missing."""
        if self.bid is None or self.ask is None:
            return None
        return EXACT.divide(EXACT.add(self.bid, self.ask), Decimal(2))

    @property
    def crossed(self) -> bool | None:
        """
        Whether the best bid is at or above the best ask; None if a side is missing.

        It happens for a moment, because the sides come as separate events (facts, Streams).
        """
        if self.bid is None or self.ask is None:
            return None
        return self.bid >= self.ask
