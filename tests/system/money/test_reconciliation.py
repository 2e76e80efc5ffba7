"""The reconciliation as a task on a whole Airflow: in a worker, which cannot reach Airflow's database."""

from __future__ import annotations

import secrets
from urllib.parse import quote

import pytest

from tests.support.leaks import cells, find
from tests.system.money.environment import Environment, Run

pytestmark = pytest.mark.timeout(1500)


def reconcile(environment: Environment) -> str:
    """Run a reconciliation, and return its log."""
    environment.airflow.api.unpause("reconcile")
    run = Run("reconcile", environment.airflow.api.trigger("reconcile", {}))
    environment.wait_for_end(run)
    return environment.log(run, 1)


def test_a_change_at_the_exchange_is_found(environment: Environment) -> None:
    user = environment.next_user()
    run = environment.trigger("withdraw_0", user)
    environment.wait(run, "success")
    (sent,) = environment.withdrawals(user)
    environment.sandbox.set_withdrawal(sent["id"], "processed")
    assert user.reference not in reconcile(environment)
    environment.sandbox.set_withdrawal(sent["id"], "reverted")
    (line,) = [line for line in reconcile(environment).splitlines() if user.reference in line]
    assert "backwards" in line


def test_a_code_that_no_task_took_is_wiped(environment: Environment) -> None:
    user = environment.next_user()
    run = environment.trigger("authorize_1", user)
    environment.wait_until_suspended(run, "awaiting_input")
    api, name = environment.airflow.api, (run.dag_id, run.run_id, "withdraw")
    # Somebody ends the task while its question is open, and somebody else answers.
    api.call("PATCH", f"dags/{run.dag_id}/dagRuns/{quote(run.run_id)}/taskInstances/withdraw", {"new_state": "failed"})
    code = f"{secrets.randbelow(10**12):012}"
    api.answer(*name, option="Send", params={"one_time_token": code})
    assert find({"code": code}, cells(environment.airflow.database))
    assert "were wiped" in reconcile(environment)
    assert find({"code": code}, cells(environment.airflow.database)) == set()
    assert environment.withdrawals(user) == []
