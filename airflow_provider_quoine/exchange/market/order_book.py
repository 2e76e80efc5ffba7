"""An order book, assembled from the events of its two sides and parsed only when a snapshot is due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.exact_json import plain_number
from airflow_provider_quoine.exchange.market.channels import PRICE_LADDERS, price_ladder_channel
from airflow_provider_quoine.exchange.market.messages import PriceLevel, Side, decode_price_ladder, plain_json
from airflow_provider_quoine.exchange.market.pairs import Pair
from airflow_provider_quoine.exchange.market.subject import Subject, age
from airflow_provider_quoine.exchange.market.top_of_book import TopOfBook

CACHED_SIDES = 128
"""Parsed sides in the cache, shared by all snapshots that are taken of a pair at the same moment."""


@dataclass(frozen=True, kw_only=True)
class OrderBookSnapshot:
    """
    A book at one moment.

    :param taken_at: when it was taken, UTC.
    :param due_at: when it was due, UTC.
    :param bids: buy side, highest price first.
    :param asks: sell side, lowest price first.
    :param bids_received_at: when the buy side came, UTC. The sides come as separate events, so one may be older.
    :param asks_received_at: when the sell side came, UTC.
    :param stale: whether a side is not current any more; see
        :meth:`~airflow_provider_quoine.exchange.stream.pusher.PusherStream.is_current`.
    """

    pair: Pair
    taken_at: datetime
    due_at: datetime
    bids: tuple[PriceLevel, ...]
    asks: tuple[PriceLevel, ...]
    bids_received_at: datetime
    asks_received_at: datetime
    stale: bool

    @cached_property
    def top(self) -> TopOfBook:
        """Best bid and best ask."""
        return TopOfBook(
            bid=self.bids[0].price if self.bids else None,
            ask=self.asks[0].price if self.asks else None,
        )

    @property
    def doubt(self) -> str | None:
        """Why the snapshot is doubtful: ``stale`` or ``crossed``; None if it is not."""
        return "stale" if self.stale else "crossed" if self.top.crossed else None

    def as_dict(self) -> dict[str, Any]:
        """
        Return it as JSON-able data: numbers as plain digits in strings, times as ISO 8601 in UTC.

        Snapshots of the same book share their rows: do not change them in place.
        """
        return {
            "pair": str(self.pair),
            "due_at": self.due_at.isoformat(),
            "taken_at": self.taken_at.isoformat(),
            "bids": list(_rows(self.bids)),
            "asks": list(_rows(self.asks)),
            "bids_received_at": self.bids_received_at.isoformat(),
            "asks_received_at": self.asks_received_at.isoformat(),
            "bids_age": age(self.bids_received_at, self.due_at),
            "asks_age": age(self.asks_received_at, self.due_at),
            "best_bid": plain_json(self.top.bid),
            "best_ask": plain_json(self.top.ask),
            "mid": plain_json(self.top.mid),
            "spread": plain_json(self.top.spread),
            "crossed": self.top.crossed,
            "stale": self.stale,
        }


# Shared rows: a thousand events with 80 lists each would keep the garbage collector busy.
@lru_cache(maxsize=CACHED_SIDES)
def _rows(levels: tuple[PriceLevel, ...]) -> tuple[list[str], ...]:
    return tuple([plain_number(level.price), plain_number(level.quantity)] for level in levels)


class OrderBook(Subject):
    """
    A pair's order book. An event replaces its whole side (facts, Streams).

    :param depth: rows to keep of each side, best first; None keeps all (the exchange sends at most 40).
    :raises QuoineInputError: if the depth is not above zero.
    """

    def __init__(self, *, pair: Pair, depth: int | None = None) -> None:
        if depth is not None and (type(depth) is not int or depth < 1):
            raise QuoineInputError(f"depth is {depth!r}: give a whole number above 0, or leave it out for all rows.")
        self.pair = pair
        self._depth = depth
        self._buy, self._sell = (price_ladder_channel(pair, side) for side in (Side.BUY, Side.SELL))
        super().__init__(channels=(self._buy, self._sell), event=PRICE_LADDERS.event)

    def __str__(self) -> str:
        return f"order book of {self.pair}"

    def snapshot(self, taken_at: datetime, *, due_at: datetime | None = None, stale: bool = False) -> OrderBookSnapshot:
        """See :meth:`~airflow_provider_quoine.exchange.market.subject.Subject.snapshot`."""
        bids, asks = self.newest[self._buy], self.newest[self._sell]
        return OrderBookSnapshot(
            pair=self.pair,
            taken_at=taken_at,
            due_at=due_at or taken_at,
            bids=_best_first(bids.data, descending=True)[: self._depth],
            asks=_best_first(asks.data, descending=False)[: self._depth],
            bids_received_at=bids.received_at,
            asks_received_at=asks.received_at,
            stale=stale,
        )


@lru_cache(maxsize=CACHED_SIDES)
def _best_first(data: str, *, descending: bool) -> tuple[PriceLevel, ...]:
    # The exchange sends rows in this order already. If one side came unsorted, its best price would be wrong.
    levels = decode_price_ladder(data)
    return tuple(sorted(levels, key=lambda level: level.price, reverse=descending))
