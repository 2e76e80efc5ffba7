"""Triggers on what happens in the market: those that start DAGs, and the one that the sensors wait with."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_provider_quoine.exchange.errors import QuoineError, QuoineInputError
from airflow_provider_quoine.exchange.market.conditions import (
    CONDITIONS,
    BookSilent,
    PriceReaches,
    SpreadAbove,
    TradeAbove,
    event_of,
    seconds_given,
)
from airflow_provider_quoine.exchange.market.edge_detector import Edges
from airflow_provider_quoine.exchange.market.market_feed import PULSE, MarketFeed
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.triggers.loop import spare_the_loop

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.market.conditions import Condition
    from airflow_provider_quoine.exchange.market.market_feed import Views

log = logging.getLogger(__name__)

FIRST_WAIT = 5.0
"""Seconds until a stream that cannot go on is opened again."""
LONGEST_WAIT = 300.0
"""The same after many failures in a row; it doubles each time."""
COOLDOWN = 60.0
"""Seconds after an event in which a watcher sends no other, unless it is told otherwise: each starts a DAG run."""


class _MarketEventTrigger(BaseEventTrigger):
    """
    Send an event whenever a condition of a pair's market comes true; made for an ``AssetWatcher``.

    All of one connection, pair and feed (book or trades) share one of Airflow's shared streams, and all of one
    connection a single connection to the stream's server. Nothing ends it, and it never fails: Airflow would start it
    again every 2 seconds for ever. A wrong connection or a refusal is logged once and tried again in growing intervals.

    Its events are plain JSON, as :class:`~airflow_provider_quoine.exchange.market.edge_detector.Edges` makes them.
    Neither they nor the arguments hold anything secret.

    :param pair: currency pair code, such as ``btcjpy``.
    :param condition: what to tell of.
    :param cooldown: seconds after an event in which the next ones are only counted.
    :param quoine_conn_id: connection that names the stream.
    :raises QuoineInputError: while the DAG is parsed, naming the argument that is wrong.
    """

    def __init__(self, *, pair: str, condition: Condition, cooldown: float, quoine_conn_id: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.condition = condition
        self.pair = MarketFeed(pair=pair, feed=condition.feed).pair
        self.cooldown = seconds_given("cooldown", cooldown, least=0)
        if not isinstance(quoine_conn_id, str) or not quoine_conn_id:
            raise QuoineInputError(f"quoine_conn_id is {quoine_conn_id!r:.40}: give the id of a connection.")
        self.quoine_conn_id = quoine_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments; equal triggers give equal ones, by which Airflow knows them."""
        arguments = {
            "pair": self.pair,
            **dataclasses.asdict(self.condition),
            "cooldown": self.cooldown,
            "quoine_conn_id": self.quoine_conn_id,
        }
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    def shared_stream_key(self) -> tuple[str, ...]:
        """Name the stream that it shares with its like."""
        return "quoine", self.quoine_conn_id, self.pair, self.condition.feed.value

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncGenerator[Views, None]:
        """Look at the market for ever; of the arguments, only those in the key matter."""
        spare_the_loop()
        one = cls(**kwargs)
        feed = MarketFeed(pair=one.pair, feed=one.condition.feed)
        loop = asyncio.get_running_loop()
        wait, told = FIRST_WAIT, ""
        while True:
            try:
                async with aclosing(look_at_market(one.quoine_conn_id, feed)) as looks:
                    async for views in looks:
                        if any(view.connected for view in views):
                            wait, told = FIRST_WAIT, ""
                        yield views
            # Whatever it is: Airflow would repeat it every 2 seconds for ever.
            except Exception as error:
                if told != str(error):
                    known = isinstance(error, QuoineError | AirflowException)
                    log.error(
                        "Nothing is seen of %s's %s, so it starts no DAG: %s It is tried again, now after %g s and at "
                        "last every %g s.",
                        feed.pair,
                        feed.feed.value,
                        error,
                        wait,
                        LONGEST_WAIT,
                        exc_info=None if known else error,
                    )
                told = str(error)
            due = loop.time() + wait
            while (left := due - loop.time()) > 0:
                await asyncio.sleep(min(PULSE, left))
                yield (feed.nothing(),)
            wait = min(2 * wait, LONGEST_WAIT)

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Views]) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each time that the condition comes true."""
        edges = Edges(pair=self.pair, condition=self.condition, cooldown=self.cooldown)
        async for views in shared_stream:
            for view in views:
                if event := edges.take(view):
                    yield _event(event)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Do the same alone."""
        async with aclosing(self.open_shared_stream(self.serialize()[1])) as stream:
            async for event in self.filter_shared_stream(stream):
                yield event


class QuoinePriceCrossTrigger(_MarketEventTrigger):
    """
    Start a DAG when the price goes through a level.

    ``up`` is one event when a price below the level is followed by one at or above it, ``down`` the other way round.
    Then the price has to go back before there is another. The first price after a start of the triggerer, and after
    each reconnect, only tells on which side of the level the market is.

    Its event holds ``price``, ``source``, ``level`` and ``direction``.

    :param pair: currency pair code, such as ``btcjpy``.
    :param level: in quote currency, as text: ``"600.5"``.
    :param direction: ``up``, ``down`` or ``either``.
    :param price: what counts as the price: ``last_trade``, of which each one is looked at; or ``best_bid``,
        ``best_ask`` or ``mid`` of the book, which is looked at ten times a second at most.
    :param cooldown: seconds after an event in which the next ones are only counted.
    :param quoine_conn_id: connection that names the stream.
    :raises QuoineInputError: naming the argument that is wrong.
    """

    def __init__(
        self,
        *,
        pair: str,
        level: str,
        direction: str = "up",
        price: str = "last_trade",
        cooldown: float = COOLDOWN,
        quoine_conn_id: str = "quoine_default",
    ) -> None:
        condition = PriceReaches(level=level, direction=direction, price=price)
        super().__init__(pair=pair, condition=condition, cooldown=cooldown, quoine_conn_id=quoine_conn_id)


class QuoineSpreadTrigger(_MarketEventTrigger):
    """
    Start a DAG when best ask minus best bid grows above a bound.

    A crossed book and one with an empty side are not judged. Its event holds ``spread``, ``best_bid``, ``best_ask``
    and ``bound``.

    :param pair: currency pair code, such as ``btcjpy``.
    :param bound: an amount of quote currency, not a share of the price, as text: ``"2.5"``.
    :param cooldown: seconds after an event in which the next ones are only counted.
    :param quoine_conn_id: connection that names the stream.
    :raises QuoineInputError: naming the argument that is wrong.
    """

    def __init__(
        self, *, pair: str, bound: str, cooldown: float = COOLDOWN, quoine_conn_id: str = "quoine_default"
    ) -> None:
        condition = SpreadAbove(bound=bound)
        super().__init__(pair=pair, condition=condition, cooldown=cooldown, quoine_conn_id=quoine_conn_id)


class QuoineLargeTradeTrigger(_MarketEventTrigger):
    """
    Start a DAG for each trade that is larger than a size.

    Its event holds ``trade`` and ``size``. What the cooldown held back is in ``suppressed`` of the next event.

    :param pair: currency pair code, such as ``btcjpy``.
    :param size: in base currency, as text: ``"5"``.
    :param cooldown: seconds after an event in which the next ones are only counted; 0 for a run for each trade.
    :param quoine_conn_id: connection that names the stream.
    :raises QuoineInputError: naming the argument that is wrong.
    """

    def __init__(
        self, *, pair: str, size: str, cooldown: float = COOLDOWN, quoine_conn_id: str = "quoine_default"
    ) -> None:
        condition = TradeAbove(size=size)
        super().__init__(pair=pair, condition=condition, cooldown=cooldown, quoine_conn_id=quoine_conn_id)


class QuoineSilentBookTrigger(_MarketEventTrigger):
    """
    Start a DAG when nothing has come of either side of the book for too long, for whatever reason.

    One event for each silence; a lost connection belongs to it. A watcher that starts within a silence counts it from
    its start. Its event holds ``silent_seconds``, ``seconds`` and ``connected``: whether there was a connection then.

    :param pair: currency pair code, such as ``btcjpy``.
    :param seconds: how long is too long, to the second; 1 or more.
    :param cooldown: seconds after an event in which the next ones are only counted.
    :param quoine_conn_id: connection that names the stream.
    :raises QuoineInputError: naming the argument that is wrong.
    """

    def __init__(
        self, *, pair: str, seconds: float, cooldown: float = COOLDOWN, quoine_conn_id: str = "quoine_default"
    ) -> None:
        condition = BookSilent(seconds=seconds)
        super().__init__(pair=pair, condition=condition, cooldown=cooldown, quoine_conn_id=quoine_conn_id)


class QuoineMarketConditionTrigger(BaseTrigger):
    """
    Wait until a condition of a pair's market is true; it may be from the beginning.

    Its one event is ``{"status": "success", "seen": {...}}`` or ``{"status": "error", "message": words}``; nothing in
    it is secret.

    :param pair: currency pair code.
    :param condition: its name, as its events have it.
    :param arguments: its fields.
    :param quoine_conn_id: connection that names the stream.
    """

    def __init__(self, *, pair: str, condition: str, arguments: dict[str, Any], quoine_conn_id: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.pair = pair
        self.condition = condition
        self.arguments = arguments
        self.quoine_conn_id = quoine_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments; Airflow rebuilds the trigger from them in a triggerer."""
        arguments = ("pair", "condition", "arguments", "quoine_conn_id")
        return f"{__name__}.{type(self).__qualname__}", {name: getattr(self, name) for name in arguments}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the one event."""
        spare_the_loop()
        try:
            payload = {"status": "success", "seen": await self._wait()}
        except (QuoineError, AirflowException) as error:
            payload = {"status": "error", "message": str(error)}
        yield _event(payload)

    async def _wait(self) -> dict[str, Any]:
        condition = CONDITIONS[self.condition](**self.arguments)
        feed = MarketFeed(pair=self.pair, feed=condition.feed)
        log.info(
            "Waiting for %s of %s on %s. The exchange sends nothing on subscription, only changes; a misspelt pair "
            "gives no error either, only silence.",
            condition,
            self.pair,
            " and ".join(feed.channels),
        )
        async with aclosing(look_at_market(self.quoine_conn_id, feed)) as looks:
            async for views in looks:
                for view in views:
                    if condition.holds(view):
                        return event_of(self.pair, condition, view)
        raise AssertionError("the market has no end")


async def look_at_market(quoine_conn_id: str, feed: MarketFeed) -> AsyncGenerator[Views, None]:
    """
    Open a feed's stream where the connection says, and anew whenever it has not worked for long.

    :raises QuoineError: if the connection is wrong or the server refuses.
    :raises AirflowException: if there is no such connection.
    """
    while True:
        endpoint = await QuoineHook(quoine_conn_id).aget_stream_endpoint()
        async with aclosing(feed.views(endpoint)) as looks:
            async for views in looks:
                yield views


def _event(payload: dict[str, Any]) -> TriggerEvent:
    return TriggerEvent(payload)  # type: ignore[no-untyped-call]
