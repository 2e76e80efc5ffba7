"""Conditions of a pair's market, as data that can be stored, and how each is judged by a state of the market."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any, ClassVar

from airflow_provider_quoine.exchange.choices import checked_choice
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.exact_json import DIGITS, plain_number
from airflow_provider_quoine.exchange.market.market_state import MarketData, MarketState, PriceSource
from airflow_provider_quoine.exchange.market.messages import PLAIN_NUMBER, plain_json
from airflow_provider_quoine.exchange.market.pairs import Pair


class Direction(StrEnum):
    """The direction in which a price reaches a level. A price equal to the level has reached it."""

    UP = "up"
    DOWN = "down"
    EITHER = "either"


_REACHED: Mapping[Direction, Callable[[Decimal, Decimal], bool]] = {
    Direction.UP: operator.ge,
    Direction.DOWN: operator.le,
    Direction.EITHER: lambda price, level: True,
}


class Arming(Enum):
    """Which changes of the market's position make an event."""

    ALWAYS = "momentary: every state in which the condition is true makes one"
    UNTIL_GAP = "a change does; after a gap it may have happened in it, which the event says"
    ACROSS_GAPS = "a change does, and a gap changes nothing about it"


class Position(StrEnum):
    """Where a market is, seen from a condition. The last five are for a level that is watched in both directions."""

    FALSE = "false"
    TRUE = "true"
    BELOW = "below"
    ABOVE = "above"
    FALLEN_TO = "at the level, from above"
    RISEN_TO = "at the level, from below"
    AT = "at the level, from where is not known"


_AT_LEVEL: Mapping[Position | None, Position] = {
    Position.BELOW: Position.RISEN_TO,
    Position.RISEN_TO: Position.RISEN_TO,
    Position.ABOVE: Position.FALLEN_TO,
    Position.FALLEN_TO: Position.FALLEN_TO,
}
"""The position at the level, by the position before."""

_DIRECTIONS: Mapping[Position | None, Direction] = {
    Position.BELOW: Direction.DOWN,
    Position.FALLEN_TO: Direction.DOWN,
    Position.ABOVE: Direction.UP,
    Position.RISEN_TO: Direction.UP,
}
"""The direction of the last crossing, by the position after it."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """
    A condition of a pair's market.

    Its fields have their types. :meth:`arguments` writes them as plain JSON, equal conditions alike;
    :data:`CONDITIONS` makes the condition again from that.
    """

    name: ClassVar[str]
    arming: ClassVar[Arming] = Arming.UNTIL_GAP

    @property
    def data(self) -> MarketData:
        """The data by which it is judged."""
        return MarketData.BOOK

    def holds(self, state: MarketState) -> bool | None:
        """Tell whether it is true; None if the state does not show it."""
        raise NotImplementedError

    def position(self, state: MarketState, before: Position | None) -> Position | None:
        """
        Return where the market is; None if the state does not show it.

        :param before: where it was.
        """
        holds = self.holds(state)
        return None if holds is None else Position.TRUE if holds else Position.FALSE

    def edge(self, before: Position | None, now: Position) -> Condition | None:
        """Return the condition that has become true, of those that this one stands for; None if none has."""
        return self if (before, now) == (Position.FALSE, Position.TRUE) else None

    def since(self, state: MarketState) -> datetime:
        """Return the moment since when it is true, as far as the state shows it."""
        return state.at

    def values(self, state: MarketState) -> dict[str, Any]:
        """Return the values by which it is true as plain JSON, numbers as digits in strings."""
        raise NotImplementedError

    def arguments(self) -> dict[str, Any]:
        """Return its fields as plain JSON, numbers as digits in strings."""
        return {field.name: plain_json(getattr(self, field.name)) for field in dataclasses.fields(self)}


@dataclass(frozen=True, kw_only=True)
class PriceReaches(Condition):
    """
    The price is at a level or beyond it.

    :param level: in quote currency.
    :param direction: ``up`` is at or above the level, ``down`` at or below, ``either`` stands for both.
    :param price: the price that is compared.
    """

    name: ClassVar[str] = "price_crossed"
    level: Decimal
    direction: Direction = Direction.UP
    price: PriceSource = PriceSource.LAST_TRADE

    @classmethod
    def of(cls, *, level: str, direction: str = Direction.UP, price: str = PriceSource.LAST_TRADE) -> PriceReaches:
        """Check arguments, numbers as text in plain digits; a QuoineInputError names the wrong one."""
        return cls(
            level=_checked_number("level", level),
            direction=checked_choice(Direction, "direction", direction),
            price=checked_choice(PriceSource, "price", price),
        )

    @property
    def data(self) -> MarketData:
        """Trades if the price is the last trade's, else the book."""
        return MarketData.TRADES if self.price is PriceSource.LAST_TRADE else MarketData.BOOK

    def holds(self, state: MarketState) -> bool | None:
        """Tell whether the price has reached the level; None if there is no price."""
        price = state.price(self.price)
        return None if price is None else _REACHED[self.direction](price, self.level)

    def position(self, state: MarketState, before: Position | None) -> Position | None:
        """Return the side of the level, if the direction is ``either``; else whether the price has reached it."""
        if self.direction is not Direction.EITHER:
            return super().position(state, before)
        price = state.price(self.price)
        if price is None:
            return None
        if price == self.level:
            return _AT_LEVEL.get(before, Position.AT)
        return Position.ABOVE if price > self.level else Position.BELOW

    def edge(self, before: Position | None, now: Position) -> Condition | None:
        """Return the crossing of one direction; if the direction is ``either``, up and down come in turn."""
        if self.direction is not Direction.EITHER:
            return super().edge(before, now)
        ways = _DIRECTIONS.get(before), _DIRECTIONS.get(now)
        if None in ways or ways[0] is ways[1]:
            return None
        return dataclasses.replace(self, direction=_DIRECTIONS[now])

    def values(self, state: MarketState) -> dict[str, Any]:
        """Return the price, its source, the level and the direction."""
        return {
            "price": plain_json(state.price(self.price)),
            "source": str(self.price),
            "level": plain_number(self.level),
            "direction": str(self.direction),
        }


@dataclass(frozen=True, kw_only=True)
class SpreadAbove(Condition):
    """
    Best ask minus best bid is above a bound.

    :param bound: an amount of quote currency, not a fraction of the price.
    """

    name: ClassVar[str] = "spread_above"
    bound: Decimal

    @classmethod
    def of(cls, *, bound: str) -> SpreadAbove:
        """Check arguments, numbers as text in plain digits; a QuoineInputError names the wrong one."""
        return cls(bound=_checked_number("bound", bound))

    def holds(self, state: MarketState) -> bool | None:
        """Tell whether the spread is above the bound; None if there is no spread or the book is crossed."""
        spread = state.spread
        return None if spread is None else spread > self.bound

    def values(self, state: MarketState) -> dict[str, Any]:
        """Return the spread, both prices and the bound."""
        return {
            "spread": plain_json(state.spread),
            "best_bid": plain_json(state.top.bid),
            "best_ask": plain_json(state.top.ask),
            "bound": plain_number(self.bound),
        }


@dataclass(frozen=True, kw_only=True)
class TradeAbove(Condition):
    """
    A trade is larger than a size. Each such trade is one event.

    :param size: in base currency.
    """

    name: ClassVar[str] = "trade_above"
    arming: ClassVar[Arming] = Arming.ALWAYS
    size: Decimal

    @classmethod
    def of(cls, *, size: str) -> TradeAbove:
        """Check arguments, numbers as text in plain digits; a QuoineInputError names the wrong one."""
        return cls(size=_checked_number("size", size))

    @property
    def data(self) -> MarketData:
        """Trades."""
        return MarketData.TRADES

    def holds(self, state: MarketState) -> bool | None:
        """Tell whether the trade is larger than the size."""
        return None if state.trade is None else state.trade.quantity > self.size

    def values(self, state: MarketState) -> dict[str, Any]:
        """Return the trade and the size."""
        return {"trade": state.trade and state.trade.as_dict(), "size": plain_number(self.size)}


@dataclass(frozen=True, kw_only=True)
class BookSilent(Condition):
    """
    Neither side of the book has sent data for a time, for any reason: a quiet market, a misspelt pair, a server that
    sends nothing, or no connection to it.

    :param seconds: the time.
    """

    name: ClassVar[str] = "book_silent"
    arming: ClassVar[Arming] = Arming.ACROSS_GAPS
    seconds: float

    @classmethod
    def of(cls, *, seconds: float) -> BookSilent:
        """Check that the seconds are 1 or more; else a QuoineInputError says so."""
        return cls(seconds=checked_seconds("seconds", seconds, least=1))

    def holds(self, state: MarketState) -> bool | None:
        """Tell whether the silence is longer than the time."""
        return state.monotonic - state.last_heard > self.seconds

    def since(self, state: MarketState) -> datetime:
        """Return when data came last."""
        return state.heard_at

    def values(self, state: MarketState) -> dict[str, Any]:
        """Return the length of the silence, the bound on it, and whether there is a connection now."""
        silent = round(state.monotonic - state.last_heard, 1)
        return {"silent_seconds": silent, "seconds": self.seconds, "connected": state.connected}


CONDITIONS: Mapping[str, Callable[..., Condition]] = {
    kind.name: kind.of for kind in (PriceReaches, SpreadAbove, TradeAbove, BookSilent)
}
"""Makes a condition from its arguments, by the name that its events have."""


def event_of(pair: Pair, condition: Condition, state: MarketState) -> dict[str, Any]:
    """
    Return the event that says that a condition is true, as plain JSON.

    :return: ``event`` (the condition's name), ``pair``, ``at`` (ISO 8601, UTC), and the condition's values.
    """
    return {"event": condition.name, "pair": str(pair), "at": state.at.isoformat(), **condition.values(state)}


def checked_seconds(name: str, value: Any, *, least: float) -> float:
    """
    Check an argument that is a number of seconds.

    :raises QuoineInputError: if it is no finite number, or below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
        raise QuoineInputError(f"{name} is {value!r:.40}: give a number of seconds, {least:g} or more.")
    return float(value)


def _checked_number(name: str, value: Any) -> Decimal:
    """Return the number above zero that a text of plain digits says."""
    if not isinstance(value, str) or not PLAIN_NUMBER.fullmatch(value) or not Decimal(value):
        raise QuoineInputError(
            f"{name} is {value!r:.60}: give a number above zero as text in plain digits, such as '600.5', with at most "
            f"{DIGITS} digits before the point and 30 after it. A float is not accepted, because it is not exact."
        )
    return Decimal(value)
