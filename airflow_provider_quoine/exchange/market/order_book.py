"""An order book put together from its two sides, parsed only when a snapshot is due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.exchange.exact_json import plain_number
from airflow_provider_quoine.exchange.market.channels import PRICE_LADDERS, normalise_pair, price_ladder_channel
from airflow_provider_quoine.exchange.market.messages import EXACT, PriceLevel, Side, decode_price_ladder

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.stream.pusher import StreamEvent

SIDES_KEPT = 128
"""Parsed sides that are kept, for the many who take a snapshot of the same pair at the same moment."""


@dataclass(frozen=True, kw_only=True)
class OrderBookSnapshot:
    """
    A book at one moment.

    :param pair: currency pair code, such as ``btcjpy``.
    :param taken_at: when it was put together, UTC.
    :param due_at: when it was to be taken, UTC.
    :param bids: buy side, highest price first.
    :param asks: sell side, lowest price first.
    :param bids_received_at: when the buy side came, UTC. The sides come apart, so one may be older.
    :param asks_received_at: when the sell side came, UTC.
    :param stale: whether a side may have been overtaken unseen: it came by a connection that was lost since.
    """

    pair: str
    taken_at: datetime
    due_at: datetime
    bids: tuple[PriceLevel, ...]
    asks: tuple[PriceLevel, ...]
    bids_received_at: datetime
    asks_received_at: datetime
    stale: bool

    @property
    def best_bid(self) -> Decimal | None:
        """Highest price offered for; None if nobody buys."""
        return self.bids[0].price if self.bids else None

    @property
    def best_ask(self) -> Decimal | None:
        """Lowest price asked; None if nobody sells."""
        return self.asks[0].price if self.asks else None

    @property
    def mid(self) -> Decimal | None:
        """Exact middle of best bid and ask; None if a side is empty."""
        if self.best_bid is None or self.best_ask is None:
            return None
        return EXACT.divide(EXACT.add(self.best_bid, self.best_ask), Decimal(2))

    @property
    def spread(self) -> Decimal | None:
        """Best ask minus best bid, negative in a crossed book; None if a side is empty."""
        if self.best_bid is None or self.best_ask is None:
            return None
        return EXACT.subtract(self.best_ask, self.best_bid)

    @property
    def crossed(self) -> bool | None:
        """
        Whether the best bid is at or above the best ask; None if a side is empty.

        It happens for a moment, because the sides come as separate events (facts, Streams).
        """
        return None if self.spread is None else self.spread <= 0

    @property
    def doubt(self) -> str | None:
        """Why it should not be trusted as it is, in a word; None if it can be."""
        return "stale" if self.stale else "crossed" if self.crossed else None

    def as_dict(self) -> dict[str, Any]:
        """
        Return it as JSON-able data: numbers as plain digits in strings, times as ISO 8601 in UTC.

        Its rows may be those of other snapshots of the same book: change none in place.
        """
        return {
            "pair": self.pair,
            "due_at": self.due_at.isoformat(),
            "taken_at": self.taken_at.isoformat(),
            "bids": _rows(self.bids),
            "asks": _rows(self.asks),
            "bids_received_at": self.bids_received_at.isoformat(),
            "asks_received_at": self.asks_received_at.isoformat(),
            "bids_age": age(self.bids_received_at, self.due_at),
            "asks_age": age(self.asks_received_at, self.due_at),
            "best_bid": _plain(self.best_bid),
            "best_ask": _plain(self.best_ask),
            "mid": _plain(self.mid),
            "spread": _plain(self.spread),
            "crossed": self.crossed,
            "stale": self.stale,
        }


def age(received_at: datetime, due_at: datetime) -> float:
    """
    Return how old something was when it was due, in seconds.

    What came between that moment and the taking has no age yet.
    """
    return max(0.0, (due_at - received_at).total_seconds())


@lru_cache(maxsize=SIDES_KEPT)
def _plain_rows(levels: tuple[PriceLevel, ...]) -> tuple[list[str], ...]:
    return tuple([plain_number(level.price), plain_number(level.quantity)] for level in levels)


def _rows(levels: tuple[PriceLevel, ...]) -> list[list[str]]:
    # The rows are shared: a thousand events with 80 lists each would keep the garbage collector busy.
    return list(_plain_rows(levels))


def _plain(number: Decimal | None) -> str | None:
    return None if number is None else plain_number(number)


class OrderBook:
    """
    The newest of each side of a pair's book, as it came: cost follows snapshots, not messages.

    :param pair: currency pair code.
    :raises QuoineInputError: if it is none.
    """

    def __init__(self, *, pair: str) -> None:
        self.pair = normalise_pair(pair)
        self.channels = {price_ladder_channel(self.pair, side): side for side in Side}
        """Side by channel: what to subscribe to."""
        self._newest: dict[Side, StreamEvent] = {}

    def update(self, event: StreamEvent) -> None:
        """Take an event; each replaces its whole side (facts, Streams). Those of other channels are ignored."""
        if event.channel in self.channels and event.event == PRICE_LADDERS.event:
            self._newest[self.channels[event.channel]] = event

    def snapshot(
        self,
        taken_at: datetime,
        *,
        depth: int | None = None,
        due_at: datetime | None = None,
        stale: bool = False,
    ) -> OrderBookSnapshot:
        """
        Parse both sides.

        :param taken_at: now, aware and UTC.
        :param depth: rows to keep of each side, best first; None keeps all (the exchange sends at most 40).
        :param due_at: when it was due, if not now.
        :param stale: whether a side may have been overtaken unseen; who holds the connection knows.
        :raises QuoineStreamDataError: if a side cannot be read.
        :raises KeyError: if a side never came.
        """
        bids, asks = self._newest[Side.BUY], self._newest[Side.SELL]
        return OrderBookSnapshot(
            pair=self.pair,
            taken_at=taken_at,
            due_at=due_at or taken_at,
            bids=_best_first(bids.data, descending=True)[:depth],
            asks=_best_first(asks.data, descending=False)[:depth],
            bids_received_at=bids.received_at,
            asks_received_at=asks.received_at,
            stale=stale,
        )


@lru_cache(maxsize=SIDES_KEPT)
def _best_first(data: str, *, descending: bool) -> tuple[PriceLevel, ...]:
    # The exchange sends them so already; a book whose best price is not its first row would misprice all below.
    levels = decode_price_ladder(data)
    return tuple(sorted(levels, key=lambda level: level.price, reverse=descending))
