"""
A market with two triggerers that watch it, in which seconds take no time and all chance comes from a seed.

The watchers are the package's own, in a :class:`~tests.simulation.world.World`. Here are the prices, the connections
that break, the triggerers that die, Airflow's asset state store, and a consumer that takes each event id once.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from airflow_provider_quoine.exchange.market.market_feed import CONFLATION, IDLE_INTERVAL
from airflow_provider_quoine.exchange.market.market_state import MarketState
from airflow_provider_quoine.exchange.market.messages import Execution, Side
from airflow_provider_quoine.exchange.market.watcher_memory import WatcherMemory
from airflow_provider_quoine.triggers.market_events import QuoinePriceCrossTrigger

LEVEL = Decimal(600)
TRANSIT = 0.02
"""Seconds from the exchange to a triggerer."""
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)

Event = dict[str, Any]


def now() -> float:
    """Return the seconds since the market opened."""
    return asyncio.get_running_loop().time()


@dataclass
class Store:
    """Airflow's asset state store, which takes its time; a dead triggerer's last write may still arrive."""

    chance: random.Random
    values: dict[str, str] = field(default_factory=dict)
    reads: int = 0
    writes: int = 0

    async def aget(self, key: str) -> Any:
        """Read."""
        self.reads += 1
        await asyncio.sleep(self.chance.uniform(0.005, 0.1))
        return json.loads(self.values[key]) if key in self.values else None

    async def aset(self, key: str, value: Any) -> None:
        """Write."""
        self.writes += 1
        asyncio.get_running_loop().call_later(
            self.chance.uniform(0.005, 0.1), self.values.__setitem__, key, json.dumps(value)
        )
        await asyncio.sleep(0.1)


class Triggerer:
    """
    One triggerer with the watcher in it.

    :param store: None if Airflow gives the watcher none.
    :param consumer: takes what Airflow has stored.
    """

    def __init__(self, chance: random.Random, store: Store | None, consumer: Consumer, direction: str) -> None:
        self.chance = chance
        self.connected = True
        self.kills = 0
        self._store = store
        self._consumer = consumer
        self._direction = direction
        self._epoch = self._lost = 0
        self._came: list[MarketState] = []
        self._has_come = asyncio.Event()
        self._alive: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin a life."""
        self._epoch += 1
        self._came = []
        self._has_come.clear()
        self._untold: list[Event] = []
        self._alive = [asyncio.create_task(self._watch()), asyncio.create_task(self._store_events())]

    def kill(self) -> None:
        """End its life at whatever it is doing."""
        self.kills += 1
        for task in self._alive:
            task.cancel()
        self._alive = []

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return bool(self._alive)

    def disconnect(self) -> None:
        """Lose the connection: what comes until :meth:`connect` is lost."""
        self.connected = False

    def connect(self) -> None:
        """Make a new connection."""
        self.connected = True
        self._epoch += 1

    def take(self, trade: Execution) -> None:
        """Have a trade come, if it can."""
        if not self.connected or not self.alive:
            return
        if self.chance.random() < 0.005:
            # Of a queue that overflows the oldest are lost, and counted with the next.
            self._lost += 1
            return
        at = NOON + timedelta(seconds=now())
        self._came.append(
            MarketState(
                at=at, monotonic=now(), epoch=self._epoch, last_heard=now(), trade=trade, missed_trades=self._lost
            )
        )
        self._has_come.set()
        self._lost = 0

    async def _states(self) -> AsyncIterator[tuple[MarketState, ...]]:
        epoch: Hashable = None
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_INTERVAL):
                    await self._has_come.wait()
            # No two triggerers hear of a trade at the same moment.
            await asyncio.sleep(self.chance.uniform(0, 0.02) + CONFLATION)
            came, self._came = self._came, []
            self._has_come.clear()
            epoch = came[-1].epoch if came else epoch
            yield (*came, MarketState(at=NOON + timedelta(seconds=now()), monotonic=now(), epoch=epoch, last_heard=0))

    async def _watch(self) -> None:
        trigger = QuoinePriceCrossTrigger(pair="btcjpy", level=str(LEVEL), direction=self._direction, cooldown=0)
        trigger.asset_state_store = self._store  # type: ignore[assignment]
        async for event in trigger.filter_shared_stream(self._states()):
            self._untold.append(event.payload)

    async def _store_events(self) -> None:
        """Do what Airflow does every second: store what the triggers have yielded."""
        while True:
            await asyncio.sleep(self.chance.uniform(0.5, 1.5))
            while self._untold:
                self._consumer.take(self._untold.pop(0))


@dataclass
class Consumer:
    """Takes each event id once."""

    taken: dict[str, Event] = field(default_factory=dict)
    repeated: int = 0

    def take(self, event: Event) -> None:
        """Take an event that Airflow has stored."""
        event = json.loads(json.dumps(event))
        self.repeated += event["event_id"] in self.taken
        self.taken.setdefault(event["event_id"], event)


@dataclass(frozen=True)
class Edge:
    """A crossing that happened, and when it came here, or would have."""

    trade: str
    direction: str
    at: datetime


@dataclass
class History:
    """What happened, and what was told."""

    edges: list[Edge]
    taken: list[Event]
    repeated: int
    kills: int
    seconds: float
    writes: int
    left: list[WatcherMemory]

    def untrue(self) -> list[Event]:
        """Return the events that say something that did not happen."""
        return [event for event in self.taken if not self._meant(event)]

    def doubled(self) -> list[Event]:
        """Return the events of gaps that mean nothing but edges that were told one by one as well."""
        told = {edge for event in self.taken if not event["seen_after_gap"] for edge in self._meant(event)}
        late = [event for event in self.taken if event["seen_after_gap"]]
        return [event for event in late if told.issuperset(self._meant(event))]

    def lost(self) -> list[Edge]:
        """Return the edges that nobody told and that are in no time that is said to be unknown."""
        told = {edge for event in self.taken for edge in self._meant(event)}
        unknown = [_unknown(event) for event in self.taken]
        unknown += [(each.unknown_since, each.unknown_until) for each in self.left]
        return [
            edge
            for edge in self.edges
            if edge not in told and not any(since and until and since <= edge.at <= until for since, until in unknown)
        ]

    def _meant(self, event: Event) -> list[Edge]:
        """Return the edges that an event may mean."""
        ways = [edge for edge in self.edges if edge.direction == event["direction"]]
        if not event["seen_after_gap"]:
            return [edge for edge in ways if event["event_id"].endswith(f"/{edge.trade}")]
        since, until = (datetime.fromisoformat(event[name]) for name in ("gap_since", "at"))
        return [edge for edge in ways if since <= edge.at <= until]


def _unknown(event: Event) -> tuple[datetime | None, datetime | None]:
    since, until = (event[name] and datetime.fromisoformat(event[name]) for name in ("unknown_since", "unknown_until"))
    return since, until


async def play(
    seed: int, *, edges: int, kills: int, direction: str = "up", with_store: bool = True, triggerers: int = 2
) -> History:
    """
    Let a market move, and everything else break, until there were so many edges and kills.

    :param triggerers: that have the watcher, all at the same time.
    """
    chance = random.Random(seed)
    store, consumer = Store(chance), Consumer()
    ones = [Triggerer(chance, store if with_store else None, consumer, direction) for _ in range(triggerers)]
    for one in ones:
        one.start()
    breaking = [asyncio.create_task(_break(chance, one)) for one in ones]
    happened = await _trade(chance, ones, direction, lambda count: count >= edges and _kills(ones) >= kills)
    for task in breaking:
        task.cancel()
    await asyncio.sleep(60)
    for one in ones:
        one.connect()
        if not one.alive:
            one.start()
    # So that everybody has seen everything, and has had the time to tell it. It crosses nothing in the direction.
    beyond = LEVEL + (5 if direction == "down" else -5)
    last = Execution(id="last", price=beyond, quantity=Decimal(1), taker_side=Side.BUY, created_at=NOON)
    for _ in range(60):
        for one in ones:
            one.take(last)
        await asyncio.sleep(2)
    seconds = now()
    for one in ones:
        one.kill()
    await asyncio.sleep(1)
    left = [WatcherMemory.of(json.loads(value)) for value in store.values.values()]
    return History(
        edges=happened,
        taken=list(consumer.taken.values()),
        repeated=consumer.repeated,
        kills=_kills(ones) - len(ones),
        seconds=seconds,
        writes=store.writes,
        left=left,
    )


def _kills(ones: list[Triggerer]) -> int:
    return sum(one.kills for one in ones)


async def _trade(chance: random.Random, ones: list[Triggerer], direction: str, enough: Any) -> list[Edge]:
    happened: list[Edge] = []
    price, loop = LEVEL - 1, asyncio.get_running_loop()
    for number in range(1_000_000):
        if enough(len(happened)):
            return happened
        before, price = price, price + chance.choice((-1, -1, 0, 1, 1)) * Decimal("0.5")
        price = min(max(price, LEVEL - 2), LEVEL + 2)
        trade = Execution(id=str(number), price=price, quantity=Decimal(1), taker_side=Side.BUY, created_at=NOON)
        happened += [
            Edge(str(number), way, NOON + timedelta(seconds=now() + TRANSIT))
            for way, crosses in (("up", before < LEVEL <= price), ("down", before > LEVEL >= price))
            if crosses and direction == way
        ]
        for one in ones:
            loop.call_later(TRANSIT, one.take, trade)
        await asyncio.sleep(chance.choice((0.01, 0.1, 0.5, 2.0)) * chance.random())
    raise AssertionError("there is no end")


async def _break(chance: random.Random, one: Triggerer) -> None:
    while True:
        await asyncio.sleep(chance.uniform(0.5, 20))
        if chance.random() < 0.5:
            one.disconnect()
            await asyncio.sleep(chance.choice((0.3, 3, 20)) * chance.random())
            one.connect()
        else:
            one.kill()
            await asyncio.sleep(chance.choice((0.3, 3, 30)) * chance.random())
            one.start()
