"""Watchers run as the triggerer runs them, on Airflow's own shared streams, against the sandbox."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from airflow.triggers.base import BaseEventTrigger
from airflow.triggers.shared_stream import SharedStreamManager

from airflow_provider_quoine.exchange.market.market_state import MarketState
from airflow_provider_quoine.exchange.market.top_of_book import TopOfBook
from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.support.streams import ASKS, BIDS, until

TRADES = "executions_cash_btcjpy"

Event = dict[str, Any]


def made_again(trigger: BaseEventTrigger) -> BaseEventTrigger:
    """Make a trigger as the triggerer does, from its serialized arguments."""
    _, arguments = trigger.serialize()
    return type(trigger)(**json.loads(json.dumps(arguments)))


@dataclass
class Watched:
    """
    Running watchers.

    :param manager: Airflow's manager of their shared streams.
    :param events: the events of each watcher so far.
    :param states: all states of their streams, by stream; those here are already in the watchers' queues.
    """

    manager: SharedStreamManager
    events: list[list[Event]]
    states: dict[Hashable, list[MarketState]] = field(default_factory=dict)


@asynccontextmanager
async def watching(*triggers: BaseEventTrigger, queue_size: int = 1024, pause: float = 0) -> AsyncIterator[Watched]:
    """
    Run watchers, each made again from what it serializes.

    :param queue_size: items that Airflow queues for a slow watcher.
    :param pause: seconds that the reader of events needs for each.
    """
    watched = Watched(SharedStreamManager(max_subscriber_queue=queue_size), [[] for _ in triggers])

    async def watch(number: int, trigger: BaseEventTrigger) -> None:
        async with subscribed(watched.manager, number, trigger) as stream:
            async for event in trigger.filter_shared_stream(stream):
                watched.events[number].append(json.loads(json.dumps(event.payload, allow_nan=False)))
                await asyncio.sleep(pause)

    async def record(number: int, trigger: BaseEventTrigger) -> None:
        states = watched.states.setdefault(trigger.shared_stream_key(), [])
        async with subscribed(watched.manager, number, trigger) as stream:
            async for each in stream:
                states.extend(each)

    tasks = [asyncio.create_task(watch(number, made_again(one))) for number, one in enumerate(triggers)]
    streams = {one.shared_stream_key(): one for one in triggers}
    tasks += [asyncio.create_task(record(-number, one)) for number, one in enumerate(streams.values(), start=1)]
    await until(lambda: len(watched.states) == len(streams))
    try:
        yield watched
        # Airflow would start a failed watcher again, for ever.
        assert [task for task in tasks if task.done()] == []
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def subscribed(
    manager: SharedStreamManager, number: int, trigger: BaseEventTrigger
) -> AsyncIterator[AsyncIterator[Any]]:
    """Subscribe as the triggerer does."""
    key = trigger.shared_stream_key()
    try:
        yield manager.subscribe(trigger_id=number, trigger=trigger, key=key)
    finally:
        await manager.unsubscribe(number, key)


_NUMBERS = itertools.count(90001)


def trade(price: str = "600", quantity: str = "1", **given: Any) -> Mapping[str, Any]:
    """Data of a trade, with an id of its own."""
    return {
        "id": next(_NUMBERS),
        "price": price,
        "quantity": quantity,
        "taker_side": "sell",
        "created_at": 1473000000,
        **given,
    }


async def subscribed_to(sandbox: SandboxServer, channel: str) -> None:
    """Wait until a channel is subscribed."""
    await until(lambda: channel in sandbox.control.state(requests=1)["stream"]["channels"])


async def trades(sandbox: SandboxServer, *each: Mapping[str, Any]) -> None:
    """Publish trades of BTC/JPY once their channel is subscribed."""
    await subscribed_to(sandbox, TRADES)
    for one in each:
        await asyncio.to_thread(sandbox.control.publish, TRADES, "created", one)


async def prices(sandbox: SandboxServer, *each: str) -> None:
    """Publish trades of BTC/JPY at these prices."""
    await trades(sandbox, *(trade(price) for price in each))


async def book(sandbox: SandboxServer, watched: Watched, bid: str, ask: str = "700") -> None:
    """Publish both sides of BTC/JPY's book, of one row each, and wait for its state."""
    (states,) = (states for key, states in watched.states.items() if "book" in str(key))
    await subscribed_to(sandbox, BIDS)
    await subscribed_to(sandbox, ASKS)
    for channel, price in ((BIDS, bid), (ASKS, ask)):
        await asyncio.to_thread(sandbox.control.publish, channel, "updated", [[price, "1"]])
    top = TopOfBook(bid=Decimal(bid), ask=Decimal(ask))
    await until(lambda: states and states[-1].top == top)
