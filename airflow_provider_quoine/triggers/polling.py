"""Deferred waits for an onboarding status or a withdrawal's state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Any

from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_quoine.exchange.errors import QuoineError
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


class _PollingTrigger(BaseTrigger):
    """
    Ask every ``poke_interval`` seconds, or as often as the request budget allows, until the wait is over.

    All triggers of a triggerer process and a connection share one poller.

    It ends with an :class:`~airflow_provider_quoine.triggers.events.Outcome`. A final state has the status SUCCESS or
    FAILED and the result ``{"state": ..., "answer": {...}}``. A refusal has the status ERROR and the exchange's words
    as its message.

    :param query: the question.
    :param poke_interval: seconds between two queries.
    """

    def __init__(self, query: StatusQuery, poke_interval: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's has no types
        self.query = query
        self.poke_interval = poke_interval

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for a final state or a refusal, then yield the one event."""
        try:
            seen = await wait_for_end(self.query, poke_interval=self.poke_interval)
        except (QuoineError, AirflowNotFoundException) as error:
            outcome = Outcome(status=Status.ERROR, message=str(error))
        else:
            outcome = Outcome(status=_ENDS[seen.progress], result={"state": seen.state, "answer": seen.answer})
        yield outcome.as_event()


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

    query: WithdrawalStatusQuery

    def __init__(
        self,
        *,
        withdrawal_id: str,
        credentials_variable: str | None,
        success_states: Collection[str],
        failure_states: Collection[str],
        poke_interval: float,
        quoine_conn_id: str,
    ) -> None:
        query = WithdrawalStatusQuery(
            withdrawal_id=withdrawal_id,
            credentials_variable=credentials_variable,
            success_states=frozenset(success_states),
            failure_states=frozenset(failure_states),
            quoine_conn_id=quoine_conn_id,
        )
        super().__init__(query, poke_interval)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments; Airflow rebuilds the trigger from them in a triggerer."""
        return _path(self), {
            "withdrawal_id": self.query.withdrawal_id,
            "credentials_variable": self.query.credentials_variable,
            "success_states": sorted(self.query.success_states),
            "failure_states": sorted(self.query.failure_states),
            "poke_interval": self.poke_interval,
            "quoine_conn_id": self.query.quoine_conn_id,
        }


class QuoineOnboardingStatusTrigger(_PollingTrigger):
    """
    Wait for an onboarding user's APPROVED or DECLINED.

    :param user_id: the exchange's id.
    :param password_variable: Variable with the user's password.
    :param success_states: statuses that end the wait well.
    :param failure_states: statuses that end it badly.
    :param poke_interval: seconds between two queries.
    :param quoine_conn_id: the vendor's connection.
    """

    query: OnboardingStatusQuery

    def __init__(
        self,
        *,
        user_id: str,
        password_variable: str,
        success_states: Collection[str],
        failure_states: Collection[str],
        poke_interval: float,
        quoine_conn_id: str,
    ) -> None:
        query = OnboardingStatusQuery(
            user_id=user_id,
            password_variable=password_variable,
            success_states=frozenset(success_states),
            failure_states=frozenset(failure_states),
            quoine_conn_id=quoine_conn_id,
        )
        super().__init__(query, poke_interval)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments; Airflow rebuilds the trigger from them in a triggerer."""
        return _path(self), {
            "user_id": self.query.user_id,
            "password_variable": self.query.password_variable,
            "success_states": sorted(self.query.success_states),
            "failure_states": sorted(self.query.failure_states),
            "poke_interval": self.poke_interval,
            "quoine_conn_id": self.query.quoine_conn_id,
        }


def read_observation(event: dict[str, Any] | None) -> Observation:
    """
    Read the event of one of these triggers.

    :raises QuoineError: with the exchange's words if it refused. It is no AirflowException, because a sensor's
        ``soft_fail`` turns those into skipped, and poke mode does not skip a refusal.
    :raises AirflowException: if no trigger of this version sends such an event.
    """
    outcome = read_event(event, sender="The trigger of the wait")
    if outcome.status not in _PROGRESS:
        raise QuoineError(outcome.message)
    return Observation(
        progress=_PROGRESS[outcome.status], state=outcome.result["state"], answer=outcome.result["answer"]
    )


def _path(trigger: BaseTrigger) -> str:
    return f"{type(trigger).__module__}.{type(trigger).__qualname__}"
