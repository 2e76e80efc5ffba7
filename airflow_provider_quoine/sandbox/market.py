"""A believable market: a random walk per pair, and the three streams that follow from it."""

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

# Pair, product id (facts, Streams), where the price begins, and the price's decimals: the last two are invented.
_PRODUCTS = (
    ("btcusd", 1, "600.00", 2),
    ("btceur", 3, "540.00", 2),
    ("btcjpy", 5, "61000.0", 1),
    ("btcsgd", 7, "820.00", 2),
    ("ethusd", 27, "12.0000", 4),
    ("ethjpy", 29, "1250.00", 2),
    ("ethbtc", 37, "0.020000", 6),
)

_DEPTH = 40  # rows of a side at most (facts, Streams)


@dataclass(frozen=True)
class Channel:
    """
    One channel of the market.

    :param event: the name of its events
    :param make: moves the market and writes the next event's data
    """

    event: str
    make: Callable[[], str]


class _Pair:
    """
    One pair's market; prices are whole ticks inside, and exact decimals outside.

    :param pair: such as ``btcusd``
    :param product_id: its product's number
    :param price: where it begins
    :param decimals: of a price
    :param numbers: makes the walk; never used for a secret
    :param clock: Unix seconds
    :param form: whether executions and products carry JSON numbers or strings
    """

    def __init__(
        self,
        *,
        pair: str,
        product_id: int,
        price: str,
        decimals: int,
        numbers: random.Random,
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
        self._numbers = numbers
        self._clock = clock
        self._form = form

    def _price(self, ticks: int) -> str:
        return format(Decimal(ticks).scaleb(-self._decimals), "f")

    def _money(self, text: str) -> str:
        """Write a number as JSON, in the form that is set, digit by digit."""
        return text if self._form == "number" else f'"{text}"'

    def _quantity(self) -> Decimal:
        # Most orders are small, a few are large.
        return Decimal(10 + int(self._numbers.expovariate(1 / 800))).scaleb(-3)

    def _step(self) -> None:
        # The walk is drawn back to where it began, so that a sandbox of a week still shows a price.
        pull = (self._start - self._mid) // 500
        swing = self._half_spread // 2 + 1
        self._mid += pull + self._numbers.randint(-swing, swing)
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
            ticks += away * self._numbers.randint(1, self._half_spread)
        return json.dumps(rows, separators=(",", ":"))

    def execution(self) -> str:
        """Write a trade at the touch."""
        self._step()
        taker_side = self._numbers.choice(("buy", "sell"))
        self._last_price = self._ask if taker_side == "buy" else self._bid
        self._last_quantity = self._quantity()
        self._volume += self._last_quantity
        return (
            f'{{"id": {next(self._execution_ids)}, "quantity": {self._money(format(self._last_quantity, "f"))}, '
            f'"price": {self._money(self._price(self._last_price))}, "taker_side": "{taker_side}", '
            f'"created_at": {int(self._clock())}}}'
        )

    def product(self) -> str:
        """Write the ticker; what is not known yet is null, and keys are those on record."""
        self._step()
        money: dict[str, str | None] = {
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
        pairs = [f'"{name}": {self._money(text) if text else "null"}' for name, text in money.items()]
        return "{" + ", ".join([*(f'"{name}": {json.dumps(value)}' for name, value in rest.items()), *pairs]) + "}"


def market_channels(*, seed: int, clock: Clock, form: NumberForm) -> dict[str, Channel]:
    """
    Open the market.

    :param seed: of the random walks
    :param clock: Unix seconds
    :param form: whether executions and products carry JSON numbers or strings (facts, Streams)
    :return: every channel of api-reference II for the products on record, by name
    """
    channels = {}
    for name, product_id, price, decimals in _PRODUCTS:
        numbers = random.Random(f"{seed} {name}")  # noqa: S311 - a market, no secret
        pair = _Pair(
            pair=name,
            product_id=product_id,
            price=price,
            decimals=decimals,
            numbers=numbers,
            clock=clock,
            form=form,
        )
        channels[f"price_ladders_cash_{name}_buy"] = Channel("updated", partial(pair.ladder, "buy"))
        channels[f"price_ladders_cash_{name}_sell"] = Channel("updated", partial(pair.ladder, "sell"))
        channels[f"executions_cash_{name}"] = Channel("created", pair.execution)
        channels[f"product_cash_{name}_{product_id}"] = Channel("updated", pair.product)
    return channels
