"""Sends a request: takes a slot of the budget, retries reads, pauses everybody after a 429, tells the observer."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from airflow_provider_quoine.exchange.budget.request_budget import RequestBudget
from airflow_provider_quoine.exchange.budget.rules import Priority
from airflow_provider_quoine.exchange.budget.slot import Slot
from airflow_provider_quoine.exchange.errors import (
    QuoineAnswerLostError,
    QuoineConnectionError,
    QuoineError,
    QuoineRateLimitedError,
    QuoineResponseError,
    QuoineServiceUnavailableError,
)
from airflow_provider_quoine.exchange.observer import Observer
from airflow_provider_quoine.exchange.rest.endpoints import Endpoint

TRANSIENT = (
    QuoineConnectionError,
    QuoineAnswerLostError,
    QuoineRateLimitedError,
    QuoineServiceUnavailableError,
)
"""Failures after which a read is retried: they may pass by themselves (facts, Error bodies)."""

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 8.0
"""
Seconds before a retry: random, from 0 to the first, which doubles with each retry up to the longest (decisions,
Requests).
"""

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class RequestRunner:
    """
    Runs requests: a write is sent once, a read is retried after a :data:`TRANSIENT` failure.

    Each attempt takes a slot of its own. Reads are retried here and nowhere else.

    :param budget: None takes no slots.
    :param priority: see :class:`~airflow_provider_quoine.exchange.rest.client.QuoineClient`.
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
            wait=wait_random_exponential(multiplier=FIRST_BACKOFF, max=LONGEST_BACKOFF),
            retry=retry_if_exception_type(TRANSIENT),
            before_sleep=_log_retry,
            reraise=True,
        )
        self._patience = patience
        self._observer = observer or Observer()

    def take_slot(self) -> Slot:
        """See :meth:`~airflow_provider_quoine.exchange.rest.client.QuoineClient.take_slot`."""
        if self._budget is None:
            return self._free_slot()
        return self._budget.acquire(priority=self._priority, patience=self._patience)

    async def take_slot_async(self) -> Slot:
        """Do as :meth:`take_slot` without blocking the event loop."""
        if self._budget is None:
            return self._free_slot()
        return await self._budget.acquire_async(priority=self._priority, patience=self._patience)

    def run(self, endpoint: Endpoint, send: Callable[[], Result], *, slot: Slot | None) -> Result:
        """
        Send one request; retry a read.

        :param send: sends it once.
        :param slot: for the first attempt; None takes one now. If it is late, one is taken in its place.
        :raises QuoineInputError: the slot was used before, or is of another budget; nothing was sent.
        :raises QuoineError: of the last attempt.
        """
        slots = [self._use(slot)] if slot else []

        def attempt() -> Result:
            return self._attempt(endpoint, send, slots.pop() if slots else self.take_slot())

        if endpoint.writes:
            return attempt()
        result: Result = self._retrying(attempt)
        return result

    def _free_slot(self) -> Slot:
        return Slot(budget=None, good_until=math.inf)

    def _use(self, slot: Slot) -> Slot:
        slot.use(budget=self._budget)
        return self.take_slot() if slot.is_late else slot

    def _attempt(self, endpoint: Endpoint, send: Callable[[], Result], slot: Slot) -> Result:
        began, outcome, pause = time.monotonic(), "ok", None
        try:
            return send()
        except QuoineError as error:
            outcome = type(error).__name__
            if isinstance(error, QuoineResponseError):
                pause = error.retry_after
            raise
        finally:
            self._record(slot, pause, endpoint.name, outcome, time.monotonic() - began)

    def _record(self, slot: Slot, pause: float | None, endpoint: str, outcome: str, seconds: float) -> None:
        try:
            if self._budget is not None:
                if pause is not None:
                    self._budget.pause(pause)
                self._budget.request_ended(slot)
            self._observer.requested(endpoint, outcome, seconds)
        except Exception:
            # The exchange's answer must reach the caller, even if our counting fails.
            log.exception("The request could not be counted.")


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0.0
    log.warning("Attempt %d: %s Next attempt in %.1f s, once there is a slot.", state.attempt_number, error, pause)
