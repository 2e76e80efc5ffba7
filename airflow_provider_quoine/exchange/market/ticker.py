"""A product's ticker, parsed only when a snapshot is due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_provider_quoine.exchange.market.channels import PRODUCTS, product_channel
from airflow_provider_quoine.exchange.market.messages import Product, decode_product
from airflow_provider_quoine.exchange.market.pairs import Pair
from airflow_provider_quoine.exchange.market.subject import Subject, age


@dataclass(frozen=True, kw_only=True)
class ProductSnapshot:
    """
    A ticker at one moment.

    :param taken_at: when it was taken, UTC.
    :param due_at: when it was due, UTC.
    :param received_at: when the ticker came, UTC.
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


class Ticker(Subject):
    """
    A product's ticker.

    :param product_id: the exchange's number; may be omitted if it is on record.
    :raises QuoineInputError: if the number is not above zero, or omitted and not on record.
    """

    def __init__(self, *, pair: Pair, product_id: int | None = None) -> None:
        self.pair = pair
        self._channel = product_channel(pair, product_id)
        super().__init__(channels=(self._channel,), event=PRODUCTS.event)

    def __str__(self) -> str:
        return f"ticker of {self.pair}"

    def snapshot(self, taken_at: datetime, *, due_at: datetime | None = None, stale: bool = False) -> ProductSnapshot:
        """See :meth:`~airflow_provider_quoine.exchange.market.subject.Subject.snapshot`."""
        newest = self.newest[self._channel]
        return ProductSnapshot(
            pair=self.pair,
            taken_at=taken_at,
            due_at=due_at or taken_at,
            received_at=newest.received_at,
            product=decode_product(newest.data),
            stale=stale,
        )
