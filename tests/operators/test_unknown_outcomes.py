"""Who is told of an unknown outcome, and how often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from airflow_provider_quoine.exchange.rest.client import QuoineClient
from airflow_provider_quoine.payments.schema import Note, Step
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.notifier import TOLD
from tests.support.one_task import OneTask, undo_edits, withdraw

pytestmark = pytest.mark.usefixtures("airflow_database", "told")


@pytest.fixture
def told() -> Iterator[None]:
    """Nobody was told of anything; at the end other tests have the ledger as it was."""
    TOLD.clear()
    yield
    undo_edits()


def end_it(*_: object, **__: object) -> NoReturn:
    """End an attempt in the middle of its request, so that it can tell nobody."""
    raise ZeroDivisionError


def left_in_doubt(task: OneTask, monkeypatch: pytest.MonkeyPatch) -> OneTask:
    """Have a task's first attempt end in the middle of the request."""
    with monkeypatch.context() as ended:
        ended.setattr(QuoineClient, "create_withdrawal", end_it)
        assert task.step().state == "up_for_retry"
    assert (task.stands(), TOLD) == (Step.UNKNOWN, [])
    return task


def told_of(task: OneTask) -> int:
    """How often people were told of a task's payment."""
    return sum(f"payment: {task.reference}" in words.splitlines() for words in TOLD)


def notify() -> None:
    """Run the task that tells of what nobody was told."""
    assert OneTask("notify_unknown_outcomes").step().state == "success"


def test_people_are_told_once_of_what_its_task_could_not_tell(
    exchange: SandboxControl, new_code: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = left_in_doubt(withdraw("_telling"), monkeypatch)
    # Its request may still be under way.
    notify()
    assert told_of(task) == 0
    task.end_in_flight_time()
    for _ in range(2):
        notify()
        assert told_of(task) == 1
    assert task.events()[-1] == Note.DOUBT_TOLD
    (words,) = (words for words in TOLD if task.reference in words)
    happened, done, *details = words.splitlines()
    assert happened == "The outcome of this payment is unknown."
    assert done == "It was sent, and the exchange may have carried it out."
    assert "Then clear that task." in " ".join(details)
    # Nor does its next attempt tell again.
    assert task.step().state == "failed"
    assert told_of(task) == 1


def test_the_next_attempt_tells_if_nobody_has(
    exchange: SandboxControl, new_code: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = left_in_doubt(withdraw("_telling"), monkeypatch)
    task.end_in_flight_time()
    end = task.step()
    assert (end.state, "its outcome is unknown" in end.words) == ("failed", True)
    assert told_of(task) == 1
    notify()
    assert told_of(task) == 1


def test_a_dry_run_leaves_a_doubt_untold(
    exchange: SandboxControl, new_code: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = left_in_doubt(withdraw("_telling"), monkeypatch)
    task.end_in_flight_time()
    assert withdraw("_telling_dry", payment_reference=task.reference).step().state == "failed"
    assert told_of(task) == 0


def test_what_a_task_has_told_is_not_told_again(exchange: SandboxControl, new_code: Callable[[], None]) -> None:
    exchange.fault("drop_after", "POST /btc_withdrawals/")
    task = withdraw("_telling")
    assert task.step().state == "failed"
    assert told_of(task) == 1
    task.end_in_flight_time()
    notify()
    assert told_of(task) == 1


def test_a_doubt_that_a_person_has_seen_to_is_not_told(
    exchange: SandboxControl, new_code: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = left_in_doubt(withdraw("_telling"), monkeypatch)
    task.end_in_flight_time()
    task.cli("hold")
    task.cli("release")
    assert task.stands() == Step.UNKNOWN
    notify()
    assert told_of(task) == 0


def test_each_doubt_of_a_payment_is_told(
    exchange: SandboxControl, new_code: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = left_in_doubt(withdraw("_telling"), monkeypatch)
    for times in (1, 2):
        task.end_in_flight_time()
        notify()
        assert told_of(task) == times
        task.cli("absent")
        new_code()
        with monkeypatch.context() as ended:
            ended.setattr(QuoineClient, "create_withdrawal", end_it)
            task.step()
        assert task.stands() == Step.UNKNOWN


def test_notifiers_that_fail_leave_it_to_the_next_run(
    exchange: SandboxControl, new_code: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = left_in_doubt(withdraw("_telling"), monkeypatch)
    task.end_in_flight_time()
    end = OneTask("notify_unknown_outcomes_broken").step()
    assert end.state == "failed"
    assert "Nobody could be told of" in end.words
    assert f"The payment '{task.reference}'" in end.words
    notify()
    assert told_of(task) == 1
