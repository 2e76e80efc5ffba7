"""Sensors that wait for something to be true of the market."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowException

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.market.channels import normalise_pair
from airflow_provider_quoine.exchange.market.conditions import (
    BookSilent,
    Direction,
    PriceReaches,
    SpreadAbove,
    TradeAbove,
)
from airflow_provider_quoine.failures import unknown_event, without_retry
from airflow_provider_quoine.triggers.market_events import QuoineMarketConditionTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_quoine.exchange.market.conditions import Condition


class _MarketSensor(BaseSensorOperator):
    """
    Wait until a condition of a pair's market is true.

    It need not come true while the task waits, as for a watcher: a task that comes after the price was reached would
    else wait for ever. It always waits in the triggerer: the market comes on a stream, so there is nothing to poke,
    and a worker would hold a slot and a connection of its own. ``poke_interval`` and ``mode`` have no effect.
    ``timeout`` and ``soft_fail`` are as in every sensor, but what is wrong in the arguments fails the task always.

    :param pair: currency pair code without separator, such as ``btcjpy``.
    :param quoine_conn_id: connection that names the stream.
    :return: ``event``, ``pair``, ``at`` (ISO 8601, UTC), and the values by which it is true; numbers as plain digits
        in strings.
    """

    ui_color = "#dbeafe"

    def __init__(self, *, pair: str, quoine_conn_id: str = "quoine_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pair = pair
        self.quoine_conn_id = quoine_conn_id

    def get_condition(self) -> Condition:
        """
        Return what to wait for, from the rendered fields.

        :raises QuoineInputError: naming the field that is wrong.
        """
        raise NotImplementedError

    def execute(self, context: Context) -> None:
        """
        Check the input and go over to the triggerer.

        :raises AirflowFailException: on wrong input, which no retry would mend.
        """
        with without_retry():
            pair, condition = normalise_pair(self.pair), self.get_condition()
        trigger = QuoineMarketConditionTrigger(
            pair=pair,
            condition=condition.name,
            arguments=dataclasses.asdict(condition),
            quoine_conn_id=self.quoine_conn_id,
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """
        Return what was seen.

        :param event: the trigger's.
        :raises AirflowException: if the stream cannot be had, or the event is not understood.
        """
        match event:
            case {"status": "success", "seen": dict(seen)}:
                return seen
            case {"status": "error", "message": str(message)}:
                raise AirflowException(message)
            case _:
                raise unknown_event(event, sender="The market trigger", expected="event of its own")


class QuoinePriceSensor(_MarketSensor):
    """
    Wait until the price is at a level or beyond it.

    :param level: in quote currency, as text: ``"600.5"``.
    :param direction: ``up`` waits for a price at or above the level, ``down`` for one at or below.
    :param price: what counts as the price: ``last_trade`` (the next one is the first that is known), or ``best_bid``,
        ``best_ask`` or ``mid`` of the book.
    """

    template_fields: Sequence[str] = ("pair", "quoine_conn_id", "level", "direction", "price")

    def __init__(self, *, level: str, direction: str = "up", price: str = "last_trade", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.level = level
        self.direction = direction
        self.price = price

    def get_condition(self) -> PriceReaches:
        """Return the level; every price is on one of its two sides, so one has to be chosen."""
        condition = PriceReaches(level=self.level, direction=self.direction, price=self.price)
        if condition.direction == Direction.EITHER:
            raise QuoineInputError("direction is 'either': a sensor waits for one side of the level, 'up' or 'down'.")
        return condition


class QuoineSpreadSensor(_MarketSensor):
    """
    Wait until best ask minus best bid is above a bound. A crossed book and one with an empty side are not judged.

    :param bound: an amount of quote currency, not a share of the price, as text: ``"2.5"``.
    """

    template_fields: Sequence[str] = ("pair", "quoine_conn_id", "bound")

    def __init__(self, *, bound: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bound = bound

    def get_condition(self) -> SpreadAbove:
        """Return the bound."""
        return SpreadAbove(bound=self.bound)


class QuoineLargeTradeSensor(_MarketSensor):
    """
    Wait for the next trade that is larger than a size.

    :param size: in base currency, as text: ``"5"``.
    """

    template_fields: Sequence[str] = ("pair", "quoine_conn_id", "size")

    def __init__(self, *, size: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size

    def get_condition(self) -> TradeAbove:
        """Return the size."""
        return TradeAbove(size=self.size)


class QuoineSilentBookSensor(_MarketSensor):
    """
    Wait until nothing has come of either side of the book for some time, for whatever reason, counted from when the
    trigger began to listen.

    :param seconds: how long, to the second; 1 or more.
    """

    template_fields: Sequence[str] = ("pair", "quoine_conn_id")

    def __init__(self, *, seconds: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seconds = seconds

    def get_condition(self) -> BookSilent:
        """Return the time."""
        return BookSilent(seconds=self.seconds)
