"""What stands around every request: its slot of the budget, its retries if it only reads, and who is told of it."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from airflow_provider_quoine.exchange.budget.request_budget import Priority, RequestBudget
from airflow_provider_quoine.exchange.errors import (
    QuoineAnswerLostError,
    QuoineConnectionError,
    QuoineError,
    QuoineRateLimitedError,
    QuoineServiceUnavailableError,
)
from airflow_provider_quoine.exchange.observer import Observer
from airflow_provider_quoine.exchange.rest.endpoints import Endpoint

PASSING = (
    QuoineConnectionError,
    QuoineAnswerLostError,
    QuoineRateLimitedError,
    QuoineServiceUnavailableError,
)
"""What a read is repeated after: these may pass by themselves (facts, Error bodies)."""

FIRST_WAIT = 0.5
LONGEST_WAIT = 8.0
"""Seconds between two attempts: at random between 0 and the first, then twice as much, up to the longest (decided)."""

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Attempts:
    """
    Makes requests, each attempt with a slot of its own.

    A write is attempted once, whatever happens. A read is repeated here, below everything that asks for it, and
    nowhere else; waits do not use it, for they look again anyway.

    :param budget: None takes no slots.
    :param priority: of reads; whoever sends a write is always urgent.
    :param read_attempts: how often a read is sent at most.
    :param patience: seconds to wait for a slot at most.
    :param observer: is told of every attempt.
    """

    def __init__(
        self,
        *,
        budget: RequestBudget | None,
        priority: Priority,
        read_attempts: int,
        patience: float = math.inf,
        observer: Observer | None = None,
    ) -> None:
        self._budget = budget
        self._priority = priority
        self._retrying = Retrying(
            stop=stop_after_attempt(read_attempts),
            wait=wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
            retry=retry_if_exception_type(PASSING),
            before_sleep=_say_again,
            reraise=True,
        )
        self._patience = patience
        self._observer = observer or Observer()
        self._in_hand: deque[float] = deque()

    def take_slot(self) -> float:
        """Take the next request's slot now; see :meth:`~airflow_provider_quoine.exchange.rest.client.QuoineClient`."""
        waited = self._acquire(self._priority)
        self._in_hand.append(time.monotonic())
        return waited

    async def take_slot_async(self) -> float:
        """Do as :meth:`take_slot` without blocking the event loop."""
        waited = 0.0
        if self._budget is not None:
            waited = await self._budget.acquire_async(priority=self._priority, patience=self._patience)
        self._in_hand.append(time.monotonic())
        return waited

    def run(self, endpoint: Endpoint, send: Callable[[], Result]) -> Result:
        """
        Send one request, and a read again if it failed with one of :data:`PASSING`.

        :param send: sends it once.
        :raises QuoineError: of the last attempt.
        """
        if endpoint.writes:
            return self._attempt(endpoint, send)
        result: Result = self._retrying(self._attempt, endpoint, send)
        return result

    def _acquire(self, priority: Priority) -> float:
        if self._budget is None:
            return 0.0
        return self._budget.acquire(priority=priority, patience=self._patience)

    def _attempt(self, endpoint: Endpoint, send: Callable[[], Result]) -> Result:
        try:
            taken_at = self._in_hand.popleft()
        except IndexError:
            self._acquire(Priority.URGENT if endpoint.writes else self._priority)
            taken_at = time.monotonic()
        began, outcome, pause = time.monotonic(), "ok", None
        try:
            return send()
        except QuoineError as error:
            outcome = type(error).__name__
            if isinstance(error, QuoineRateLimitedError):
                pause = error.retry_after
            raise
        finally:
            self._after(endpoint, outcome, pause, began, taken_at)

    def _after(self, endpoint: Endpoint, outcome: str, pause: float | None, began: float, taken_at: float) -> None:
        ended = time.monotonic()
        try:
            if self._budget is not None and pause is not None:
                self._budget.pause(pause)
            if self._budget is not None and ended - taken_at > self._budget.late_after:
                self._budget.count_late()
            self._observer.requested(endpoint.name, outcome, ended - began)
        except Exception:
            # What the exchange did or said must reach the caller, whatever is wrong with our counting.
            log.exception("The request could not be counted.")


def _say_again(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0.0
    log.warning("Attempt %d: %s Again in %.1f s, once there is a slot.", state.attempt_number, error, pause)
