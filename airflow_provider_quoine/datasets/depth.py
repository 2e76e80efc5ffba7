"""The depth of an order book, read from what a snapshot task has returned: which may be anything."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import accumulate
from typing import Any

from airflow_provider_quoine.exchange.errors import QuoineError
from airflow_provider_quoine.exchange.exact_json import plain_number
from airflow_provider_quoine.exchange.market.messages import EXACT, decode_price_ladder
from airflow_provider_quoine.exchange.market.pairs import Pair
from airflow_provider_quoine.exchange.market.top_of_book import TopOfBook

DEEPEST = 2000
"""Levels of a side that are read at most; the exchange sends 40."""

LONGEST_WORDS = 200
"""Characters of what is said about a wrong value, which may be long."""

AGES = ("bids_age", "asks_age")
COUNTS = ("reconnects", "gap_seconds", "unreadable")


class NoBookError(ValueError):
    """A result is not an order book as a snapshot task returns it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthLevel:
    """
    A level of a side, exact.

    :param total: the quantity of this level and all better ones.
    """

    price: Decimal
    quantity: Decimal
    total: Decimal


@dataclass(frozen=True, kw_only=True)
class Depth:
    """
    An order book with cumulated quantities.

    :param taken_at: aware.
    :param bids: highest price first.
    :param asks: lowest price first.
    :param numbers: what :data:`AGES` (seconds) and :data:`COUNTS` name; None where it is not stated.
    """

    pair: Pair
    taken_at: datetime
    bids: tuple[DepthLevel, ...]
    asks: tuple[DepthLevel, ...]
    stale: bool
    numbers: Mapping[str, float | None]

    @property
    def top(self) -> TopOfBook:
        """Best bid and best ask."""
        return TopOfBook(bid=self.bids[0].price if self.bids else None, ask=self.asks[0].price if self.asks else None)

    def as_chart(self) -> dict[str, Any]:
        """Return what is drawn as JSON-able data, exact: per side ``[price, total]``, and the middle."""
        sides = {
            name: [[plain_number(level.price), plain_number(level.total)] for level in levels]
            for name, levels in (("bids", self.bids), ("asks", self.asks))
        }
        return {**sides, "mid": None if self.top.mid is None else plain_number(self.top.mid)}


def read_depth(result: Any) -> Depth:
    """
    Read an order book as :class:`~airflow_provider_quoine.operators.market_data.QuoineOrderBookSnapshotOperator`
    returns it. What follows from the levels, such as best prices, is not read but computed.

    :raises NoBookError: if it is anything else, saying what is wrong.
    """
    if not isinstance(result, dict):
        raise NoBookError("it is no object with fields")
    try:
        pair, taken_at = Pair(result["pair"]), datetime.fromisoformat(result["taken_at"])
        bids, asks = (_side(result, name) for name in ("bids", "asks"))
        stale = result["stale"]
    except KeyError as error:
        raise NoBookError(f"it has no field {error}") from None
    except (QuoineError, TypeError, ValueError) as error:
        raise NoBookError(str(error)[:LONGEST_WORDS]) from None
    if taken_at.tzinfo is None or not isinstance(stale, bool):
        raise NoBookError("taken_at has no offset, or stale is neither true nor false")
    numbers = {name: _number(result.get(name)) for name in (*AGES, *COUNTS)}
    return Depth(pair=pair, taken_at=taken_at, bids=bids, asks=asks, stale=stale, numbers=numbers)


def _side(result: Mapping[str, Any], name: str) -> tuple[DepthLevel, ...]:
    side = result[name]
    if isinstance(side, list) and len(side) > DEEPEST:
        raise NoBookError(f"{name} has {len(side)} levels, and {DEEPEST} are read at most")
    # The stream's own reader decides what a level is; it refuses NaN, signs and numbers of absurd length.
    levels = sorted(decode_price_ladder(json.dumps(side)), key=lambda level: level.price, reverse=name == "bids")
    totals = accumulate((level.quantity for level in levels), EXACT.add)
    return tuple(
        DepthLevel(price=level.price, quantity=level.quantity, total=Decimal(plain_number(total)))
        for level, total in zip(levels, totals, strict=True)
    )


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) < 1e15 and math.isfinite(value) else None
