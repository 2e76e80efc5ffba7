"""The runbook, step by step: from a task that failed with an unknown outcome to a finished run, both ways."""

from __future__ import annotations

import getpass
import re
import shlex
import subprocess
from datetime import UTC, datetime

import pytest

from tests.system.money.environment import POST, Environment, Run, User
from tools.airflow_api import wait_for

pytestmark = pytest.mark.timeout(900)

#: The commands in the task's error.
ADVICE = re.compile(
    r"If it exists: (?P<exists>airflow .+?)\. If it does not: (?P<absent>airflow .+?)\. Then clear this task\."
)


def stopped_run(environment: Environment, fault: str) -> tuple[User, Run, dict[str, list[str]]]:
    """Run a withdrawal whose outcome is unknown; return the commands that its error names."""
    user = environment.next_user()
    environment.sandbox.fault(fault, POST, request_contains=user.amount)
    run = environment.trigger("withdraw_0", user, conn="money_brief")
    environment.wait(run, "failed")
    said = ADVICE.search(environment.log(run, 1))
    assert said is not None
    return user, run, {name: shlex.split(command) for name, command in said.groupdict().items()}


def refusal(environment: Environment, command: list[str]) -> str:
    """Run a command that must fail; return its error."""
    with pytest.raises(subprocess.CalledProcessError) as failed:
        environment.airflow.run(*command)
    return str(failed.value.stderr)


def filled_in(command: list[str], identifier: str = "") -> list[str]:
    """Replace the words that a person fills in."""
    return [{"ID": identifier, "WHY": "looked it up"}.get(word, word) for word in command]


def test_a_withdrawal_that_exists_is_gone_on_with(environment: Environment) -> None:
    user, run, commands = stopped_run(environment, "drop_after")
    (found,) = environment.withdrawals(user)
    reference = f"payment-{user.user_id}"
    key = ("--conn-id", "money", "--credentials-variable", f"money_key_{user.user_id}")
    written = environment.airflow.run(*filled_in(commands["exists"], str(found["id"])), *key)
    assert "Amount and address are the same at the exchange" in written
    assert "Clear the task" in written

    shown = environment.airflow.run("airflow", "quoine", "payments", "show", reference)
    for told in ("sent", str(found["id"]), "exists", f"by {getpass.getuser()}", "looked it up"):
        assert told in shown
    payment = environment.payment(user)
    assert (payment.step, payment.exchange_id) == ("sent", str(found["id"]))

    environment.clear(run)
    wait_for("the run to end", lambda: run in environment.ended_runs({run.dag_id}) or None, timeout=120)
    assert environment.airflow.api.run_state(run.dag_id, run.run_id) == "success"
    assert environment.airflow.api.xcom(run.dag_id, run.run_id, "withdraw")["id"] == str(found["id"])
    assert environment.withdrawals(user) == [found]


def test_a_withdrawal_that_does_not_exist_is_sent(environment: Environment) -> None:
    user, run, commands = stopped_run(environment, "drop_before")
    absent = filled_in(commands["absent"])
    assert environment.withdrawals(user) == []
    # Too early: the request may still be in flight.
    assert re.search(r"may still be on its way. Look at the exchange again in \d+ s", refusal(environment, absent))
    payment = environment.payment(user)
    assert payment.step == "unknown"

    until = payment.in_doubt_until
    assert until is not None
    wait_for("the doubt to end", lambda: datetime.now(UTC) > until or None, timeout=120)
    assert "Clear the task" in environment.airflow.run(*absent)
    assert environment.payment(user).step == "prepared"

    environment.clear(run)
    wait_for("the run to end", lambda: run in environment.ended_runs({run.dag_id}) or None, timeout=120)
    assert environment.airflow.api.run_state(run.dag_id, run.run_id) == "success"
    (sent,) = environment.withdrawals(user)
    assert environment.airflow.api.xcom(run.dag_id, run.run_id, "withdraw")["id"] == str(sent["id"])
    # Now it cannot be recorded as never sent.
    assert "no doubt to settle" in refusal(environment, absent)


def test_a_withdrawal_that_is_paid_by_hand_is_held_first(environment: Environment) -> None:
    user, run, _ = stopped_run(environment, "drop_before")
    command = ["airflow", "quoine", "payments"]
    which = [f"payment-{user.user_id}", "--why", "the user is waiting"]
    until = environment.payment(user).in_doubt_until
    assert until is not None
    wait_for("the doubt to end", lambda: datetime.now(UTC) > until or None, timeout=120)
    environment.airflow.run(*command, "hold", *which)
    environment.clear(run)
    environment.wait(run, "failed")
    assert "A person holds the payment" in environment.log(run, 2)
    environment.airflow.run(*command, "exists", *which, "--id", "77")
    assert environment.withdrawals(user) == []


def test_a_deleted_run_whose_id_is_taken_again_pays_nothing(environment: Environment) -> None:
    user = environment.next_user()
    run = environment.trigger("withdraw_0", user)
    environment.wait(run, "success")
    (sent,) = environment.withdrawals(user)
    wait_for("the run to end", lambda: run in environment.ended_runs({run.dag_id}) or None, timeout=120)
    environment.delete_run(run)
    body = {"user_id": user.user_id, "amount": user.amount, "payment_reference": f"payment-{user.user_id}"}
    path = f"dags/{run.dag_id}/dagRuns"
    environment.airflow.api.call("POST", path, {"logical_date": None, "dag_run_id": run.run_id, "conf": body})
    environment.wait(run, "success")
    assert environment.withdrawals(user) == [sent]
