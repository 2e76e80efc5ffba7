"""A product's ticker, parsed only when a snapshot is due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.exchange.market.channels import PRODUCTS, product_channel
from airflow_provider_quoine.exchange.market.messages import Product, decode_product
from airflow_provider_quoine.exchange.market.order_book import age
from airflow_provider_quoine.exchange.market.pairs import Pair

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.stream.pusher import StreamEvent


@dataclass(frozen=True, kw_only=True)
class ProductSnapshot:
    """
    A ticker at one moment.

    :param pair: currency pair.
    :param taken_at: when it was taken, UTC.
    :param due_at: when it was due, UTC.
    :param received_at: when the ticker came, UTC.
    :param product: its content.
    :param stale: whether it is not current any more; see
        :meth:`~airflow_provider_quoine.exchange.stream.pusher.PusherStream.is_current`.
    """

    pair: Pair
    taken_at: datetime
    due_at: datetime
    received_at: datetime
    product: Product
    stale: bool

    @property
    def doubt(self) -> str | None:
        """Why the snapshot is doubtful: ``stale``; None if it is not."""
        return "stale" if self.stale else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data: numbers as plain digits in strings, times as ISO 8601 in UTC."""
        return {
            "pair": str(self.pair),
            "due_at": self.due_at.isoformat(),
            "taken_at": self.taken_at.isoformat(),
            "received_at": self.received_at.isoformat(),
            "age": age(self.received_at, self.due_at),
            "stale": self.stale,
            **self.product.as_dict(),
        }


class Ticker:
    """
    The newest ticker of a product. It is parsed only for a snapshot, so the cost depends on the number of snapshots,
    not of events.

    :param pair: currency pair.
    :param product_id: the exchange's number; may be omitted if it is on record.
    :raises QuoineInputError: if the number is not above zero, or omitted and not on record.
    """

    def __init__(self, *, pair: Pair, product_id: int | None = None) -> None:
        self.pair = pair
        self.channels = (product_channel(self.pair, product_id),)
        """The channel to subscribe to."""
        self._newest: StreamEvent | None = None

    def update(self, event: StreamEvent) -> None:
        """Store an event. Events of other channels are ignored."""
        if event.channel in self.channels and event.event == PRODUCTS.event:
            self._newest = event

    def snapshot(self, taken_at: datetime, *, due_at: datetime | None = None, stale: bool = False) -> ProductSnapshot:
        """
        Take a snapshot.

        :param taken_at: now, aware and UTC.
        :param due_at: when it was due, if not now.
        :param stale: whether the ticker is not current any more. The ticker cannot tell; the stream can.
        :raises QuoineStreamDataError: if the ticker cannot be read.
        :raises KeyError: if none has come yet.
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
