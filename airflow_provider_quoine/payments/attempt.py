"""One try of a task at a payment: the ledger's steps around one request."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from airflow_provider_quoine.exchange.errors import QuoineError, QuoineRateLimitedError, QuoineRefusedError
from airflow_provider_quoine.payments.ledger import Ledger, Order, Payment, Transaction
from airflow_provider_quoine.payments.schema import Step

SEND_WITHIN = timedelta(seconds=5)
"""Between ``sending`` in the ledger and the first byte of the request (decided)."""

Answer = TypeVar("Answer")


class QuoineTooLateError(QuoineError):
    """The bound between the ledger and the request has passed. Nothing was sent."""


class Attempt:
    """
    One try at a payment. Whatever else tries at the same time, at most one request leaves.

    :param ledger: where the payment stands.
    :param order: what it is.
    :param task: where in Airflow this is, for a person.
    :param clock: seconds on a clock that goes on while this process is stopped or the machine sleeps.
    """

    def __init__(self, *, ledger: Ledger, order: Order, task: str, clock: Callable[[], float] | None = None) -> None:
        self.name = secrets.token_hex(16)
        self._ledger = ledger
        self._order = order
        self._task = task
        self._clock = clock or boot_time
        self._deadline = 0.0

    def begin(self) -> Payment:
        """
        Find or begin the payment, before anything else can fail.

        :raises PaymentRefusedError: if it must not be sent.
        :raises LedgerUnusableError: if this is not the ledger that Airflow's payments are in.
        """
        return self._ledger.prepare(self._order, actor=self._task)

    def send(
        self, post: Callable[[Callable[[], None]], Answer], *, in_flight: timedelta, allow: Callable[[Transaction], str]
    ) -> Answer:
        """
        Send, with the ledger written before. The caller judges the answer and calls :meth:`finish`.

        :param post: sends the request once; calls what it is given right before the first byte leaves.
        :param in_flight: how long the request may take at most, from its first byte on.
        :param allow: reads the policy anew and returns its fingerprint, or raises.
        :raises PaymentRefusedError: if it must not be sent.
        :raises QuoineError: what became of the request; it is in the ledger already.
        """
        self.start(in_flight=in_flight, allow=allow)
        try:
            return post(self.check_in_time)
        except QuoineError as error:
            self.finish(step_after(error), reason=str(error))
            raise
        except BaseException as error:
            # A kill by Airflow or a fault of ours in the middle of it: nobody knows how far it got.
            self.finish(Step.UNKNOWN, reason=type(error).__name__)
            raise

    def start(self, *, in_flight: timedelta, allow: Callable[[Transaction], str]) -> None:
        """Become the one who sends, and have Airflow remember it before a byte leaves."""
        self._deadline = self._clock() + SEND_WITHIN.total_seconds()
        try:
            self._ledger.start_sending(
                self._order, attempt=self.name, task=self._task, in_flight=SEND_WITHIN + in_flight, allow=allow
            )
        except BaseException as error:
            # It may have come as far as the commit, where Airflow could not remember it. No byte has left.
            with suppress(Exception):
                self.finish(Step.PREPARED, reason=f"not begun: {type(error).__name__}")
            raise

    def check_in_time(self) -> None:
        """
        Stop a request that comes too late.

        :raises QuoineTooLateError: if this attempt was asleep, and a person may have settled the matter meanwhile.
        """
        if self._clock() > self._deadline:
            raise QuoineTooLateError(
                f"More than {SEND_WITHIN.total_seconds():g} s passed between the ledger and the request (a stopped "
                "worker or a sleeping machine), so nothing was sent."
            )

    def finish(self, step: Step, *, exchange_id: str | None = None, reason: str = "") -> bool:
        """Write the result over this attempt's own ``sending``; see :meth:`.Ledger.finish`."""
        return self._ledger.finish(self._order, attempt=self.name, step=step, exchange_id=exchange_id, reason=reason)


def boot_time() -> float:
    """Seconds since boot, sleep of the machine and stops of the process included (Linux ``CLOCK_BOOTTIME``)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def step_after(error: QuoineError) -> Step:
    """Return where a payment stands after its request failed."""
    if error.may_have_been_carried_out:
        return Step.UNKNOWN
    if isinstance(error, QuoineRefusedError) and not isinstance(error, QuoineRateLimitedError):
        return Step.REFUSED
    return Step.PREPARED
