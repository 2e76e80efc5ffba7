"""Triggers on market events: watchers that start DAGs, and the trigger that the market sensors defer to."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_quoine.exchange.errors import QuoineError, QuoineInputError
from airflow_provider_quoine.exchange.market.conditions import (
    CONDITIONS,
    BookSilent,
    PriceReaches,
    SpreadAbove,
    TradeAbove,
    checked_seconds,
    event_of,
)
from airflow_provider_quoine.exchange.market.edge_detector import EdgeDetector
from airflow_provider_quoine.exchange.market.market_feed import IDLE_INTERVAL, MarketFeed
from airflow_provider_quoine.exchange.market.pairs import Pair
from airflow_provider_quoine.exchange.market.watch import Watch
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.triggers.base import OutcomeTrigger
from airflow_provider_quoine.triggers.events import Outcome, Status
from airflow_provider_quoine.triggers.watcher_store import FIRST_TIMEOUT, WatcherStore

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.market.conditions import Condition
    from airflow_provider_quoine.exchange.market.market_feed import States

log = logging.getLogger(__name__)

FIRST_RETRY_DELAY = 5.0
"""Seconds until a stream that could not be opened is tried again; doubled after each failure in a row."""
LONGEST_RETRY_DELAY = 300.0
"""Upper bound of that delay, in seconds."""
COOLDOWN = 60.0
"""Seconds after an event in which a watcher sends no other, by default: each event starts a DAG run."""


class _Common(TypedDict, total=False):
    cooldown: float
    quoine_conn_id: str
    queue: str | None


class _MarketEventTrigger(BaseEventTrigger):
    """
    Send an event each time a condition of a pair's market becomes true; made for an ``AssetWatcher``.

    Watchers with the same Airflow connection, pair and data (book or trades) share one of Airflow's shared streams, and
    all with the same Airflow connection share one connection to the stream's server. A watcher never ends and never
    fails: Airflow would start it again every 2 seconds for ever. A wrong connection or a refusal is logged once and
    retried with growing delays.

    Events are plain JSON, made by :class:`~airflow_provider_quoine.exchange.market.edge_detector.EdgeDetector`. What a
    watcher knows is kept in Airflow's asset state store, so that the next one goes on where it ended
    (:class:`~airflow_provider_quoine.exchange.market.watch.Watch`). Nothing in either, or in the arguments, is secret.

    :param pair: currency pair code, such as ``btcjpy``.
    :param condition: the condition.
    :param cooldown: seconds after an event in which further events are only counted.
    :param quoine_conn_id: Airflow connection that names the stream.
    :param queue: Airflow's trigger queue, from Airflow 3.4 on.
    :raises QuoineInputError: while the DAG is parsed, naming the argument that is wrong.
    """

    def __init__(
        self,
        *,
        pair: str,
        condition: Condition,
        cooldown: float = COOLDOWN,
        quoine_conn_id: str = "quoine_default",
        queue: str | None = None,
    ) -> None:
        # Airflow 3.3 takes any argument here, and makes no use of this one.
        super().__init__(queue=queue)  # type: ignore[no-untyped-call]  # untyped in Airflow
        self.pair = Pair(pair)
        self.condition = condition
        # Made here, so that a channel's name that is too long is an import error of the DAG.
        self._feed = MarketFeed(pair=self.pair, data=condition.data)
        self.cooldown = checked_seconds("cooldown", cooldown, least=0)
        if not isinstance(quoine_conn_id, str) or not quoine_conn_id:
            raise QuoineInputError(f"quoine_conn_id is {quoine_conn_id!r:.40}: give the id of a connection.")
        self.quoine_conn_id = quoine_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, equal ones for equal triggers: Airflow identifies a trigger by them."""
        arguments = {
            "pair": str(self.pair),
            **self.condition.arguments(),
            "cooldown": self.cooldown,
            "quoine_conn_id": self.quoine_conn_id,
        }
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    def shared_stream_key(self) -> tuple[str, ...]:
        """Return the key of the shared stream that this watcher reads."""
        return "quoine", self.quoine_conn_id, str(self.pair), str(self.condition.data)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncGenerator[States, None]:
        """
        Yield the states of a market for ever.

        :param kwargs: arguments of any of the watchers that share the stream.
        """
        watcher = cls(**kwargs)
        feed = watcher._feed
        loop = asyncio.get_running_loop()
        delay, logged = FIRST_RETRY_DELAY, ""
        while True:
            try:
                async with aclosing(market_states(watcher.quoine_conn_id, feed)) as batches:
                    async for states in batches:
                        if any(state.connected for state in states):
                            delay, logged = FIRST_RETRY_DELAY, ""
                        yield states
            # Any error: a trigger that fails is started again by Airflow every 2 seconds for ever.
            except Exception as error:
                if logged != str(error):
                    expected = isinstance(error, QuoineError | AirflowException)
                    log.error(
                        "The market stream of %s (%s) cannot be read, so its watchers start no DAG: %s The next try is "
                        "in %g s; the delay doubles up to %g s.",
                        feed.pair,
                        feed.data,
                        error,
                        delay,
                        LONGEST_RETRY_DELAY,
                        exc_info=None if expected else error,
                    )
                logged = str(error)
            retry_at = loop.time() + delay
            while (remaining := retry_at - loop.time()) > 0:
                await asyncio.sleep(min(IDLE_INTERVAL, remaining))
                yield (feed.disconnected_state(),)
            delay = min(2 * delay, LONGEST_RETRY_DELAY)

    async def filter_shared_stream(self, shared_stream: AsyncIterator[States]) -> AsyncIterator[TriggerEvent]:
        """Yield an event each time the condition becomes true; what is known is kept in Airflow's asset state store."""
        # Before Airflow 3.3.2 a trigger has none.
        store = WatcherStore(getattr(self, "asset_state_store", None), self._memory_key())
        detector = EdgeDetector(
            pair=self.pair,
            condition=self.condition,
            cooldown=self.cooldown,
            source=self.quoine_conn_id,
            memory=await store.read(within=FIRST_TIMEOUT),
        )
        watch = Watch(detector, life=uuid.uuid4().hex)
        async for states in shared_stream:
            watch.observe(states)
            if store.usable and watch.due():
                watch.merge(await store.read())
                await store.write(watch.memory())
            elif store.usable or not watch.has_events:
                continue
            for event in watch.release():
                yield TriggerEvent(event)  # type: ignore[no-untyped-call]  # untyped in Airflow

    def _memory_key(self) -> str:
        arguments = "/".join(map(str, self.condition.arguments().values()))
        return f"quoine/{self.quoine_conn_id}/{self.condition.name}/{self.pair}/{arguments}"

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Do the same without a shared stream."""
        async with aclosing(self.open_shared_stream(self.serialize()[1])) as stream:
            async for event in self.filter_shared_stream(stream):
                yield event


class QuoinePriceCrossTrigger(_MarketEventTrigger):
    """
    Start a DAG when the price crosses a level.

    ``up`` makes one event when a price below the level is followed by one at or above it, ``down`` the reverse. The
    next event comes only after the price has gone back. A crossing that happened during a reconnect or a restart of the
    triggerer is told afterwards, with ``seen_after_gap``. The first price ever makes no event: the side on which the
    price was before is not known.

    Its event holds ``price``, ``source``, ``level`` and ``direction``.

    :param pair: currency pair code, such as ``btcjpy``.
    :param level: in quote currency, as text: ``"600.5"``.
    :param direction: ``up``, ``down`` or ``either``.
    :param price: the price that is compared: ``last_trade``, for which every trade is judged; or ``best_bid``,
        ``best_ask`` or ``mid`` of the book, which is judged ten times a second at most.
    :param cooldown: seconds after an event in which further events are only counted; by default :data:`COOLDOWN`.
    :param quoine_conn_id: Airflow connection that names the stream.
    :param queue: Airflow's trigger queue: with ``[triggerer] queues_enabled``, triggerers of this queue run it. It has
        no effect before Airflow 3.4.
    :raises QuoineInputError: naming the argument that is wrong.
    """

    def __init__(
        self, *, pair: str, level: str, direction: str = "up", price: str = "last_trade", **common: Unpack[_Common]
    ) -> None:
        super().__init__(pair=pair, condition=PriceReaches.of(level=level, direction=direction, price=price), **common)


class QuoineSpreadTrigger(_MarketEventTrigger):
    """
    Start a DAG when best ask minus best bid rises above a bound.

    A crossed book and a book with an empty side are not judged. Its event holds ``spread``, ``best_bid``, ``best_ask``
    and ``bound``. Its other arguments are those of :class:`QuoinePriceCrossTrigger`.

    :param bound: an amount of quote currency, not a fraction of the price, as text: ``"2.5"``.
    """

    def __init__(self, *, pair: str, bound: str, **common: Unpack[_Common]) -> None:
        super().__init__(pair=pair, condition=SpreadAbove.of(bound=bound), **common)


class QuoineLargeTradeTrigger(_MarketEventTrigger):
    """
    Start a DAG for each trade that is larger than a size.

    Its event holds ``trade`` and ``size``. The next event counts in ``suppressed`` those that the cooldown
    suppressed; with a cooldown of 0 there is a run for each trade. Its other arguments are those of
    :class:`QuoinePriceCrossTrigger`.

    :param size: in base currency, as text: ``"5"``.
    """

    def __init__(self, *, pair: str, size: str, **common: Unpack[_Common]) -> None:
        super().__init__(pair=pair, condition=TradeAbove.of(size=size), **common)


class QuoineSilentBookTrigger(_MarketEventTrigger):
    """
    Start a DAG when neither side of the book has sent data for a time, for any reason.

    There is one event for each silence. A silence goes on while the connection is lost. A watcher measures it from its
    own start, and does not tell again one that was told before a restart. Its event holds ``silent_seconds``,
    ``seconds`` and ``connected``: whether there is a connection. Its other arguments are those of
    :class:`QuoinePriceCrossTrigger`.

    :param seconds: length of the silence, 1 or more; noticed within a second.
    """

    def __init__(self, *, pair: str, seconds: float, **common: Unpack[_Common]) -> None:
        super().__init__(pair=pair, condition=BookSilent.of(seconds=seconds), **common)


class QuoineMarketConditionTrigger(OutcomeTrigger):
    """
    Wait until a condition of a pair's market is true. It may be true from the beginning.

    Its one event is an :class:`~airflow_provider_quoine.triggers.events.Outcome`: ``success`` with the market event as
    its result, or ``error``. Nothing in it is secret.

    :param pair: currency pair code, such as ``btcjpy``.
    :param condition: the condition's name, as its events have it.
    :param arguments: the condition's fields, as in the watcher of the same event.
    :param quoine_conn_id: Airflow connection that names the stream.
    :raises QuoineInputError: naming the argument that is wrong.
    """

    def __init__(self, *, pair: str, condition: str, arguments: Mapping[str, Any], quoine_conn_id: str) -> None:
        super().__init__()
        self.pair = Pair(pair)
        self.condition = CONDITIONS[condition](**arguments)
        self.quoine_conn_id = quoine_conn_id

    def stored_arguments(self) -> dict[str, Any]:
        """Return pair, condition and connection."""
        return {
            "pair": str(self.pair),
            "condition": self.condition.name,
            "arguments": self.condition.arguments(),
            "quoine_conn_id": self.quoine_conn_id,
        }

    async def outcomes(self) -> AsyncIterator[Outcome]:
        """Wait until the condition is true, and yield the one outcome. The stream is closed before that."""
        yield Outcome(status=Status.SUCCESS, result=await self._wait())

    async def _wait(self) -> dict[str, Any]:
        feed = MarketFeed(pair=self.pair, data=self.condition.data)
        log.info(
            "Waiting for %s of %s %s on %s. The exchange sends nothing on subscription, only changes. A misspelt pair "
            "is no error: nothing comes.",
            self.condition.name,
            self.pair,
            self.condition.arguments(),
            " and ".join(feed.channels),
        )
        async with aclosing(market_states(self.quoine_conn_id, feed)) as batches:
            async for states in batches:
                for state in states:
                    if self.condition.holds(state):
                        return event_of(self.pair, self.condition, state)
        raise AssertionError("the market's states never end")


async def market_states(quoine_conn_id: str, feed: MarketFeed) -> AsyncGenerator[States, None]:
    """
    Yield a feed's states for ever. The Airflow connection is read again each time the feed has to be opened again, in
    case a person has corrected it.

    :raises QuoineError: if the Airflow connection is wrong or the server refuses.
    :raises AirflowException: if there is no such Airflow connection.
    """
    while True:
        endpoint = await QuoineHook(quoine_conn_id).aget_stream_endpoint()
        async with aclosing(feed.states(endpoint)) as batches:
            async for states in batches:
                yield states
