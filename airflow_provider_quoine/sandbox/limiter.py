"""The exchange's rate limit: an exact sliding window per client address."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.settings import Clock


@dataclass
class _Address:
    """Times of one address' requests inside the window: all of them, and those that got through."""

    seen: deque[float] = field(default_factory=deque)
    admitted: deque[float] = field(default_factory=deque)


class RateLimiter:
    """
    Counts every request and admits ``limit`` of them in any ``window`` (api-reference, "Rate limiting").

    Counted per client address over all keys (facts, Limits). A refused request takes no slot.

    :param limit: requests per window
    :param window: seconds; a request leaves the window exactly that long after it came
    :param clock: Unix seconds
    """

    def __init__(self, *, limit: int, window: float, clock: Clock) -> None:
        self._limit = limit
        self._window = window
        self._clock = clock
        self._addresses: defaultdict[str, _Address] = defaultdict(_Address)
        self._refused = 0
        self._busiest = 0

    def admit(self, address: str) -> None:
        """
        Take a slot.

        :param address: the client's address
        :raises Refusal: 429 in plain text, with the seconds until a slot is free, rounded up
        """
        now = self._clock()
        counts = self._addresses[address]
        for times in (counts.seen, counts.admitted):
            while times and now - times[0] >= self._window:
                times.popleft()
        counts.seen.append(now)
        self._busiest = max(self._busiest, len(counts.seen))
        if len(counts.admitted) >= self._limit:
            self._refused += 1
            seconds = max(1, math.ceil(counts.admitted[0] + self._window - now))
            raise Refusal(429, f"API rate limit exceeded. Please retry after {seconds}s")
        counts.admitted.append(now)

    def figures(self) -> dict[str, Any]:
        """
        Tell how hard the limit was pressed.

        :return: limit, window, the most requests of one address in any window (refused ones too), count of 429s
        """
        return {
            "limit": self._limit,
            "window": self._window,
            "busiest_window": self._busiest,
            "refused": self._refused,
        }
