"""A fair queue of many waiters that are visited at any pace. It is pure: without clock and I/O."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

JITTER = 0.1
"""A rest is extended by up to this fraction, at random, so that waits that began together drift apart."""

SHORTEST_REST = 0.1
"""Seconds; a waiter without a rest would leave no visit to the others."""

_FEW = 64

Item = TypeVar("Item")


@dataclass(slots=True, eq=False)
class Place(Generic[Item]):
    """
    A waiter's place among the others.

    :param interval: seconds of its rest between two visits.
    :param late: seconds between the end of its last rest and its present visit.
    :param gone: whether it has left.
    """

    item: Item
    interval: float
    late: float = 0.0
    gone: bool = False


@dataclass
class FairQueue(Generic[Item]):
    """
    Chooses the waiter to visit next.

    After a visit a waiter rests for its interval; then it queues. If visits are scarce, all wait longer by the same
    factor, each in proportion to its interval (decisions, Waiting: self-clocked fair queueing, where a waiter's finish
    tag is the tag served last plus its interval). With equal intervals that is round robin. Times are seconds of any
    clock.

    :param chance: gives random numbers from 0 up to 1.
    """

    chance: Callable[[], float] = random.random
    _count: int = 0
    _gone: int = 0
    _numbers: int = 0
    _served: float = 0.0
    _resting: list[tuple[float, int, Place[Item]]] = field(default_factory=list)
    _queued: list[tuple[float, int, float, Place[Item]]] = field(default_factory=list)

    def __len__(self) -> int:
        """Count the waiters, those that are being visited included."""
        return self._count

    def join(self, item: Item, *, interval: float, now: float) -> Place[Item]:
        """
        Add a waiter. Its first visit comes after a random fraction of the interval, so that there is no burst.

        :param interval: seconds between two visits, at least.
        """
        place = Place(item, max(interval, SHORTEST_REST))
        self._count += 1
        self._rest(place, now + place.interval * self.chance())
        return place

    def leave(self, place: Place[Item]) -> None:
        """Remove a waiter, also during its visit; to remove it again does nothing."""
        if place.gone:
            return
        place.gone = True
        self._count -= 1
        self._gone += 1
        # Rarely, so that each removal is cheap, even if thousands leave at once or come and go during a long rest.
        if self._gone > self._count + _FEW:
            self._gone = 0
            self._resting = [entry for entry in self._resting if not entry[-1].gone]
            self._queued = [entry for entry in self._queued if not entry[-1].gone]
            heapq.heapify(self._resting)
            heapq.heapify(self._queued)

    def take(self, now: float) -> Place[Item] | None:
        """
        Take the next waiter to visit; :meth:`rest` puts it back.

        :return: None if all rest.
        """
        while self._resting and self._resting[0][0] <= now:
            rested_at, number, place = heapq.heappop(self._resting)
            heapq.heappush(self._queued, (self._served + place.interval, number, rested_at, place))
        while self._queued:
            tag, _, rested_at, place = heapq.heappop(self._queued)
            if not place.gone:
                self._served = tag
                place.late = now - rested_at
                return place
        return None

    def next_at(self) -> float | None:
        """Return the end of the next rest, after :meth:`take` returned None; None if no waiter rests."""
        while self._resting and self._resting[0][-1].gone:
            heapq.heappop(self._resting)
        return self._resting[0][0] if self._resting else None

    def rest(self, place: Place[Item], *, visited_at: float) -> None:
        """
        Put a waiter back after its visit; it may have left meanwhile.

        :param visited_at: begin of its visit.
        """
        self._rest(place, visited_at + place.interval * (1 + JITTER * self.chance()))

    def _rest(self, place: Place[Item], until: float) -> None:
        self._numbers += 1
        heapq.heappush(self._resting, (until, self._numbers, place))
