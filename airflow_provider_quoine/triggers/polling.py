"""Deferred waits for an onboarding status or a withdrawal's state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import fields
from typing import Any, TypedDict, Unpack

from airflow_provider_quoine.exchange.errors import QuoineError
from airflow_provider_quoine.triggers.base import OutcomeTrigger
from airflow_provider_quoine.triggers.events import Outcome, Status, read_event
from airflow_provider_quoine.waiting.poller import wait_for_end
from airflow_provider_quoine.waiting.status_queries import (
    Observation,
    OnboardingStatusQuery,
    Progress,
    StatusQuery,
    WithdrawalStatusQuery,
)

_ENDS = {Progress.DONE: Status.SUCCESS, Progress.FAILED: Status.FAILED}
_PROGRESS = {status: progress for progress, status in _ENDS.items()}


class _Common(TypedDict):
    success_states: Collection[str]
    failure_states: Collection[str]
    poke_interval: float
    quoine_conn_id: str


class _PollingTrigger(OutcomeTrigger):
    """
    Ask every ``poke_interval`` seconds, or as often as the request budget allows, until the wait is over.

    All triggers of a triggerer process and a connection share one poller.

    It ends with an :class:`~airflow_provider_quoine.triggers.events.Outcome`. A final state has the status SUCCESS or
    FAILED and the result ``{"state": ..., "answer": {...}}``. A refusal has the status ERROR and the exchange's words
    as its message.

    :param subject: fields of the query, beside those that all queries have.
    """

    query_type: type[StatusQuery]

    def __init__(
        self,
        *,
        success_states: Collection[str],
        failure_states: Collection[str],
        poke_interval: float,
        quoine_conn_id: str,
        **subject: Any,
    ) -> None:
        super().__init__()
        self.query = self.query_type(
            success_states=frozenset(success_states),
            failure_states=frozenset(failure_states),
            quoine_conn_id=quoine_conn_id,
            **subject,
        )
        self.poke_interval = poke_interval

    def stored_arguments(self) -> dict[str, Any]:
        """Return the query's fields, with the states in order: equal triggers have equal arguments."""
        given = {each.name: getattr(self.query, each.name) for each in fields(self.query) if each.init}
        states = {name: sorted(given[name]) for name in ("success_states", "failure_states")}
        return {**given, **states, "poke_interval": self.poke_interval}

    async def outcomes(self) -> AsyncIterator[Outcome]:
        """Wait for a final state, and yield the one outcome."""
        seen = await wait_for_end(self.query, poke_interval=self.poke_interval)
        yield Outcome(status=_ENDS[seen.progress], result={"state": seen.state, "answer": seen.answer})


class QuoineWithdrawalTrigger(_PollingTrigger):
    """
    Wait for a withdrawal's final state.

    :param withdrawal_id: the exchange's id.
    :param credentials_variable: Variable with the user's own key, if the connection does not hold it.
    :param success_states: states that end the wait well.
    :param failure_states: states that end it badly.
    :param poke_interval: seconds between two queries.
    :param quoine_conn_id: connection.
    """

    query_type = WithdrawalStatusQuery

    def __init__(self, *, withdrawal_id: str, credentials_variable: str | None, **common: Unpack[_Common]) -> None:
        super().__init__(withdrawal_id=withdrawal_id, credentials_variable=credentials_variable, **common)


class QuoineOnboardingStatusTrigger(_PollingTrigger):
    """
    Wait for an onboarding user's APPROVED or DECLINED.

    Its other arguments are those of :class:`QuoineWithdrawalTrigger`; the vendor's connection signs.

    :param user_id: the exchange's id.
    :param password_variable: Variable with the user's password.
    """

    query_type = OnboardingStatusQuery

    def __init__(self, *, user_id: str, password_variable: str, **common: Unpack[_Common]) -> None:
        super().__init__(user_id=user_id, password_variable=password_variable, **common)


def read_observation(event: dict[str, Any] | None) -> Observation:
    """
    Read the event of one of these triggers.

    :raises QuoineError: with the exchange's words if it refused. It is no AirflowException, because a sensor's
        ``soft_fail`` turns those into skipped, and poke mode does not skip a refusal.
    :raises QuoineForeignEventError: if no trigger of this version sends such an event.
    """
    outcome = read_event(event, sender="The trigger of the wait")
    if outcome.status not in _PROGRESS:
        raise QuoineError(outcome.message)
    return Observation(
        progress=_PROGRESS[outcome.status], state=outcome.result["state"], answer=outcome.result["answer"]
    )
