"""The rules of the request budget: limit, window, margin, and priorities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

from airflow_provider_quoine.exchange.errors import QuoineInputError

LIMIT = 300
"""Requests per window (api-reference, Introduction)."""

WINDOW = 300.0
"""Seconds (api-reference, Introduction)."""

MARGIN = 0.01
"""By how much longer than the window a slot counts, as a share of it (decisions, Budget: 3 s; see :class:`Rules`)."""

SCOPE = "address"
"""The unit by which the exchange counts requests: ``address`` or ``key`` (facts, Limits)."""

HIGHEST_LIMIT = 100_000


class Priority(IntEnum):
    """The order in which waiting requests get slots."""

    URGENT = 0
    """A person or a withdrawal waits."""
    NORMAL = 1
    POLLING = 2
    """Looking whether something has happened."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """
    How many requests are allowed.

    :param limit: requests per window, over all processes.
    :param window: seconds.
    :param margin: by how much longer than the window a slot counts, as a share of it. The exchange counts a request
        when it arrives, and the budget when its slot is taken; requests whose ways differ by less than
        ``window * margin`` seconds are still counted right.
    :raises QuoineInputError: out of bounds.
    """

    limit: int = LIMIT
    window: float = WINDOW
    margin: float = MARGIN

    def __post_init__(self) -> None:
        if not (1 <= self.limit <= HIGHEST_LIMIT and 0 < self.window < math.inf and 0 <= self.margin <= 1):
            raise QuoineInputError(
                f"The request budget cannot be {self.limit} requests in {self.window} s with a margin of "
                f"{self.margin}: give 1 to {HIGHEST_LIMIT} requests, a window above 0 s, and a margin from 0 to 1."
            )

    @property
    def margin_seconds(self) -> float:
        """Seconds by which a slot counts for longer than the window."""
        return self.window * self.margin

    @property
    def slot_lifetime(self) -> float:
        """Seconds for which a slot counts."""
        return self.window * (1 + self.margin)

    @property
    def urgent_reserve(self) -> int:
        """Slots of a window that only urgent requests take: a hundredth of the limit."""
        return self.limit // 100

    @property
    def pace(self) -> float:
        """Seconds per slot at an even pace, which polling keeps to."""
        return self.slot_lifetime / (self.limit - self.urgent_reserve)
