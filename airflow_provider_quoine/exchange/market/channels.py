"""The market's streams: the names of their channels and events, and the products' ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.market.messages import Side
from airflow_provider_quoine.exchange.market.pairs import Pair

LONGEST_CHANNEL = 164
"""Characters that Pusher allows in a channel's name (pusher, Protocol 7)."""


@dataclass(frozen=True, slots=True)
class MarketStream:
    """
    One kind of stream.

    :param channel: template of the names of its channels.
    """

    channel: str
    event: str


PRICE_LADDERS = MarketStream("price_ladders_cash_{pair}_{side}", "updated")
EXECUTIONS = MarketStream("executions_cash_{pair}", "created")
PRODUCTS = MarketStream("product_cash_{pair}_{product_id}", "updated")
"""The three streams (api-reference II)."""

PRODUCT_IDS: Mapping[str, int] = {
    "btcusd": 1,
    "btceur": 3,
    "btcjpy": 5,
    "btcsgd": 7,
    "ethusd": 27,
    "ethjpy": 29,
    "ethbtc": 37,
}
"""Products on record by pair (facts, Streams)."""


def price_ladder_channel(pair: Pair, side: Side) -> str:
    """
    Return the channel of one side of a pair's order book.

    :raises QuoineInputError: if the name would be longer than Pusher allows.
    """
    return _channel(PRICE_LADDERS, pair=pair, side=side)


def executions_channel(pair: Pair) -> str:
    """
    Return the channel of a pair's executions.

    :raises QuoineInputError: if the name would be longer than Pusher allows.
    """
    return _channel(EXECUTIONS, pair=pair)


def product_channel(pair: Pair, product_id: int | None = None) -> str:
    """
    Return the channel of a product (its ticker).

    :param product_id: the exchange's number for the pair's product, e.g. 5 for BTCJPY (facts, Streams); may be
        omitted for those of :data:`PRODUCT_IDS`.
    :raises QuoineInputError: if the number is not above zero, or omitted and not on record, or if the name would be
        longer than Pusher allows.
    """
    product_id = PRODUCT_IDS.get(pair) if product_id is None else product_id
    if isinstance(product_id, bool) or not isinstance(product_id, int) or product_id < 1:
        raise QuoineInputError(f"{product_id!r} is no product id: give the exchange's number, such as 5 for BTCJPY.")
    return _channel(PRODUCTS, pair=pair, product_id=product_id)


def _channel(stream: MarketStream, **parts: object) -> str:
    name = stream.channel.format(**parts)
    if len(name) > LONGEST_CHANNEL:
        raise QuoineInputError(f"Channel {name[:40]}... has {len(name)} characters; Pusher allows {LONGEST_CHANNEL}.")
    return name
