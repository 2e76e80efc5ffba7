"""What a late answer of the exchange, and an Airflow that cannot be asked, do to the ledger."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quoine.payments.attempt import Attempt, QuoineTooLateError
from airflow_provider_quoine.payments.configuration import VariablePin, read_pin
from airflow_provider_quoine.payments.database import open_file
from airflow_provider_quoine.payments.ledger import SEND_WITHIN, Ledger
from airflow_provider_quoine.payments.refusals import LedgerUnusableError, PaymentInDoubtError, PaymentRefusedError
from tests.payments.memory import Memory
from tests.payments.test_ledger import ORDER


def attempt(ledger: Ledger) -> Attempt:
    return Attempt(ledger=ledger, order=ORDER, task="dag / run / task")


def test_a_payment_that_the_exchange_says_it_has_is_not_sent_again(tmp_path: Path) -> None:
    """A worker is frozen between the head and the body of its request; a person finds nothing; it wakes up."""
    ledger = Ledger(open_file(tmp_path / "ledger.db"), pin=Memory())
    carried_out: list[str] = []

    def post(in_time: Any) -> str:
        in_time()
        # Frozen here, for longer than the doubt window.
        if not carried_out:
            ledger.absent(ORDER, who="ann", why="not on the user's page")
        carried_out.append(f"500{len(carried_out)}")
        return carried_out[-1]

    def send(one: Attempt) -> None:
        one.begin()
        one.send(post, identify=str, in_flight=timedelta(seconds=-10), allow=lambda _: "policy")

    with pytest.raises(PaymentInDoubtError):
        send(attempt(ledger))
    # The exchange's own answer is in the chain, as late_sent with its id. A clear must not send now.
    assert any(event.event == "late_sent" for event in ledger.history(ORDER))
    with pytest.raises(PaymentRefusedError):
        send(attempt(ledger))
    assert carried_out == ["5000"]


@pytest.mark.long
def test_after_stop_has_returned_nothing_begins_to_be_sent(tmp_path: Path) -> None:
    ledger = Ledger(open_file(tmp_path / "ledger.db"), pin=Memory())
    sent_after_stop: list[bool] = []

    def post(in_time: Any) -> str:
        # Connecting takes its time here: up to 5 s are allowed.
        stopper = threading.Thread(target=lambda: ledger.stop(who="ann", why="a key was stolen"))
        stopper.start()
        stopper.join(2)
        has_returned = not stopper.is_alive()
        in_time()
        sent_after_stop.append(has_returned)
        return "5001"

    one = attempt(ledger)
    one.begin()
    with pytest.raises(QuoineTooLateError):
        one.send(post, identify=str, in_flight=timedelta(0), allow=lambda _: "policy")
    assert sent_after_stop == []


def test_to_stop_takes_no_longer_where_the_clock_was_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour back, after an attempt has begun to send."""
    times = iter([datetime(2026, 11, 1, 2, tzinfo=UTC)] * 2)
    back = datetime(2026, 11, 1, 1, tzinfo=UTC)
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    ledger = Ledger(open_file(tmp_path / "ledger.db"), pin=Memory(), clock=lambda _: next(times, back))
    ledger.prepare(ORDER, actor="task")
    ledger.start_sending(ORDER, attempt="a", task="task", in_flight=timedelta(0), allow=lambda _: "policy")
    ledger.stop(who="ann", why="a key was stolen")
    assert waits == [SEND_WITHIN.total_seconds()]


def test_an_airflow_that_cannot_be_asked_is_not_one_without_a_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The execution API answers 500 (a locked database): any ledger would be accepted, and remembered from then on."""
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ErrorResponse

    class Comms:
        def send(self, _: object) -> ErrorResponse:
            return ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 500})

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Comms(), raising=False)
    with pytest.raises(LedgerUnusableError):
        VariablePin().read()


@pytest.mark.parametrize("text", ["", " "])
def test_a_memory_that_was_emptied_is_not_none(text: str) -> None:
    """The docs have the Variable deleted on purpose; one that is there and empty was damaged."""
    with pytest.raises(LedgerUnusableError):
        read_pin(text)
