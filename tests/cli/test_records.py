"""``airflow quoine``: the decisions that a person may record, and those that are refused."""

from __future__ import annotations

import getpass
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_quoine.payments.records import Step
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.one_task import OneTask

pytestmark = pytest.mark.usefixtures("airflow_database")

POST = "POST /btc_withdrawals/"
RECORD = "quoine_withdrawal"
ADDRESS = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"


@pytest.fixture
def task(exchange: SandboxControl, payer: str) -> OneTask:
    """A withdrawal that waits for its code."""
    task = OneTask("authorize", user_id=payer, amount="0.5", address=ADDRESS)
    task.step()
    return task


@pytest.fixture
def lost(exchange: SandboxControl, payer: str, task: OneTask) -> OneTask:
    """A withdrawal that the exchange has, and whose answer was lost."""
    exchange.fault("drop_after", POST)
    assert task.answer("Send", exchange.latest_code(payer)).state == "failed"
    return task


def shown(task: OneTask, capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    task.cli("withdrawals", "show")
    return json.loads(capsys.readouterr().out)


def refused(task: OneTask, *command: str, **where: str) -> str:
    """Return the refusal of a command; the record must not have changed."""
    before = task.record(RECORD)
    with pytest.raises(SystemExit) as refusal:
        task.cli("withdrawals", *command, **where)
    assert task.record(RECORD) == before
    return str(refusal.value)


def test_the_record_is_shown(lost: OneTask, capsys: pytest.CaptureFixture[str]) -> None:
    record = shown(lost, capsys)
    assert record == lost.record(RECORD)
    assert (record["step"], record["amount"], record["address"]) == ("unknown", "0.5", ADDRESS)


def test_what_a_person_found_is_written_with_who_and_when(lost: OneTask, exchange: SandboxControl) -> None:
    (withdrawal,) = exchange.state()["withdrawals"]
    lost.cli("withdrawals", "exists", "--id", str(withdrawal["id"]))
    record = lost.record(RECORD)
    assert (record["step"], record["id"]) == (Step.SENT, str(withdrawal["id"]))
    assert (record["decision"], record["decided_by"]) == ("exists", getpass.getuser())
    assert abs(datetime.fromisoformat(record["decided_at"]) - datetime.now(UTC)).total_seconds() < 60
    lost.clear()
    assert lost.step().state == "success"
    assert lost.xcom()["id"] == record["id"]
    assert len(exchange.state()["withdrawals"]) == 1


def test_a_lost_record_is_resolved_by_the_id_alone(lost: OneTask, exchange: SandboxControl) -> None:
    lost.wipe()
    lost.clear()
    assert "there is no record of the tries before it" in lost.step().words
    (withdrawal,) = exchange.state()["withdrawals"]
    lost.cli("withdrawals", "exists", "--id", str(withdrawal["id"]))
    lost.clear()
    assert lost.step().state == "success"
    assert len(exchange.state()["withdrawals"]) == 1


def test_a_mistyped_id_stops_the_task_and_can_be_corrected(lost: OneTask, exchange: SandboxControl) -> None:
    (withdrawal,) = exchange.state()["withdrawals"]
    lost.cli("withdrawals", "exists", "--id", "4999")
    lost.clear()
    assert lost.step().state == "failed"
    lost.cli("withdrawals", "exists", "--id", str(withdrawal["id"]))
    lost.clear()
    assert lost.step().state == "success"
    assert len(exchange.state()["withdrawals"]) == 1


def test_an_id_that_the_exchange_gave_is_never_overwritten(exchange: SandboxControl, payer: str, task: OneTask) -> None:
    task.answer("Send", exchange.latest_code(payer))
    assert "The exchange itself answered with id" in refused(task, "exists", "--id", "4999")
    assert "which the exchange has carried out" in refused(task, "absent")


@pytest.mark.parametrize("given", ["5001/../1", "-1", "0", "abc", "5001.0", "\uff15"])
def test_what_is_no_id_is_refused(lost: OneTask, given: str) -> None:
    assert "is no id of the exchange" in refused(lost, "exists", f"--id={given}")


def test_absence_is_not_believed_while_the_request_may_be_on_its_way(lost: OneTask) -> None:
    assert "may still be on its way. Look at the exchange again in" in refused(lost, "absent")


@pytest.mark.parametrize("command", [("exists", "--id", "5001"), ("absent",)])
def test_a_task_that_has_not_ended_is_left_alone(task: OneTask, command: tuple[str, ...]) -> None:
    assert "The task is awaiting_input" in refused(task, *command)


@pytest.mark.parametrize("command", [("exists", "--id", "5001"), ("absent",)])
def test_a_cleared_task_that_waits_to_run_is_left_alone(lost: OneTask, command: tuple[str, ...]) -> None:
    lost.end_in_flight_time(RECORD)
    lost.clear()
    assert "The task is waiting to run" in refused(lost, *command)


@pytest.mark.parametrize("command", [("show",), ("exists", "--id", "5001"), ("absent",)])
@pytest.mark.parametrize("name", ["dag_id", "run_id", "task_id"])
def test_a_task_that_there_is_not_is_named_as_such(lost: OneTask, command: tuple[str, ...], name: str) -> None:
    assert "There is no such task in that run" in refused(lost, *command, **{name: "another"})
