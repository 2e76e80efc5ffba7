"""The runbook, step by step: from a task that failed with an unknown outcome to a finished run, both ways."""

from __future__ import annotations

import getpass
import json
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


def test_a_withdrawal_that_exists_is_gone_on_with(environment: Environment) -> None:
    user, run, commands = stopped_run(environment, "drop_after")
    (found,) = environment.withdrawals(user)
    written = environment.airflow.run(*[str(found["id"]) if word == "ID" else word for word in commands["exists"]])
    assert "Clear the task" in written

    shown = environment.airflow.run(*["show" if word == "exists" else word for word in _without_id(commands["exists"])])
    record = json.loads(shown)
    assert record | {"step": "sent", "id": str(found["id"]), "decision": "exists"} == record
    assert record["decided_by"] == getpass.getuser()
    assert abs(datetime.now(UTC) - datetime.fromisoformat(record["decided_at"])).total_seconds() < 120
    assert environment.record(run) == record

    environment.clear(run)
    wait_for("the run to end", lambda: run in environment.ended_runs({run.dag_id}) or None, timeout=120)
    assert environment.airflow.api.run_state(run.dag_id, run.run_id) == "success"
    assert environment.airflow.api.xcom(run.dag_id, run.run_id, "withdraw")["id"] == str(found["id"])
    assert environment.withdrawals(user) == [found]


def test_a_withdrawal_that_does_not_exist_is_sent(environment: Environment) -> None:
    user, run, commands = stopped_run(environment, "drop_before")
    assert environment.withdrawals(user) == []
    # Too early: the request may still be in flight.
    assert re.search(
        r"may still be on its way. Look at the exchange again in \d+ s", refusal(environment, commands["absent"])
    )
    assert environment.record(run)["step"] == "unknown"

    until = datetime.fromisoformat(environment.record(run)["in_doubt_until"])
    wait_for("the doubt to end", lambda: datetime.now(UTC) > until or None, timeout=120)
    assert "Clear the task" in environment.airflow.run(*commands["absent"])
    record = environment.record(run)
    assert (record["step"], record["decision"], record["decided_by"]) == ("prepared", "absent", getpass.getuser())

    environment.clear(run)
    wait_for("the run to end", lambda: run in environment.ended_runs({run.dag_id}) or None, timeout=120)
    assert environment.airflow.api.run_state(run.dag_id, run.run_id) == "success"
    (sent,) = environment.withdrawals(user)
    assert environment.airflow.api.xcom(run.dag_id, run.run_id, "withdraw")["id"] == str(sent["id"])
    # Now it cannot be recorded as never sent.
    assert "which the exchange has carried out" in refusal(environment, commands["absent"])


def _without_id(command: list[str]) -> list[str]:
    return [word for word in command if word not in ("--id", "ID")]
