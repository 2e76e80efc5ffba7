"""The gaps of one listener: told by the event loop and by the connection's thread."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import inf

from airflow_provider_quoine.exchange.clock import Clock
from airflow_provider_quoine.exchange.stream.events import Moment, StreamGap

_ONE_GAP = 1.0
"""Seconds: messages that are missed with less between them are one gap, so that a slow reader has not a million."""


class Missed(StrEnum):
    """Why a single message was missed."""

    DROPPED = "the queue was full, so the oldest messages were dropped"
    UNREADABLE = "messages came that are not Pusher's and could not be read"


@dataclass(slots=True)
class _Gap:
    reason: str
    since: Moment
    ended: float = inf
    """Infinite while it is open."""

    def seconds(self, now: float) -> float:
        return min(self.ended, now) - self.since.monotonic

    def stated(self) -> StreamGap:
        since = datetime.fromtimestamp(self.since.wall, UTC)
        if self.ended == inf:
            return StreamGap(since, None, self.reason, self.since.monotonic, None)
        # One microsecond more: a time that holds a single message must not be empty.
        until = since + timedelta(seconds=self.seconds(self.ended), microseconds=1)
        return StreamGap(since, until, self.reason, self.since.monotonic, self.ended)


class GapBook:
    """Gaps in the order in which they became known; the newest of each kind may grow."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._gaps: list[_Gap] = []
        self._missing: dict[Missed, _Gap] = {}
        self._loss: _Gap | None = None
        self.missed: Counter[Missed] = Counter()
        """How many messages."""

    def begin(self, since: Moment, reason: str) -> None:
        """Begin the gap of a lost connection."""
        self._loss = _Gap(reason, since)
        self._gaps.append(self._loss)

    def end(self) -> None:
        """End that gap, if there is one."""
        if self._loss is not None:
            self._loss.ended, self._loss = self._clock.monotonic(), None

    def miss(self, why: Missed, at: Moment) -> None:
        """
        Note that a message was missed; on any thread.

        :param at: when it arrived.
        """
        with self._lock:
            self.missed[why] += 1
            gap = self._missing.get(why)
            # A message in a queue is found unreadable later than one that came after it: a gap grows forwards only.
            if gap is None or not gap.since.monotonic <= at.monotonic <= gap.ended + _ONE_GAP:
                gap = self._missing[why] = _Gap(str(why), at, at.monotonic)
                self._gaps.append(gap)
            gap.ended = max(gap.ended, at.monotonic)

    @property
    def stated(self) -> tuple[StreamGap, ...]:
        """All of them."""
        return tuple(gap.stated() for gap in tuple(self._gaps))

    @property
    def seconds(self) -> float:
        """Seconds of all of them, those of an open one up to now included."""
        now = self._clock.monotonic()
        return sum(gap.seconds(now) for gap in tuple(self._gaps))
