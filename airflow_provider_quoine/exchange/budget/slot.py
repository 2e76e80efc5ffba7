"""A slot of the request budget: the right to send one request."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from airflow_provider_quoine.exchange.errors import QuoineInputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Slot:
    """
    The right to send one request.

    :param budget: the budget that counts it; None if none does.
    :param good_until: on this process' monotonic clock. The exchange counts a request when it arrives: one that arrives
        later counts there for longer than its slot counts in the budget.
    """

    budget: object
    good_until: float
    _unused: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def is_late(self) -> bool:
        """Whether a request must not be sent with it any more."""
        return time.monotonic() > self.good_until

    def use(self, *, budget: object) -> None:
        """
        Give the slot to a request.

        :param budget: that the request is counted by.
        :raises QuoineInputError: another budget counts the slot, or another request had it before.
        """
        if self.budget is not budget:
            raise QuoineInputError(
                "This slot is of another request budget than the request's. Nothing was sent. Take the slot from the "
                "client that sends the request."
            )
        # Nobody unlocks it: of several threads one gets it, once.
        if not self._unused.acquire(blocking=False):
            raise QuoineInputError(
                "This slot of the request budget was given to an earlier request, and a slot is good for one. "
                "Nothing was sent. Take a new slot for each request."
            )
