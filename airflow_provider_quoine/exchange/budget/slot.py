"""A slot of the request budget: the right to send one request."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from airflow_provider_quoine.exchange.budget.rules import Priority
from airflow_provider_quoine.exchange.errors import QuoineInputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Slot:
    """
    The right to send one request.

    :param taken_at: when, on this process' monotonic clock.
    :param waited: seconds that it was waited for.
    """

    priority: Priority
    taken_at: float
    waited: float
    _unused: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def use(self) -> None:
        """
        Give the slot to a request.

        :raises QuoineInputError: another request had it before.
        """
        # Nobody unlocks it: of several threads one gets it, once.
        if not self._unused.acquire(blocking=False):
            raise QuoineInputError(
                "This slot of the request budget was given to an earlier request, and a slot is good for one. "
                "Nothing was sent. Take a new slot for each request."
            )
