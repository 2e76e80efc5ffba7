"""One try of a task at a payment: the ledger's steps around one request."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from airflow_provider_quoine.exchange.boot_clock import boot_time
from airflow_provider_quoine.exchange.errors import QuoineError, QuoineRateLimitedError, QuoineRefusedError
from airflow_provider_quoine.payments.ledger import SEND_WITHIN, Ledger
from airflow_provider_quoine.payments.records import Order, Payment
from airflow_provider_quoine.payments.refusals import (
    LedgerUnusableError,
    PaymentInDoubtError,
    PaymentRefusedError,
    how_to_settle,
)
from airflow_provider_quoine.payments.schema import Kind, Step
from airflow_provider_quoine.payments.transaction import Transaction

_E_MAIL = re.compile(r"[^\s@<>\"']+@[^\s@<>\"']+")

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
    :ivar has_sent: whether the exchange may have seen the request; false after a failure that leaves it to be sent as
        it is once more.
    """

    def __init__(self, *, ledger: Ledger, order: Order, task: str, clock: Callable[[], float] | None = None) -> None:
        self.name = secrets.token_hex(16)
        self.has_sent = False
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

    def note(self, event: str, **data: Any) -> None:
        """Append an event that changes nothing, such as a question to a person."""
        self._ledger.note(self._order, event, actor=self._task, **data)

    def last_note(self, event: str) -> dict[str, Any]:
        """Return what this try of the task noted last with such an event; empty if nothing."""
        return self._ledger.history(self._order).last_note(event, actor=self._task)

    def send(
        self,
        post: Callable[[Callable[[], None]], Answer],
        *,
        identify: Callable[[Answer], str],
        state: Callable[[Answer], str] = lambda _: "",
        in_flight: timedelta,
        allow: Callable[[Transaction], str],
    ) -> Answer:
        """
        Send, with the ledger written before and after.

        :param post: sends the request once; calls what it is given right before the first byte leaves.
        :param identify: gives the exchange's id in the answer.
        :param state: gives the exchange's word in the answer for where it stands.
        :param in_flight: how long the request may take at most, from its first byte on.
        :param allow: reads the policy anew and returns its fingerprint, or raises.
        :raises PaymentRefusedError: if it must not be sent.
        :raises PaymentInDoubtError: if it may have been carried out and no id is known.
        :raises QuoineError: if it surely was not carried out.
        """
        self.start(in_flight=in_flight, allow=allow)
        self.has_sent = True
        try:
            answer = post(self.check_in_time)
        except QuoineError as error:
            step = step_after(error)
            self.has_sent = step != Step.PREPARED
            self._finish_after_failure(step, self._reason(error))
            if step == Step.UNKNOWN:
                raise PaymentInDoubtError(f"{error}\n{how_to_settle(self._order)}", payment=self._found()) from None
            raise
        except BaseException as error:
            # A kill by Airflow or a fault of ours in the middle of it: nobody knows how far it got.
            self._finish_after_failure(Step.UNKNOWN, type(error).__name__)
            raise
        self._finish_as_sent(identify(answer), state(answer))
        return answer

    def start(self, *, in_flight: timedelta, allow: Callable[[Transaction], str]) -> None:
        """Become the one who sends, and have Airflow remember it before a byte leaves."""
        self._deadline = self._clock() + SEND_WITHIN.total_seconds()
        try:
            self._ledger.start_sending(
                self._order, attempt=self.name, task=self._task, in_flight=SEND_WITHIN + in_flight, allow=allow
            )
        except (PaymentRefusedError, QuoineError):
            # Refused, so nothing was written.
            raise
        except BaseException as error:
            # It may have come as far as the commit, where Airflow could not remember it. No byte has left.
            self._finish_after_failure(Step.PREPARED, f"not begun: {type(error).__name__}")
            raise

    def check_in_time(self) -> None:
        """
        Stop a request that comes too late.

        :raises QuoineTooLateError: if this attempt was asleep, so that a person may settle the matter meanwhile, or if
            a person has settled it or stopped payments.
        """
        try:
            still_sends = self._ledger.still_sends(self._order, attempt=self.name)
        except LedgerUnusableError as error:
            raise QuoineTooLateError(f"Nothing was sent. {error}") from error
        if not still_sends:
            raise QuoineTooLateError(
                "A person has settled this payment or stopped payments since this attempt began, so nothing was sent."
            )
        if self._clock() > self._deadline:
            raise QuoineTooLateError(
                f"More than {SEND_WITHIN.total_seconds():g} s passed between the ledger and the request (a stopped "
                "worker or a sleeping machine), so nothing was sent."
            )

    def finish(self, step: Step, *, exchange_id: str | None = None, state: str = "", reason: str = "") -> bool:
        """Write the result over this attempt's own ``sending``; see :meth:`.Ledger.finish`."""
        return self._ledger.finish(
            self._order, attempt=self.name, step=step, exchange_id=exchange_id, state=state, reason=reason
        )

    def _finish_after_failure(self, step: Step, reason: str) -> None:
        # Where this fails the payment stays "sending": the next attempt stops, which is safe.
        with suppress(Exception):
            self.finish(step, reason=reason)

    def _finish_as_sent(self, exchange_id: str, state: str) -> None:
        done = f"The exchange carried it out, its id is {exchange_id}, but"
        try:
            wrote = self.finish(Step.SENT, exchange_id=exchange_id, state=state)
        except Exception as error:
            raise PaymentInDoubtError(
                f"{done} this could not be written to the ledger ({type(error).__name__}: {error}). "
                f"{how_to_settle(self._order)}",
                payment=self._found(),
            ) from error
        found = None if wrote else self._ledger.find(self._order)
        if found is not None and (found.step, found.exchange_id) != (Step.SENT, exchange_id):
            why = found.reason if found.step == Step.UNKNOWN else "a person has settled it meanwhile"
            raise PaymentInDoubtError(
                f"{done} {why}: in the ledger it is {found.step} {found.exchange_id or ''}. It may be paid twice: "
                "compare both with the exchange.",
                payment=found,
            )

    def _found(self) -> Payment | None:
        """Return the payment for a message, which must not fail."""
        with suppress(Exception):
            return self._ledger.find(self._order)
        return None

    def _reason(self, error: QuoineError) -> str:
        # The exchange's words about a user may hold personal data, which the ledger never does.
        if self._order.kind == Kind.USER:
            return f"{type(error).__name__} {getattr(error, 'status', '')}".strip()
        return _E_MAIL.sub("(e-mail)", str(error))


def step_after(error: QuoineError) -> Step:
    """Return where a payment stands after its request failed."""
    if error.may_have_been_carried_out:
        return Step.UNKNOWN
    if isinstance(error, QuoineRefusedError) and not isinstance(error, QuoineRateLimitedError):
        return Step.REFUSED
    return Step.PREPARED
