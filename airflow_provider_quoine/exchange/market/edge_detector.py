"""Detection of the moments at which a condition becomes true, from states of the market alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from datetime import UTC, datetime, timedelta

from airflow_provider_quoine.exchange.market.conditions import Arming, Condition, Position, event_of
from airflow_provider_quoine.exchange.market.market_state import MarketData, MarketState
from airflow_provider_quoine.exchange.market.pairs import Pair
from airflow_provider_quoine.exchange.market.watcher_memory import Event, WatcherMemory

MOMENT = timedelta(seconds=10)
"""
Grid of the moments in the ids of events that no trade names. Two watchers see the same book a tenth of a second apart,
and so nearly always in the same step of it.
"""


class EdgeDetector:
    """
    Makes an event when a condition becomes true, and the next one only after the condition was false again.

    A condition that is true in the first state makes no event: it may have been true before. After a gap, a change
    since the state before it makes one that says so. The condition's
    :class:`~airflow_provider_quoine.exchange.market.conditions.Arming` says which conditions are exempt. No clock is
    read: the states have the time.

    :param source: name of the exchange's stream in the ids of events, which two exchanges would else give twice.
    :param cooldown: seconds after an event in which further events of its direction are counted and not returned.
    :param memory: of the watcher whose work goes on here. It is changed in place.
    """

    def __init__(
        self, *, pair: Pair, condition: Condition, cooldown: float, source: str, memory: WatcherMemory | None = None
    ) -> None:
        self.pair = pair
        self.condition = condition
        self.memory = memory or WatcherMemory()
        self._source = source
        self._cooldown = cooldown
        self._epoch: Hashable = None
        self._started: float | None = None
        self._gap_since: datetime | None = None

    def observe(self, state: MarketState) -> Event | None:
        """
        Take the next state.

        :return: the event of :func:`event_of`, if there is one, with ``event_id``, which is the same for everybody who
            saw the same; ``seen_after_gap``, if it happened in a gap, at whatever moment after ``gap_since``;
            ``unknown_since`` and ``unknown_until``, a time since the last event in which further ones may have happened
            unseen; ``suppressed`` (events since the last one that the cooldown suppressed) and ``missed_trades``
            (trades since the last one that were lost unseen).
        """
        if self._started is None:
            self._started = state.monotonic
        memory, arming = self.memory, self.condition.arming
        if state.last_heard < self._started:
            if arming is Arming.ACROSS_GAPS and memory.position is Position.TRUE:
                # The silence goes on that was told before.
                return None
            # A silence is measured from the detector's own start.
            state = dataclasses.replace(state, last_heard=self._started)
        if (state.epoch != self._epoch or state.missed_trades) and arming is not Arming.ACROSS_GAPS:
            self._gap_since = self._gap_since or memory.as_of
        self._epoch = state.epoch
        memory.missed_trades += state.missed_trades
        position = self.condition.position(state, memory.position)
        if position is None:
            return None
        gap_since, self._gap_since = self._gap_since, None
        if gap_since or memory.seen_since is None:
            memory.add_unknown(gap_since, state.at)
            memory.seen_since = state.at
        memory.as_of = state.heard_at
        if arming is Arming.ALWAYS:
            return self._event(self.condition, state) if position is Position.TRUE else None
        if position is memory.position:
            return None
        edge, memory.position = self.condition.edge(memory.position, position), position
        return self._event(edge, state, gap_since=gap_since) if edge else None

    def adopt(self, other: WatcherMemory) -> None:
        """Go on from what another watcher of the same knows, if that is newer."""
        memory = self.memory
        if other.as_of and memory.as_of and other.as_of > memory.as_of:
            memory.position, memory.as_of, memory.seen_since = other.position, other.as_of, other.seen_since
            memory.last |= other.last
            memory.add_unknown(other.unknown_since, other.unknown_until)
            self._gap_since = self._gap_since and other.as_of

    def take_back(self, event: Event, *, is_known: bool) -> None:
        """
        Have the next event say what one says that nobody is told.

        :param is_known: whether another watcher knows what the event says to be unknown.
        """
        self.memory.suppressed += event["suppressed"]
        self.memory.missed_trades += event["missed_trades"]
        if is_known:
            return
        since, until = (event[name] and datetime.fromisoformat(event[name]) for name in _UNKNOWN)
        self.memory.add_unknown(since, until)

    def _event(self, condition: Condition, state: MarketState, *, gap_since: datetime | None = None) -> Event | None:
        memory, event = self.memory, event_of(self.pair, condition, state)
        way = event.get("direction", "")
        last_at, last_id = memory.last.get(way, (None, ""))
        if last_at and timedelta(0) <= state.at - last_at < timedelta(seconds=self._cooldown):
            memory.suppressed += 1
            return None
        id_ = self._id(condition, state, last_id)
        memory.last[way] = state.at, id_
        event |= {
            "event_id": id_,
            "seen_after_gap": gap_since is not None,
            "gap_since": gap_since and gap_since.isoformat(),
            "unknown_since": memory.unknown_since and memory.unknown_since.isoformat(),
            "unknown_until": memory.unknown_until and memory.unknown_until.isoformat(),
            "suppressed": memory.suppressed,
            "missed_trades": memory.missed_trades,
        }
        memory.suppressed = memory.missed_trades = 0
        memory.unknown_since = memory.unknown_until = None
        return event

    def _id(self, condition: Condition, state: MarketState, last_id: str) -> str:
        """Return the id of an event: what happened, and the trade that showed it, or else the moment."""
        parts = [self._source, condition.name, str(self.pair), *map(str, condition.arguments().values())]
        if state.trade and condition.data is MarketData.TRADES:
            return "/".join([*parts, state.trade.id])
        since = condition.since(state)
        moment = since - (since - datetime(2000, 1, 1, tzinfo=UTC)) % MOMENT
        id_ = "/".join([*parts, moment.isoformat()])
        # More than one in one step of the grid: they are numbered.
        before, _, number = last_id.partition("#")
        return f"{id_}#{int(number or 1) + 1}" if before == id_ else id_


_UNKNOWN = "unknown_since", "unknown_until"
