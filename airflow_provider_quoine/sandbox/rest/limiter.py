"""The exchange's rate limit: an exact sliding window per client address."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.settings import Clock


@dataclass
class _Window:
    """Times of one client's requests within the window: all of them, and the admitted ones."""

    all: deque[float] = field(default_factory=deque)
    admitted: deque[float] = field(default_factory=deque)


class RateLimiter:
    """
    Counts every request and admits ``limit`` of them in any ``window`` (api-reference, Rate limit).

    Requests are counted per client address, over all keys (facts, Limits). A refused request takes no slot.

    :param limit: requests per window
    :param window: seconds; a request leaves the window exactly that long after it came
    """

    def __init__(self, *, limit: int, window: float, clock: Clock) -> None:
        self._limit = limit
        self._window = window
        self._clock = clock
        self._windows: defaultdict[str, _Window] = defaultdict(_Window)
        self._refused = 0
        self._busiest = 0

    def admit(self, address: str) -> None:
        """Take a slot. Raises Refusal: 429 in plain text, with the seconds until a slot is free, rounded up."""
        now = self._clock()
        window = self._windows[address]
        for times in (window.all, window.admitted):
            while times and now - times[0] >= self._window:
                times.popleft()
        window.all.append(now)
        self._busiest = max(self._busiest, len(window.all))
        if len(window.admitted) >= self._limit:
            self._refused += 1
            seconds = max(1, math.ceil(window.admitted[0] + self._window - now))
            raise Refusal(429, f"API rate limit exceeded. Please retry after {seconds}s")
        window.admitted.append(now)

    def stats(self) -> dict[str, Any]:
        """
        Count requests against the limit.

        :return: ``limit``; ``window``; ``busiest_window``: the most requests of one address in any window, refused ones
            included; ``refused``: responses with 429
        """
        return {
            "limit": self._limit,
            "window": self._window,
            "busiest_window": self._busiest,
            "refused": self._refused,
        }
