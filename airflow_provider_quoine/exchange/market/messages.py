"""The data of the market's events: order book sides, executions and tickers, decoded exactly."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from decimal import Context, Decimal
from enum import StrEnum
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from airflow_provider_quoine.exchange.errors import QuoineStreamDataError
from airflow_provider_quoine.exchange.exact_json import DIGITS, plain_number, read_json

# The form of numbers in JSON. Decimal alone would also accept "NaN", " 1_0 " and digits of other scripts.
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")

PLAIN_NUMBER = re.compile(r"[0-9]{1,40}(\.[0-9]{1,30})?")
"""A number as nearly every message has it. Each is accepted, and needs no further check."""
_FINEST = Decimal("1e-30")
"""Smallest step of an accepted number, so that the middle of two such numbers can be written out."""
EXACT = Context(prec=4 * DIGITS)
"""Precision in which sum, difference and half of any two accepted numbers are exact."""

_Result = TypeVar("_Result")

_DECODE_LOCKS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


@asynccontextmanager
async def decoding() -> AsyncIterator[None]:
    """
    Wait until a book may be decoded: ``async with decoding(): ...``.

    The users of an event loop decode one at a time, first come, first served. In between, the loop runs its other
    tasks, so a thousand snapshots that are due at once do not block it.
    """
    lock = _DECODE_LOCKS.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    at_once = not lock.locked()
    async with lock:
        if at_once:
            # Who had to wait gets the lock in a new round of the event loop. So must this one.
            await asyncio.sleep(0)
        yield


class Side(StrEnum):
    """A side of the order book, or of a trade's taker."""

    BUY = "buy"
    SELL = "sell"


@dataclass(frozen=True, slots=True)
class PriceLevel:
    """A row of one side of an order book: a price in quote currency and the quantity offered at it in base currency."""

    price: Decimal
    quantity: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """
    A trade (facts, Streams).

    :param id: the exchange's number, kept as text.
    :param price: in the pair's quote currency.
    :param quantity: in its base currency.
    :param taker_side: the taker's side: ``buy`` lifted an offer, ``sell`` hit a bid.
    :param created_at: UTC, in whole seconds; several trades may have the same.
    """

    id: str
    price: Decimal
    quantity: Decimal
    taker_side: Side
    created_at: datetime

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data: numbers as plain digits in strings, the time as ISO 8601 in UTC."""
        return {
            "id": self.id,
            "price": plain_number(self.price),
            "quantity": plain_number(self.quantity),
            "taker_side": str(self.taker_side),
            "created_at": self.created_at.isoformat(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """
    A product's ticker (facts, Streams). Any field may be None: the exchange omits or nulls fields without a value.

    :param other: fields that are not on record, as they came.
    """

    id: str | None
    code: str | None
    currency_pair_code: str | None
    market_ask: Decimal | None
    market_bid: Decimal | None
    low_market_bid: Decimal | None
    high_market_ask: Decimal | None
    last_traded_price: Decimal | None
    last_traded_quantity: Decimal | None
    volume_24h: Decimal | None
    last_price_24h: Decimal | None
    last_event_timestamp: Decimal | None
    pusher_channel: str | None
    other: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data: numbers as plain digits in strings."""
        return {name: plain_json(getattr(self, name)) for name in (*_PRODUCT_FIELDS, "other")}


def plain_json(value: Any) -> Any:
    """Return a value as JSON-able data, at any depth: Decimals as plain digits in strings, choices as plain strings."""
    if isinstance(value, Decimal):
        return plain_number(value)
    if isinstance(value, StrEnum):
        return str(value)
    if isinstance(value, Mapping):
        return {name: plain_json(item) for name, item in value.items()}
    return [plain_json(item) for item in value] if isinstance(value, list) else value


def decode_price_ladder(data: str) -> tuple[PriceLevel, ...]:
    """
    Read one whole side of an order book.

    :param data: ``[["600.1", "0.5"], ...]``, strings or numbers; ``[]`` is an empty side.
    :return: the rows in the order sent.
    :raises QuoineStreamDataError: if it is anything else.
    """
    return _decode(data, "price ladder", _ladder)


def decode_execution(data: str) -> Execution:
    """
    Read a trade.

    :param data: one object with ``id``, ``quantity``, ``price``, ``taker_side`` and ``created_at``.
    :raises QuoineStreamDataError: if it is anything else.
    """
    return _decode(data, "execution", _execution)


def decode_product(data: str) -> Product:
    """
    Read a product's ticker.

    :param data: one flat object.
    :raises QuoineStreamDataError: if it is anything else.
    """
    return _decode(data, "product", _product)


def _decode(data: str, kind: str, read: Callable[[Any], _Result]) -> _Result:
    try:
        return read(read_json(data))
    except (ValueError, TypeError, KeyError, OverflowError, OSError) as error:
        raise QuoineStreamDataError(
            f"The stream sent a {kind} that cannot be read ({type(error).__name__}: {error}): {data[:80]!r}"
        ) from error


def _ladder(rows: Any) -> tuple[PriceLevel, ...]:
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise TypeError("not an array of [price, quantity]")
    return tuple(PriceLevel(_number(price), _number(quantity)) for price, quantity in rows)


def _execution(trade: Any) -> Execution:
    return Execution(
        id=_text(trade["id"]),
        price=_number(trade["price"]),
        quantity=_number(trade["quantity"]),
        taker_side=Side(trade["taker_side"]),
        created_at=datetime.fromtimestamp(int(_number(trade["created_at"])), UTC),
    )


def _product(ticker: Any) -> Product:
    if not isinstance(ticker, dict):
        raise TypeError("not an object")
    known = {name: None if ticker.get(name) is None else read(ticker[name]) for name, read in _PRODUCT_FIELDS.items()}
    return Product(**known, other={name: value for name, value in ticker.items() if name not in known})


def _number(value: Any) -> Decimal:
    """Return a price, a quantity or a time: exact, finite, of bounded length and not negative."""
    if isinstance(value, str) and PLAIN_NUMBER.fullmatch(value):
        return Decimal(value)
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise TypeError(f"{value!r:.40} is no number")
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise ValueError(f"{value!r:.40} is no number")
    number = Decimal(value)
    plain_number(number)
    if number < 0 or number != number.quantize(_FINEST, context=EXACT):
        raise ValueError(f"{value!r:.40} is negative or too fine")
    return number


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError(f"{value!r:.40} is neither text nor a whole number")
    return str(value)


_PRODUCT_FIELDS: Mapping[str, Callable[[Any], Any]] = {
    each.name: {"str | None": _text, "Decimal | None": _number}[str(each.type)]
    for each in fields(Product)
    if each.name != "other"
}
"""Readers of a product's fields, by name."""
