"""The gaps of one listener: told by the event loop and by the connection's thread."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from dataclasses import replace
from enum import StrEnum
from math import inf

from airflow_provider_quoine.exchange.clock import Clock
from airflow_provider_quoine.exchange.stream.events import Moment, StreamGap, utc

_ONE_GAP = 1.0
"""Seconds: messages that are missed with less between them are one gap, so that a slow reader has not a million."""


class Missed(StrEnum):
    """Why a single message was missed."""

    DROPPED = "the queue was full, so the oldest messages were dropped"
    UNREADABLE = "messages came that are not Pusher's and could not be read"


class GapBook:
    """Gaps in the order in which they became known; the newest of each kind may grow."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._gaps: list[StreamGap] = []
        self._missing: defaultdict[Missed, deque[StreamGap]] = defaultdict(lambda: deque(maxlen=2))
        """The newest two of each kind. Messages that come now and those that a slow reader finds in its queue may be
        unreadable in turn, and each of the two has a gap that grows."""
        self._up_since: Moment | None = None
        """Since when events can come; None before the first confirmation and while the connection is lost."""
        self._loss: StreamGap | None = None
        """The newest gap of a lost connection."""
        self.missed: Counter[Missed] = Counter()

    def begin(self, since: Moment, reason: str) -> None:
        """Begin a gap at the connection's last sign of life, unless one is open or no event could come yet."""
        if self._up_since is not None:
            # The listener may have joined, or its last gap may have ended, later than that.
            since = max(since, self._up_since, key=lambda moment: moment.monotonic)
            self._loss = StreamGap(utc(since.wall), reason, since.monotonic)
            self._gaps.append(self._loss)
            self._up_since = None

    def end(self) -> None:
        """Note that events can come, which ends that gap if there is one."""
        if self._up_since is None:
            self._up_since = Moment(self._clock.wall(), self._clock.monotonic())
            if self._loss is not None:
                self._loss.ended = self._up_since.monotonic

    def miss(self, why: Missed, at: Moment) -> None:
        """Note that a message was missed that came at a moment; on any thread."""
        with self._lock:
            self.missed[why] += 1
            for gap in self._missing[why]:
                # A message in a queue is found unreadable later than one that came after it: a gap grows forwards only.
                if gap.began <= at.monotonic <= (gap.ended or gap.began) + _ONE_GAP:
                    break
            else:
                gap = StreamGap(utc(at.wall), str(why), at.monotonic)
                self._missing[why].append(gap)
                self._gaps.append(gap)
            gap.ended = max(at.monotonic, gap.ended or at.monotonic)

    @property
    def stated(self) -> tuple[StreamGap, ...]:
        """All of them as they are now."""
        return tuple(replace(gap) for gap in tuple(self._gaps))

    @property
    def seconds(self) -> float:
        """Seconds that lie in at least one of them, those of an open one up to now included."""
        now = self._clock.monotonic()
        counted_to, seconds = -inf, 0.0
        for began, ended in sorted((gap.began, now if gap.ended is None else gap.ended) for gap in tuple(self._gaps)):
            seconds += max(0.0, ended - max(began, counted_to))
            counted_to = max(counted_to, ended)
        return seconds
