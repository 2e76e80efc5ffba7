"""A product's ticker, parsed only when a snapshot is due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.exchange.market.channels import PRODUCTS, normalise_pair, product_channel
from airflow_provider_quoine.exchange.market.messages import Product, decode_product
from airflow_provider_quoine.exchange.market.order_book import age

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.stream.pusher import StreamEvent


@dataclass(frozen=True, kw_only=True)
class ProductSnapshot:
    """
    A ticker at one moment.

    :param pair: currency pair code, such as ``btcjpy``.
    :param taken_at: when it was put together, UTC.
    :param due_at: when it was to be taken, UTC.
    :param received_at: when it came, UTC.
    :param product: what it says.
    :param stale: whether it may have been overtaken unseen: it came by a connection that was lost since.
    """

    pair: str
    taken_at: datetime
    due_at: datetime
    received_at: datetime
    product: Product
    stale: bool

    @property
    def doubt(self) -> str | None:
        """Why it should not be trusted as it is, in a word; None if it can be."""
        return "stale" if self.stale else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data: numbers as plain digits in strings, times as ISO 8601 in UTC."""
        return {
            "pair": self.pair,
            "due_at": self.due_at.isoformat(),
            "taken_at": self.taken_at.isoformat(),
            "received_at": self.received_at.isoformat(),
            "age": age(self.received_at, self.due_at),
            "stale": self.stale,
            **self.product.as_dict(),
        }


class Ticker:
    """
    The newest ticker of a product, as it came: cost follows snapshots, not messages.

    :param pair: currency pair code.
    :param product_id: the exchange's number; may be left out where it is on record.
    :raises QuoineInputError: if it is none.
    """

    def __init__(self, *, pair: str, product_id: int | None = None) -> None:
        self.pair = normalise_pair(pair)
        self.channels = (product_channel(self.pair, product_id),)
        """What to subscribe to."""
        self._newest: StreamEvent | None = None

    def update(self, event: StreamEvent) -> None:
        """Take an event; those of other channels are ignored."""
        if event.channel in self.channels and event.event == PRODUCTS.event:
            self._newest = event

    def snapshot(self, taken_at: datetime, *, due_at: datetime | None = None, stale: bool = False) -> ProductSnapshot:
        """
        Parse it.

        :param taken_at: now, aware and UTC.
        :param due_at: when it was due, if not now.
        :param stale: whether it came by a connection that was lost.
        :raises QuoineStreamDataError: if it cannot be read.
        :raises KeyError: if none ever came.
        """
        if self._newest is None:
            raise KeyError(self.pair)
        return ProductSnapshot(
            pair=self.pair,
            taken_at=taken_at,
            due_at=due_at or taken_at,
            received_at=self._newest.received_at,
            product=decode_product(self._newest.data),
            stale=stale,
        )
