"""A generated market: one random walk per pair, from which order books, executions and tickers are made."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from airflow_provider_quoine.sandbox.settings import Clock, NumberForm

# Pair, product id (facts, Streams), initial price, and decimals of a price. The last two are invented.
_PRODUCTS = (
    ("btcusd", 1, "600.00", 2),
    ("btceur", 3, "540.00", 2),
    ("btcjpy", 5, "61000.0", 1),
    ("btcsgd", 7, "820.00", 2),
    ("ethusd", 27, "12.0000", 4),
    ("ethjpy", 29, "1250.00", 2),
    ("ethbtc", 37, "0.020000", 6),
)

_DEPTH = 40  # most rows per side (facts, Streams)


@dataclass(frozen=True)
class MarketChannel:
    """
    One channel of the market.

    :param next_data: takes one step of the random walk and writes the data of the next event
    """

    event: str
    next_data: Callable[[], str]


class _PairMarket:
    """The market of one pair. Prices are kept as whole ticks and written as exact decimals."""

    def __init__(
        self,
        *,
        pair: str,
        product_id: int,
        price: str,
        decimals: int,
        generator: random.Random,
        clock: Clock,
        form: NumberForm,
    ) -> None:
        self._pair = pair
        self._product_id = product_id
        self._decimals = decimals
        self._start = self._mid = int(Decimal(price).scaleb(decimals))
        self._half_spread = max(2, self._start // 4000)
        self._low = self._high = self._last_price = self._start
        self._last_quantity = self._volume = Decimal(0)
        self._execution_ids = itertools.count(90001)
        self._random = generator
        self._clock = clock
        self._form = form

    def _price(self, ticks: int) -> str:
        return format(Decimal(ticks).scaleb(-self._decimals), "f")

    def _json_number(self, text: str) -> str:
        """Write a number as a JSON number or string, without losing a digit."""
        return text if self._form == "number" else f'"{text}"'

    def _quantity(self) -> Decimal:
        # Most orders are small, a few are large.
        return Decimal(10 + int(self._random.expovariate(1 / 800))).scaleb(-3)

    def _step(self) -> None:
        # A pull towards the initial price keeps the walk near it, even after a week.
        pull = (self._start - self._mid) // 500
        swing = self._half_spread // 2 + 1
        self._mid += pull + self._random.randint(-swing, swing)
        self._low, self._high = min(self._low, self._bid), max(self._high, self._ask)

    @property
    def _bid(self) -> int:
        return self._mid - self._half_spread

    @property
    def _ask(self) -> int:
        return self._mid + self._half_spread

    def ladder(self, side: str) -> str:
        """Write one side of the book, best price first: ``[[price, quantity], ...]``, both strings."""
        self._step()
        ticks, away = (self._bid, -1) if side == "buy" else (self._ask, 1)
        rows = []
        for _ in range(_DEPTH):
            rows.append([self._price(ticks), format(self._quantity(), "f")])
            ticks += away * self._random.randint(1, self._half_spread)
        return json.dumps(rows, separators=(",", ":"))

    def execution(self) -> str:
        """Write a trade at the best bid or ask."""
        self._step()
        taker_side = self._random.choice(("buy", "sell"))
        self._last_price = self._ask if taker_side == "buy" else self._bid
        self._last_quantity = self._quantity()
        self._volume += self._last_quantity
        return (
            f'{{"id": {next(self._execution_ids)}, "quantity": {self._json_number(format(self._last_quantity, "f"))}, '
            f'"price": {self._json_number(self._price(self._last_price))}, "taker_side": "{taker_side}", '
            f'"created_at": {int(self._clock())}}}'
        )

    def product(self) -> str:
        """Write the ticker, with the documented keys. Values that are not known yet are null."""
        self._step()
        numbers: dict[str, str | None] = {
            "market_ask": self._price(self._ask),
            "market_bid": self._price(self._bid),
            "low_market_bid": self._price(self._low),
            "high_market_ask": self._price(self._high),
            "last_traded_price": self._price(self._last_price) if self._volume else None,
            "last_traded_quantity": format(self._last_quantity, "f") if self._volume else None,
            "volume_24h": format(self._volume, "f"),
            "last_price_24h": self._price(self._start),
        }
        rest: dict[str, Any] = {
            "id": self._product_id,
            "code": "CASH",
            "currency_pair_code": self._pair.upper(),
            "last_event_timestamp": f"{self._clock():.3f}",
            "pusher_channel": f"product_cash_{self._pair}_{self._product_id}",
        }
        pairs = [f'"{name}": {self._json_number(text) if text else "null"}' for name, text in numbers.items()]
        return "{" + ", ".join([*(f'"{name}": {json.dumps(value)}' for name, value in rest.items()), *pairs]) + "}"


def market_channels(*, seed: int, clock: Clock, form: NumberForm) -> dict[str, MarketChannel]:
    """
    Create the market.

    :return: all channels of api-reference II for the known products, by name
    """
    channels = {}
    for name, product_id, price, decimals in _PRODUCTS:
        generator = random.Random(f"{seed} {name}")  # noqa: S311 - a market, no secret
        pair = _PairMarket(
            pair=name,
            product_id=product_id,
            price=price,
            decimals=decimals,
            generator=generator,
            clock=clock,
            form=form,
        )
        channels[f"price_ladders_cash_{name}_buy"] = MarketChannel("updated", partial(pair.ladder, "buy"))
        channels[f"price_ladders_cash_{name}_sell"] = MarketChannel("updated", partial(pair.ladder, "sell"))
        channels[f"executions_cash_{name}"] = MarketChannel("created", pair.execution)
        channels[f"product_cash_{name}_{product_id}"] = MarketChannel("updated", pair.product)
    return channels
