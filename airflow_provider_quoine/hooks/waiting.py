"""
Waiting for the exchange: one look, and what it means.

Poke, reschedule and deferred waits all look through here, so that they end in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from airflow.sdk.exceptions import AirflowException

from airflow_provider_quoine.hooks.quoine import QuoineHook, read_secret_variable

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.models import UserCredentials

log = logging.getLogger("airflow.task.hooks.quoine.waiting")


class Progress(StrEnum):
    """What a state means to whoever waits for it."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Look:
    """
    What one look at the exchange showed.

    :param progress: whether the wait is over, and how.
    :param state: the exchange's word, or why there is none.
    :param answer: JSON-able, nothing secret: it may go into events and XCom.
    :param credentials: the key handed out with APPROVED; never leaves this process.
    """

    progress: Progress
    state: str
    answer: dict[str, Any] = field(default_factory=dict)
    credentials: UserCredentials | None = field(default=None, repr=False)


class Watch(Protocol):
    """Something at the exchange that a sensor waits for."""

    def open(self) -> Any:
        """Return a context manager that gives a function which takes one look."""


@dataclass(frozen=True, kw_only=True)
class WithdrawalWatch:
    """
    A withdrawal's way to a final state (api-reference 2.2).

    :param quoine_conn_id: connection.
    :param credentials_variable: Variable with the user's own key, if the connection does not hold it.
    :param withdrawal_id: the exchange's id.
    :param success_states: states that end the wait well.
    :param failure_states: states that end it badly.
    """

    quoine_conn_id: str
    credentials_variable: str | None
    withdrawal_id: str
    success_states: tuple[str, ...]
    failure_states: tuple[str, ...]

    @contextmanager
    def open(self) -> Iterator[Callable[[], Look]]:
        """Open a client; the function given looks once and returns a :class:`Look`."""
        from airflow_provider_quoine.exchange.models import WithdrawalState

        hook = QuoineHook(self.quoine_conn_id, credentials_variable=self.credentials_variable)
        with hook.get_conn() as client:
            say = _StateLog(f"Withdrawal {self.withdrawal_id}", known=WithdrawalState)

            def look() -> Look:
                withdrawal = client.get_withdrawal(withdrawal_id=self.withdrawal_id)
                return Look(
                    progress=judge(withdrawal.state, self.success_states, self.failure_states),
                    state=withdrawal.state,
                    answer=withdrawal.as_dict(),
                )

            yield lambda: look_safely(look, say)


@dataclass(frozen=True, kw_only=True)
class OnboardingStatusWatch:
    """
    An onboarding user's way to APPROVED or DECLINED (api-reference 1.2).

    :param quoine_conn_id: the vendor's connection.
    :param user_id: the exchange's id.
    :param password_variable: Variable with the user's password.
    :param success_states: statuses that end the wait well.
    :param failure_states: statuses that end it badly.
    """

    quoine_conn_id: str
    user_id: str
    password_variable: str
    success_states: tuple[str, ...]
    failure_states: tuple[str, ...]

    @contextmanager
    def open(self) -> Iterator[Callable[[], Look]]:
        """Open a client and read the password; the function given looks once and returns a :class:`Look`."""
        from airflow_provider_quoine.exchange.models import OnboardingStatus

        password = read_secret_variable(self.password_variable)
        with QuoineHook(self.quoine_conn_id).get_conn() as client:
            say = _StateLog(f"Onboarding user {self.user_id}", known=OnboardingStatus)

            def look() -> Look:
                answer = client.get_onboarding_status(user_id=self.user_id, password=password)
                return Look(
                    progress=judge(answer.status, self.success_states, self.failure_states),
                    state=str(answer.status),
                    answer={"user_id": self.user_id, "status": str(answer.status)},
                    credentials=answer.credentials,
                )

            yield lambda: look_safely(look, say)


def judge(state: str, success_states: Collection[str], failure_states: Collection[str]) -> Progress:
    """
    Turn the exchange's word into waiting, done or failed, without regard to case.

    A word that is in neither set keeps waiting (facts, Onboarding and Withdrawals).
    """
    word = state.casefold()
    if word in {known.casefold() for known in success_states}:
        return Progress.DONE
    if word in {known.casefold() for known in failure_states}:
        return Progress.FAILED
    return Progress.WAITING


def look_safely(look: Callable[[], Look], say: Callable[[str], None]) -> Look:
    """
    Look once; what may pass by itself keeps waiting, what will not is raised.

    :raises QuoineError: if the exchange refuses (wrong key, no such id) or the input is wrong: waiting on
        would not help.
    """
    from airflow_provider_quoine.exchange.errors import (
        QuoineError,
        QuoineInputError,
        QuoineRateLimitedError,
        QuoineRefusedError,
    )

    try:
        seen = look()
    except QuoineRateLimitedError as error:
        log.warning("%s", error)
        return Look(progress=Progress.WAITING, state=f"no answer: {error}")
    except (QuoineRefusedError, QuoineInputError):
        raise
    except QuoineError as error:
        log.warning("Looking again later: %s", error)
        return Look(progress=Progress.WAITING, state=f"no answer: {error}")
    say(seen.state)
    return seen


def look_from_event(event: dict[str, Any] | None) -> Look:
    """
    Read the event of a polling trigger.

    :raises QuoineError: with the trigger's words if the exchange refused.
    :raises AirflowException: if the event is not understood.
    """
    from airflow_provider_quoine.exchange.errors import QuoineError

    if event and "error" in event:
        # No AirflowException: a sensor's soft_fail would turn that into skipped, which poke mode does not.
        raise QuoineError(event["error"])
    try:
        known = dict(event or {})
        return Look(progress=Progress(known["progress"]), state=known["state"], answer=known["answer"])
    except (KeyError, ValueError):
        raise AirflowException(f"The trigger sent an event that is not understood: {event!r}") from None


class _StateLog:
    """Say each new state once, so that a wait of hours is a few lines."""

    def __init__(self, subject: str, *, known: type[StrEnum]) -> None:
        self.subject = subject
        self.known = {str(state).casefold() for state in known}
        self.last: str | None = None

    def __call__(self, state: str) -> None:
        if state == self.last:
            return
        self.last = state
        if state.casefold() in self.known:
            log.info("%s is %s.", self.subject, state)
        else:
            log.warning("%s is %s, a state that is not on record; waiting on.", self.subject, state)
