"""The runbook, followed word by word: from a task that stopped on an unknown outcome to a finished run, both ways."""

from __future__ import annotations

import getpass
import json
import re
import shlex
import subprocess
from datetime import UTC, datetime

import pytest

from tests.system.money.world import POST, Run, User, World
from tools.airflow_api import wait_for

pytestmark = pytest.mark.timeout(900)

#: What the task's error tells the person to do.
ADVICE = re.compile(
    r"If it exists: (?P<exists>airflow .+?)\. If it does not: (?P<absent>airflow .+?)\. Then clear this task\."
)


def stopped_run(world: World, fault: str) -> tuple[User, Run, dict[str, list[str]]]:
    """Have a withdrawal's outcome unknown; the commands are those of the task's own words."""
    user = world.next_user()
    world.sandbox.fault(fault, POST, request_contains=user.amount)
    run = world.trigger("withdraw_0", user, conn="money_brief")
    world.wait(run, "failed")
    said = ADVICE.search(world.log(run, 1))
    assert said is not None
    return user, run, {name: shlex.split(command) for name, command in said.groupdict().items()}


def refusal(world: World, command: list[str]) -> str:
    """Run a command that must fail, and return its words."""
    with pytest.raises(subprocess.CalledProcessError) as failed:
        world.airflow.run(*command)
    return str(failed.value.stderr)


def test_a_withdrawal_that_exists_is_gone_on_with(world: World) -> None:
    user, run, commands = stopped_run(world, "drop_after")
    (found,) = world.withdrawals(user)
    written = world.airflow.run(*[str(found["id"]) if word == "ID" else word for word in commands["exists"]])
    assert "Clear the task" in written

    shown = world.airflow.run(*["show" if word == "exists" else word for word in _without_id(commands["exists"])])
    record = json.loads(shown)
    assert record | {"step": "sent", "id": str(found["id"]), "decision": "exists"} == record
    assert record["decided_by"] == getpass.getuser()
    assert abs(datetime.now(UTC) - datetime.fromisoformat(record["decided_at"])).total_seconds() < 120
    assert world.record(run) == record

    world.clear(run)
    wait_for("the run to end", lambda: run in world.ended({run.dag_id}) or None, timeout=120)
    assert world.airflow.api.run_state(run.dag_id, run.run_id) == "success"
    assert world.airflow.api.xcom(run.dag_id, run.run_id, "withdraw")["id"] == str(found["id"])
    assert world.withdrawals(user) == [found]


def test_a_withdrawal_that_does_not_exist_is_sent(world: World) -> None:
    user, run, commands = stopped_run(world, "drop_before")
    assert world.withdrawals(user) == []
    # Too early: the request may still be on its way.
    assert re.search(
        r"may still be on its way. Look at the exchange again in \d+ s", refusal(world, commands["absent"])
    )
    assert world.record(run)["step"] == "unknown"

    until = datetime.fromisoformat(world.record(run)["in_doubt_until"])
    wait_for("the doubt to end", lambda: datetime.now(UTC) > until or None, timeout=120)
    assert "Clear the task" in world.airflow.run(*commands["absent"])
    record = world.record(run)
    assert (record["step"], record["decision"], record["decided_by"]) == ("prepared", "absent", getpass.getuser())

    world.clear(run)
    wait_for("the run to end", lambda: run in world.ended({run.dag_id}) or None, timeout=120)
    assert world.airflow.api.run_state(run.dag_id, run.run_id) == "success"
    (sent,) = world.withdrawals(user)
    assert world.airflow.api.xcom(run.dag_id, run.run_id, "withdraw")["id"] == str(sent["id"])
    # Nobody can say now that it was never sent.
    assert "which the exchange has carried out" in refusal(world, commands["absent"])


def _without_id(command: list[str]) -> list[str]:
    return [word for word in command if word not in ("--id", "ID")]
