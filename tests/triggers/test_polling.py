"""The triggers of waits: what Airflow stores of them, and how a task reads their events."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException

from airflow_provider_quoine.exchange.errors import QuoineError
from airflow_provider_quoine.triggers.events import Outcome, QuoineForeignEventError, Status
from airflow_provider_quoine.triggers.polling import (
    QuoineOnboardingStatusTrigger,
    QuoineWithdrawalTrigger,
    read_observation,
)
from airflow_provider_quoine.waiting.status_queries import Progress

STATES = ["processed", "approved", "filed", "broadcasted"]
COMMON: dict[str, Any] = {"poke_interval": 60, "quoine_conn_id": "quoine_default"}


def test_a_withdrawal_trigger_is_stored_as_its_arguments_with_states_in_order() -> None:
    arguments: dict[str, Any] = {"withdrawal_id": "5001", "credentials_variable": None, **COMMON}
    triggers = [
        QuoineWithdrawalTrigger(success_states=states, failure_states={"DECLINED"}, **arguments)
        for states in (STATES, tuple(reversed(STATES)), frozenset(STATES), [*STATES, "Processed"])
    ]
    path = "airflow_provider_quoine.triggers.polling.QuoineWithdrawalTrigger"
    stored = {**arguments, "success_states": sorted(STATES), "failure_states": ["declined"]}
    assert [trigger.serialize() for trigger in triggers] == [(path, stored)] * 4
    assert QuoineWithdrawalTrigger(**stored).serialize() == (path, stored)


def test_an_onboarding_trigger_is_stored_as_its_arguments() -> None:
    arguments: dict[str, Any] = {"user_id": "25", "password_variable": "user_password", **COMMON}
    trigger = QuoineOnboardingStatusTrigger(success_states=("APPROVED",), failure_states=(), **arguments)
    path = "airflow_provider_quoine.triggers.polling.QuoineOnboardingStatusTrigger"
    stored = {**arguments, "success_states": ["approved"], "failure_states": []}
    assert trigger.serialize() == (path, stored)
    assert QuoineOnboardingStatusTrigger(**stored).serialize() == (path, stored)


@pytest.mark.parametrize(
    ("status", "state", "progress"),
    [(Status.SUCCESS, "processed", Progress.DONE), (Status.FAILED, "declined", Progress.FAILED)],
)
def test_an_end_is_read_with_its_state_and_answer(status: Status, state: str, progress: Progress) -> None:
    event = Outcome(status=status, result={"state": state, "answer": {"id": "5001"}}).as_event()
    seen = read_observation(event.payload)
    assert (seen.progress, seen.state, seen.answer) == (progress, state, {"id": "5001"})


def test_a_refusal_is_no_error_that_soft_fail_would_skip() -> None:
    event = Outcome(status=Status.ERROR, message="HTTP 404: no such withdrawal").as_event()
    with pytest.raises(QuoineError, match="HTTP 404: no such withdrawal") as refusal:
        read_observation(event.payload)
    assert not isinstance(refusal.value, AirflowException)


@pytest.mark.parametrize("event", [None, {}, {"progress": "done", "state": "processed", "answer": {}}])
def test_the_event_of_another_version_ends_in_a_clear_error(event: dict[str, Any] | None) -> None:
    with pytest.raises(QuoineForeignEventError, match="must run the same version"):
        read_observation(event)
