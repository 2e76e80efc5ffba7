"""
One watcher's work without a clock, a store or an event loop: what it tells, and what it remembers when.

An event is written down before it is told, and stays written down until Airflow has surely stored it. So a watcher that
ends at any moment leaves to the next one what may not have been told; that one tells it once more, with the same id.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Iterable
from datetime import datetime

from airflow_provider_quoine.exchange.market.edge_detector import EdgeDetector
from airflow_provider_quoine.exchange.market.market_state import MarketState
from airflow_provider_quoine.exchange.market.watcher_memory import Event, WatcherMemory, recent

EVENTS_EVERY = 1.0
"""Least seconds between two writes because of events; events that come faster are written, and told, together."""
CHANGES_EVERY = 10.0
"""Least seconds between two writes because of anything else that changed."""
LATE_AFTER = 3.0
"""
Seconds for which events of a gap wait: if another watcher had no gap, it has told them, and has written that by then.
"""
REFRESH_EVERY = 60.0
"""Seconds after which the memory is written because data have come: until when something is known."""
STORED_AFTER = 10.0
"""Seconds after which an event that was told is taken to be in Airflow's database. It takes one or two."""
SAME_WITHIN = 1.0
"""Seconds within which two watchers see the same change of a book. No trade names it, so the moment has to."""
MOST_TOLD = 50
"""Events that are kept for the next watcher; if more came within :data:`STORED_AFTER`, it says what it cannot know."""


class Watch:
    """
    Take states of the market, and say what to write and what to tell: :meth:`observe`; then, if it is :meth:`due`, read
    the memory that is stored and :meth:`merge` it, write :meth:`memory`, and tell what :meth:`release` returns.

    :param detector: with the memory that was stored, if there was one.
    """

    def __init__(self, detector: EdgeDetector, *, life: str) -> None:
        self.detector = detector
        self._life = life
        # What the one before may not have told any more.
        self._pending = [event for _, event in detector.memory.told]
        self._ids = deque((event["event_id"] for event in self._pending), maxlen=4 * MOST_TOLD)
        self._told: list[tuple[datetime, Event]] = []
        self._now: MarketState | None = None
        self._written = dataclasses.replace(detector.memory)
        self._written_at = -math.inf
        self._repeat = False

    @property
    def has_events(self) -> bool:
        """Whether there are events to tell."""
        return bool(self._pending)

    def observe(self, states: Iterable[MarketState]) -> None:
        """Take the next states."""
        for state in states:
            self._now = state
            event = self.detector.observe(state)
            if event and event["event_id"] in self._ids:
                self.detector.take_back(event, is_known=False)
            elif event:
                self._pending.append(event)

    def due(self) -> bool:
        """Tell whether the memory is to be written now, or events are to be told."""
        if self._now is None:
            return False
        late = next((event for event in self._pending if self._is_late(event)), None)
        if late and recent(datetime.fromisoformat(late["at"]), self._now.at, LATE_AFTER):
            return False
        memory, passed = self.detector.memory, self._now.monotonic - self._written_at
        stored = len(self._told) > len(self._recently_told(self._now.at))
        return (
            (passed >= EVENTS_EVERY and (self.has_events or self._repeat))
            or (passed >= CHANGES_EVERY and (stored or memory.position != self._written.position))
            or (passed >= REFRESH_EVERY and memory.as_of != self._written.as_of)
        )

    def merge(self, other: WatcherMemory) -> None:
        """
        Take notice of what is stored, which may be another watcher's that watches the same at the same time.

        What it has told is told here as well, with its ids, unless it was. What it saw while there was a gap here is no
        event of this gap.
        """
        if other.life == self._life:
            return
        told_by_other = {event["event_id"]: event for _, event in other.told}
        self._pending = [event for event in self._pending if not self._was_seen(event, other)]
        unmatched = {id_: one for id_, one in told_by_other.items() if id_ not in self._ids}
        last = self.detector.memory.last
        for event in self._pending:
            # Each of the other's is one event here: a price that flaps has several within a second.
            same = (id_ for id_, one in unmatched.items() if _same(one, event))
            own, event["event_id"] = event["event_id"], next(same, event["event_id"])
            unmatched.pop(event["event_id"], None)
            # The next event counts on from this id.
            last |= {way: (at, event["event_id"]) for way, (at, id_) in last.items() if id_ == own}
        known = {*self._ids, *(event["event_id"] for event in self._pending)}
        self._pending += [event for id_, event in told_by_other.items() if id_ not in known]
        self.detector.adopt(other)

    def memory(self) -> WatcherMemory:
        """Return what to write now."""
        now = self._time().at
        told = [*self._recently_told(now), *((now, event) for event in self._pending)]
        memory = dataclasses.replace(self.detector.memory, life=self._life, told=told[-MOST_TOLD:])
        if dropped := told[:-MOST_TOLD]:
            memory.add_unknown(datetime.fromisoformat(dropped[0][1]["at"]), now)
        return memory

    def release(self) -> list[Event]:
        """Return the events to tell now."""
        now, released, self._written = self._time(), self._pending, self.memory()
        self._told = [*self._recently_told(now.at), *((now.at, event) for event in released)]
        self._ids.extend(event["event_id"] for event in released)
        # Written once more: another watcher that writes at the same moment may have replaced it with less.
        self._repeat = self.has_events
        self._pending, self._written_at = [], now.monotonic
        return released

    def _recently_told(self, now: datetime) -> list[tuple[datetime, Event]]:
        return [(at, event) for at, event in self._told if recent(at, now, STORED_AFTER)]

    def _is_late(self, event: Event) -> bool:
        """Tell whether an event is of a gap here, and not of one of the watcher before or of another."""
        return event["seen_after_gap"] and event["event_id"] not in self._ids

    def _was_seen(self, event: Event, other: WatcherMemory) -> bool:
        """Take an event of a gap back if the other watcher saw all of the gap, or told an event of it."""
        if not self._is_late(event) or other.as_of is None or other.seen_since is None:
            return False
        way = event.get("direction", "")
        since, until = (datetime.fromisoformat(event[name]) for name in ("gap_since", "unknown_until"))
        saw_all = other.seen_since <= since and until <= other.as_of
        told = [last for each, (last, _) in other.last.items() if each == way]
        told += [datetime.fromisoformat(one["at"]) for _, one in other.told if one.get("direction", "") == way]
        if not saw_all and not any(since < at <= until for at in told):
            return False
        self.detector.take_back(event, is_known=saw_all and event["unknown_since"] == event["gap_since"])
        self.detector.memory.last.pop(way, None)
        self.detector.memory.last |= {each: last for each, last in other.last.items() if each == way}
        return True

    def _time(self) -> MarketState:
        if self._now is None:
            raise AssertionError("nothing was observed yet")
        return self._now


def _same(one: Event, other: Event) -> bool:
    """Tell whether two events are of the same change of the book, which no trade names."""
    if one["event"] == "trade_above" or one.get("source") == "last_trade":
        return False
    at, other_at = (datetime.fromisoformat(event["at"]) for event in (one, other))
    return one.get("direction") == other.get("direction") and recent(at, other_at, SAME_WITHIN)
