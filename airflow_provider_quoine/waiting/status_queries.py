"""
Waiting for the exchange: one look, and what it means.

Poke, reschedule and deferred waits all look through here, so that they end in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from airflow.sdk.exceptions import AirflowException

from airflow_provider_quoine.exchange.budget.book import Priority
from airflow_provider_quoine.exchange.models import OnboardingStatus, WithdrawalState
from airflow_provider_quoine.hooks.quoine import QuoineHook, read_secret_variable

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.models import UserCredentials
    from airflow_provider_quoine.exchange.rest.client import QuoineClient

log = logging.getLogger("airflow.task.hooks.quoine.waiting")

NO_ANSWER = "without an answer"
"""Stands for the state where a look did not show one."""


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
    :param state: the exchange's word, or ``NO_ANSWER``.
    :param answer: JSON-able, nothing secret: it may go into events and XCom.
    :param credentials: the key handed out with APPROVED; never leaves this process.
    :param problem: why there is no answer.
    """

    progress: Progress
    state: str
    answer: dict[str, Any] = field(default_factory=dict)
    credentials: UserCredentials | None = field(default=None, repr=False)
    problem: str = ""


class Watch(Protocol):
    """Something at the exchange that a sensor waits for."""

    @property
    def quoine_conn_id(self) -> str:
        """Which connection asks."""

    @property
    def subject(self) -> str:
        """What it is, at the beginning of a sentence."""

    @property
    def known_states(self) -> Collection[str]:
        """The states that are on record."""

    @property
    def credentials_variable(self) -> str | None:
        """Variable with the key that signs, if it is not the connection's."""

    def question(self) -> Callable[[QuoineClient], Look]:
        """Read what the question needs besides a client; the function given asks it once, with one request."""


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

    known_states = tuple(WithdrawalState)

    @property
    def subject(self) -> str:
        """The withdrawal."""
        return f"Withdrawal {self.withdrawal_id}"

    def question(self) -> Callable[[QuoineClient], Look]:
        """Ask for its state."""

        def ask(client: QuoineClient) -> Look:
            withdrawal = client.get_withdrawal(withdrawal_id=self.withdrawal_id)
            return Look(
                progress=judge(withdrawal.state, self.success_states, self.failure_states),
                state=withdrawal.state,
                answer=withdrawal.as_dict(),
            )

        return ask


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

    credentials_variable = None
    known_states = tuple(OnboardingStatus)

    @property
    def subject(self) -> str:
        """The user."""
        return f"Onboarding user {self.user_id}"

    def question(self) -> Callable[[QuoineClient], Look]:
        """Read the password, which is not kept from one look to the next, and ask for the status."""
        password = read_secret_variable(self.password_variable)

        def ask(client: QuoineClient) -> Look:
            answer = client.get_onboarding_status(user_id=self.user_id, password=password)
            return Look(
                progress=judge(answer.status, self.success_states, self.failure_states),
                state=str(answer.status),
                answer={"user_id": self.user_id, "status": str(answer.status)},
                credentials=answer.credentials,
            )

        return ask


def look_once(watch: Watch) -> Look:
    """
    Look once, with a connection of its own: for poke and reschedule.

    :raises QuoineError: as :func:`look_safely`, and if connection or Variable are incomplete.
    """
    ask = watch.question()
    hook = QuoineHook(watch.quoine_conn_id, credentials_variable=watch.credentials_variable)
    with hook.get_conn(priority=Priority.POLLING) as client:
        return look_safely(lambda: ask(client))


def say(watch: Watch, seen: Look, outlook: str = "") -> None:
    """
    Log what was seen.

    :param outlook: sentences on what comes next.
    """
    level = logging.INFO
    if seen.problem:
        level, words = logging.WARNING, f"{watch.subject}: no answer this time. {seen.problem}"
    elif seen.state.casefold() in {str(state).casefold() for state in watch.known_states}:
        words = f"{watch.subject} is {seen.state}."
    else:
        level, words = logging.WARNING, f"{watch.subject} is {seen.state}, a state that is not on record; waiting on."
    log.log(level, "%s", f"{words} {outlook}".strip())


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


def look_safely(look: Callable[[], Look]) -> Look:
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
        return look()
    except QuoineRateLimitedError as error:
        problem = str(error)
    except (QuoineRefusedError, QuoineInputError):
        raise
    except QuoineError as error:
        problem = str(error)
    return Look(progress=Progress.WAITING, state=NO_ANSWER, problem=problem)


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
