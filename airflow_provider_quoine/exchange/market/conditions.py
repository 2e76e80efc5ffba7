"""Conditions of a pair's market: what can be true of it, as data, and how to tell in what is seen."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any, ClassVar

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.exact_json import DIGITS, plain_number
from airflow_provider_quoine.exchange.market.messages import EXACT, Execution

# Every number of this form is let in from the stream too, so that what is given can be compared.
_PLAIN = re.compile(r"[0-9]{1,40}(\.[0-9]{1,30})?")


class Feed(StrEnum):
    """What a condition is judged by."""

    BOOK = "book"
    TRADES = "trades"


class Direction(StrEnum):
    """Which way a price goes through a level. It is through when it reaches the level."""

    UP = "up"
    DOWN = "down"
    EITHER = "either"


class PriceSource(StrEnum):
    """What counts as the price."""

    LAST_TRADE = "last_trade"
    BEST_BID = "best_bid"
    BEST_ASK = "best_ask"
    MID = "mid"


class Memory(Enum):
    """How long it stays known that a condition did not hold, so that its coming true can be told."""

    NONE = "it is over at once, so each time that it holds is news"
    UNBROKEN = "until something may have been missed"
    LISTENING = "as long as somebody listens, also while there is no connection"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketView:
    """
    What is known of a pair's market at one moment.

    :param at: the moment, UTC.
    :param clock: the moment in seconds of a clock that never jumps.
    :param unbroken: equal in two views if nothing can have been missed between them.
    :param heard: on that clock, when the feed was last heard of, or when listening began.
    :param connected: whether events could come.
    :param best_bid: None if nobody buys, or if the side is not known on this connection yet.
    :param best_ask: None if nobody sells, or if the side is not known on this connection yet.
    :param trade: the trade that this is the moment of.
    :param missed: trades that were lost just before because too many came, or that could not be read.
    """

    at: datetime
    clock: float
    unbroken: Hashable
    heard: float
    connected: bool = True
    best_bid: Decimal | None = None
    best_ask: Decimal | None = None
    trade: Execution | None = None
    missed: int = 0

    @property
    def last_trade(self) -> Decimal | None:
        """Price of the trade."""
        return self.trade.price if self.trade else None

    @property
    def spread(self) -> Decimal | None:
        """
        Best ask minus best bid, in quote currency; None if a side is not there or the book is crossed.

        The sides come as separate events, so a crossed book is one of which half is still under way (facts, Streams).
        """
        if self.best_bid is None or self.best_ask is None or self.best_bid >= self.best_ask:
            return None
        return EXACT.subtract(self.best_ask, self.best_bid)

    @property
    def mid(self) -> Decimal | None:
        """Exact middle of best bid and ask; None where the spread is."""
        spread = self.spread
        return None if spread is None else EXACT.add(self.best_bid or Decimal(0), EXACT.divide(spread, Decimal(2)))


@dataclass(frozen=True, kw_only=True)
class Condition:
    """
    Something that a pair's market can be. Its fields are plain JSON, checked and in one form, so that equal
    conditions are written alike.
    """

    name: ClassVar[str]
    memory: ClassVar[Memory] = Memory.UNBROKEN

    @property
    def feed(self) -> Feed:
        """What it is judged by."""
        return Feed.BOOK

    @property
    def one_way(self) -> tuple[Condition, ...]:
        """Itself, or the conditions any of which is meant."""
        return (self,)

    def holds(self, view: MarketView) -> bool | None:
        """Whether it is true in a view; None if the view does not tell."""
        raise NotImplementedError

    def values(self, view: MarketView) -> dict[str, Any]:
        """Return what a view shows of it as plain JSON, numbers as digits in strings."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class PriceReaches(Condition):
    """
    The price is at a level or beyond it.

    :param level: in quote currency, plain digits.
    :param direction: ``up`` is at or above the level, ``down`` at or below, ``either`` any of the two.
    :param price: what counts as the price, a :class:`PriceSource`.
    :raises QuoineInputError: naming what is wrong.
    """

    name: ClassVar[str] = "price_crossed"
    level: str
    direction: str = Direction.UP.value
    price: str = PriceSource.LAST_TRADE.value

    def __post_init__(self) -> None:
        """Check."""
        _put(self, level=_digits("level", self.level))
        _put(self, direction=_one_of(Direction, "direction", self.direction))
        _put(self, price=_one_of(PriceSource, "price", self.price))

    @property
    def feed(self) -> Feed:
        """Trades for the price of the last one, else the book."""
        return Feed.TRADES if self.price == PriceSource.LAST_TRADE else Feed.BOOK

    @property
    def one_way(self) -> tuple[Condition, ...]:
        """Up and down, if either is meant."""
        if self.direction != Direction.EITHER:
            return (self,)
        return tuple(dataclasses.replace(self, direction=way.value) for way in (Direction.UP, Direction.DOWN))

    def holds(self, view: MarketView) -> bool | None:
        """Whether the price is there; None if there is no price."""
        price: Decimal | None = getattr(view, self.price)
        if price is None:
            return None
        level = Decimal(self.level)
        return {Direction.UP: price >= level, Direction.DOWN: price <= level}.get(Direction(self.direction), True)

    def values(self, view: MarketView) -> dict[str, Any]:
        """Price and what it was measured by."""
        price = _plain(getattr(view, self.price))
        return {"price": price, "source": self.price, "level": self.level, "direction": self.direction}


@dataclass(frozen=True, kw_only=True)
class SpreadAbove(Condition):
    """
    Best ask minus best bid is above a bound.

    :param bound: an amount of quote currency, not a share of the price; plain digits.
    :raises QuoineInputError: naming what is wrong.
    """

    name: ClassVar[str] = "spread_above"
    bound: str

    def __post_init__(self) -> None:
        """Check."""
        _put(self, bound=_digits("bound", self.bound))

    def holds(self, view: MarketView) -> bool | None:
        """Whether the spread is above it; None if there is none or the book is crossed."""
        return None if view.spread is None else view.spread > Decimal(self.bound)

    def values(self, view: MarketView) -> dict[str, Any]:
        """Spread, both prices and the bound."""
        prices = {name: _plain(getattr(view, name)) for name in ("spread", "best_bid", "best_ask")}
        return {**prices, "bound": self.bound}


@dataclass(frozen=True, kw_only=True)
class TradeAbove(Condition):
    """
    A trade is larger than a size; each such trade is one event.

    :param size: in base currency, plain digits.
    :raises QuoineInputError: naming what is wrong.
    """

    name: ClassVar[str] = "trade_above"
    memory: ClassVar[Memory] = Memory.NONE
    size: str

    def __post_init__(self) -> None:
        """Check."""
        _put(self, size=_digits("size", self.size))

    @property
    def feed(self) -> Feed:
        """Trades."""
        return Feed.TRADES

    def holds(self, view: MarketView) -> bool | None:
        """Whether the trade is larger."""
        return None if view.trade is None else view.trade.quantity > Decimal(self.size)

    def values(self, view: MarketView) -> dict[str, Any]:
        """The trade and the size."""
        return {"trade": view.trade and view.trade.as_dict(), "size": self.size}


@dataclass(frozen=True, kw_only=True)
class BookSilent(Condition):
    """
    Nothing has come of either side of the book for too long, for whatever reason: a quiet market, a misspelt pair, a
    server that does not send, or no connection to it.

    :param seconds: how long is too long.
    :raises QuoineInputError: naming what is wrong.
    """

    name: ClassVar[str] = "book_silent"
    memory: ClassVar[Memory] = Memory.LISTENING
    seconds: float

    def __post_init__(self) -> None:
        """Check."""
        _put(self, seconds=seconds_given("seconds", self.seconds, least=1))

    def holds(self, view: MarketView) -> bool | None:
        """Whether it has been silent for longer."""
        return view.clock - view.heard > self.seconds

    def values(self, view: MarketView) -> dict[str, Any]:
        """How long it has been silent, and whether there was a connection at the end."""
        silent = round(view.clock - view.heard, 1)
        return {"silent_seconds": silent, "seconds": self.seconds, "connected": view.connected}


CONDITIONS: Mapping[str, Callable[..., Condition]] = {
    kind.name: kind for kind in (PriceReaches, SpreadAbove, TradeAbove, BookSilent)
}
"""Conditions by the names that their events have."""


def event_of(pair: str, condition: Condition, view: MarketView) -> dict[str, Any]:
    """
    Tell in plain JSON what is true: ``event`` (the condition's name), ``pair``, ``at`` (ISO 8601, UTC), and the
    values that show it.
    """
    return {"event": condition.name, "pair": pair, "at": view.at.isoformat(), **condition.values(view)}


def seconds_given(name: str, value: Any, *, least: float) -> float:
    """
    Check a time that somebody gave.

    :raises QuoineInputError: if it is no number of seconds, or below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
        raise QuoineInputError(f"{name} is {value!r:.40}: give a number of seconds, {least:g} or more.")
    return float(value)


def _digits(name: str, value: Any) -> str:
    """Return a number above zero in its one plain form."""
    if not isinstance(value, str) or not _PLAIN.fullmatch(value) or not Decimal(value):
        raise QuoineInputError(
            f"{name} is {value!r:.60}: give a number above zero as text in plain digits, such as '600.5', with at most "
            f"{DIGITS} digits before the point and 30 after it. A float is not taken, because it is not exact."
        )
    return plain_number(Decimal(value))


def _one_of(choices: type[StrEnum], name: str, value: Any) -> str:
    if value not in list(choices):
        words = ", ".join(repr(str(each)) for each in choices)
        raise QuoineInputError(f"{name} is {value!r:.40}: give one of {words}.")
    return str(value)


def _plain(number: Decimal | None) -> str | None:
    return None if number is None else plain_number(number)


def _put(condition: Condition, **fields: Any) -> None:
    """Set checked fields of a frozen condition."""
    for name, value in fields.items():
        object.__setattr__(condition, name, value)
