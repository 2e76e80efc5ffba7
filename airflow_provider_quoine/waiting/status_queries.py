"""
Status queries: the questions of a waiting task, and the meaning of the answers.

Poke, reschedule and deferred waits all use them, so that they end in the same way.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from airflow_provider_quoine.exchange.budget.rules import Priority
from airflow_provider_quoine.exchange.errors import (
    QuoineError,
    QuoineInputError,
    QuoineRateLimitedError,
    QuoineRefusedError,
)
from airflow_provider_quoine.exchange.models import OnboardingStatus, WithdrawalState
from airflow_provider_quoine.hooks.quoine import QuoineHook, read_secret_variable

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.budget.slot import Slot
    from airflow_provider_quoine.exchange.models import UserCredentials
    from airflow_provider_quoine.exchange.rest.client import QuoineClient

log = logging.getLogger(f"airflow.task.{__name__}")

NO_ANSWER = "without an answer"
"""The state of an observation that has none."""


SendQuery: TypeAlias = "Callable[[QuoineClient, Slot], Observation]"
"""Sends a query with one request, which uses the slot."""


class Progress(StrEnum):
    """Whether a wait is over, and how it ended."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Observation:
    """
    The result of one status query.

    :param progress: whether the wait is over, and how it ended.
    :param state: the exchange's word, or :data:`NO_ANSWER`.
    :param answer: JSON-able, nothing secret: it may go into events and XCom.
    :param credentials: the key handed out with APPROVED; it never leaves this process.
    :param problem: why there is no answer.
    """

    progress: Progress
    state: str
    answer: dict[str, Any] = field(default_factory=dict)
    credentials: UserCredentials | None = field(default=None, repr=False)
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class StatusQuery(ABC):
    """
    A question for the state of one thing at the exchange.

    States are compared without regard to case. A state in neither set keeps waiting (facts, Onboarding; facts,
    Withdrawals).

    :param quoine_conn_id: connection.
    :param credentials_variable: Variable with the key that signs; None for the connection's own key.
    :param success_states: states that end the wait well.
    :param failure_states: states that end it badly.
    """

    quoine_conn_id: str
    credentials_variable: str | None
    success_states: frozenset[str]
    failure_states: frozenset[str]

    known_states: ClassVar[frozenset[str]]
    """The states on record, in lower case."""

    def __post_init__(self) -> None:
        for name in ("success_states", "failure_states"):
            object.__setattr__(self, name, frozenset(state.casefold() for state in getattr(self, name)))

    @property
    @abstractmethod
    def subject(self) -> str:
        """The thing asked for, as a sentence begins."""

    @abstractmethod
    def prepare(self) -> SendQuery:
        """Read what the request needs besides client and slot; return the function that sends it once."""

    def progress_of(self, state: str) -> Progress:
        """Tell whether a state ends the wait."""
        word = state.casefold()
        if word in self.success_states:
            return Progress.DONE
        return Progress.FAILED if word in self.failure_states else Progress.WAITING


@dataclass(frozen=True, kw_only=True)
class WithdrawalStatusQuery(StatusQuery):
    """
    Asks for a withdrawal's state (api-reference 2.2); the user's own key signs.

    :param withdrawal_id: the exchange's id.
    """

    withdrawal_id: str

    known_states = frozenset(state.casefold() for state in WithdrawalState)

    @property
    def subject(self) -> str:
        """The withdrawal."""
        return f"Withdrawal {self.withdrawal_id}"

    def prepare(self) -> SendQuery:
        """Return the function that asks for the state."""

        def send(client: QuoineClient, slot: Slot) -> Observation:
            withdrawal = client.get_withdrawal(withdrawal_id=self.withdrawal_id, slot=slot)
            return Observation(
                progress=self.progress_of(withdrawal.state), state=withdrawal.state, answer=withdrawal.as_dict()
            )

        return send


@dataclass(frozen=True, kw_only=True)
class OnboardingStatusQuery(StatusQuery):
    """
    Asks for an onboarding user's status (api-reference 1.2); the vendor's connection signs.

    :param user_id: the exchange's id.
    :param password_variable: Variable with the user's password.
    """

    credentials_variable: None = field(default=None, init=False)
    user_id: str
    password_variable: str

    known_states = frozenset(state.casefold() for state in OnboardingStatus)

    @property
    def subject(self) -> str:
        """The user."""
        return f"Onboarding user {self.user_id}"

    def prepare(self) -> SendQuery:
        """Read the password anew, so that none is kept between two queries."""
        password = read_secret_variable(self.password_variable)

        def send(client: QuoineClient, slot: Slot) -> Observation:
            answer = client.get_onboarding_status(user_id=self.user_id, password=password, slot=slot)
            return Observation(
                progress=self.progress_of(answer.status),
                state=str(answer.status),
                answer={"user_id": self.user_id, "status": str(answer.status)},
                credentials=answer.credentials,
            )

        return send


def run_query(query: StatusQuery) -> Observation:
    """
    Run a query once, with a client of its own: for poke and reschedule.

    :raises QuoineError: as :func:`tolerate_transient`, and if connection or Variable are incomplete.
    """
    send = query.prepare()
    hook = QuoineHook(query.quoine_conn_id, credentials_variable=query.credentials_variable)
    with hook.get_conn(priority=Priority.POLLING) as client:
        return tolerate_transient(lambda: send(client, client.take_slot()))


def tolerate_transient(send: Callable[[], Observation]) -> Observation:
    """
    Send a query; a transient failure is an observation that keeps waiting.

    :raises QuoineError: if the exchange refuses (wrong key, no such id) or the input is wrong: to ask again would not
        help.
    """
    try:
        return send()
    except QuoineError as error:
        refused = isinstance(error, QuoineRefusedError | QuoineInputError)
        if refused and not isinstance(error, QuoineRateLimitedError):
            raise
        return Observation(progress=Progress.WAITING, state=NO_ANSWER, problem=str(error))


def log_observation(query: StatusQuery, seen: Observation, outlook: str = "") -> None:
    """
    Log an observation.

    :param outlook: sentences on the next query.
    """
    level = logging.INFO
    if seen.problem:
        level, words = logging.WARNING, f"{query.subject}: no answer this time. {seen.problem}"
    elif seen.state.casefold() in query.known_states:
        words = f"{query.subject} is {seen.state}."
    else:
        level, words = logging.WARNING, f"{query.subject} is {seen.state}, a state that is not on record; waiting on."
    log.log(level, "%s", f"{words} {outlook}".strip())
