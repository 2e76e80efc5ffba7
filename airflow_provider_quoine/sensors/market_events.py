"""Sensors that wait until a condition of the market is true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseSensorOperator

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.market.conditions import (
    BookSilent,
    Direction,
    PriceReaches,
    SpreadAbove,
    TradeAbove,
)
from airflow_provider_quoine.failures import in_words, without_retry
from airflow_provider_quoine.triggers.events import read_event
from airflow_provider_quoine.triggers.market_events import QuoineMarketConditionTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_quoine.exchange.market.conditions import Condition


class _MarketSensor(BaseSensorOperator):
    """
    Wait until a condition of a pair's market is true.

    The condition may be true already when the task starts; a watcher would wait until it becomes true again. The task
    always waits in the triggerer: the market comes on a stream, so there is nothing to poke, and a task that waits in a
    worker would hold a slot and a connection of its own. ``poke_interval`` and ``mode`` have no effect. ``timeout`` and
    ``soft_fail`` work as in every sensor, but wrong arguments always fail the task.

    :param pair: currency pair code without separator, such as ``btcjpy``.
    :param quoine_conn_id: Airflow connection that names the stream.
    :return: ``event``, ``pair``, ``at`` (ISO 8601, UTC), and the values by which the condition is true; numbers as
        plain digits in strings.
    """

    template_fields: Sequence[str] = ("pair", "quoine_conn_id")
    ui_color = "#dbeafe"
    condition: ClassVar[type[Condition]]

    def __init__(self, *, pair: str, quoine_conn_id: str = "quoine_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pair = pair
        self.quoine_conn_id = quoine_conn_id

    def get_arguments(self) -> dict[str, Any]:
        """
        Return the condition's arguments, from the rendered fields of the same names. The trigger checks them.

        :raises QuoineInputError: naming the argument that no sensor accepts.
        """
        return {each.name: getattr(self, each.name) for each in fields(self.condition)}

    def execute(self, context: Context) -> None:
        """
        Check the input and defer to the triggerer.

        :raises AirflowFailException: on wrong input, which no retry can correct.
        """
        with without_retry():
            trigger = QuoineMarketConditionTrigger(
                pair=self.pair,
                condition=self.condition.name,
                arguments=self.get_arguments(),
                quoine_conn_id=self.quoine_conn_id,
            )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """
        Return the market event by which the condition is true.

        :param event: the trigger's event.
        :raises AirflowException: if the stream cannot be read, or the trigger's event is not understood.
        """
        with in_words():
            return read_event(event, sender="The market trigger").success()


class QuoinePriceSensor(_MarketSensor):
    """
    Wait until the price is at a level or beyond it.

    :param level: in quote currency, as text: ``"600.5"``.
    :param direction: ``up`` waits for a price at or above the level, ``down`` for one at or below.
    :param price: the price that is compared: ``last_trade`` (no earlier trade is known than the first one that comes
        while the task waits), or ``best_bid``, ``best_ask`` or ``mid`` of the book.
    """

    condition = PriceReaches
    template_fields = (*_MarketSensor.template_fields, "level", "direction", "price")

    def __init__(self, *, level: str, direction: str = "up", price: str = "last_trade", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.level = level
        self.direction = direction
        self.price = price

    def get_arguments(self) -> dict[str, Any]:
        """Return level, direction and price. ``either`` is refused: it is true of every price."""
        if self.direction == Direction.EITHER:
            raise QuoineInputError("direction is 'either': a sensor waits for one side of the level, 'up' or 'down'.")
        return super().get_arguments()


class QuoineSpreadSensor(_MarketSensor):
    """
    Wait until best ask minus best bid is above a bound. A crossed book and a book with an empty side are not judged.

    :param bound: an amount of quote currency, not a fraction of the price, as text: ``"2.5"``.
    """

    condition = SpreadAbove
    template_fields = (*_MarketSensor.template_fields, "bound")

    def __init__(self, *, bound: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bound = bound


class QuoineLargeTradeSensor(_MarketSensor):
    """
    Wait for the next trade that is larger than a size.

    :param size: in base currency, as text: ``"5"``.
    """

    condition = TradeAbove
    template_fields = (*_MarketSensor.template_fields, "size")

    def __init__(self, *, size: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size


class QuoineSilentBookSensor(_MarketSensor):
    """
    Wait until neither side of the book has sent data for a time, for any reason, measured from the moment at which the
    trigger began to listen.

    :param seconds: length of the silence, 1 or more; noticed within a second.
    """

    condition = BookSilent

    def __init__(self, *, seconds: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seconds = seconds
