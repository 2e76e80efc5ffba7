"""Whatever Airflow forgets, moves, renames or copies, a payment is not made again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests.system.money.environment import PATIENCE, Environment, Run
from tools.airflow_api import wait_for

pytestmark = pytest.mark.timeout(1500)


def delete_run(environment: Environment, run: Run) -> None:
    """Delete a run on Airflow's page."""
    environment.delete_run(run)


def clean_database(environment: Environment, run: Run) -> None:
    """Clean all runs of a DAG up that have begun before now."""
    now = datetime.now(UTC).isoformat()
    what = ("--tables", "dag_run", "--dag-ids", run.dag_id, "--clean-before-timestamp", now)
    environment.commands.run(("db", "clean", *what, "--skip-archive", "--yes"))


def delete_dag(environment: Environment, run: Run) -> None:
    """Delete a DAG; its file is still there, so it comes back when it is read again."""
    file = environment.airflow.api.file_token(run.dag_id)
    environment.commands.run(("dags", "delete", run.dag_id, "--yes"))
    environment.airflow.api.read_file(file)


@pytest.mark.parametrize(
    ("dag_id", "forget"),
    [("withdraw_deleted", delete_run), ("withdraw_cleaned", clean_database), ("withdraw_dag_deleted", delete_dag)],
)
def test_a_run_that_airflow_has_forgotten_pays_nothing_when_its_id_is_taken_again(
    environment: Environment, dag_id: str, forget: Callable[[Environment, Run], None]
) -> None:
    user = environment.next_user()
    run = environment.trigger(dag_id, user)
    assert environment.wait_for_end(run) == "success"
    (sent,) = environment.withdrawals(user)
    environment.wait_for_report(run)
    forget(environment, run)
    environment.trigger_again(run, user)
    assert environment.wait_for_end(run) == "success"
    assert environment.task(run)["try_number"] == 1
    assert environment.airflow.api.xcom(run.dag_id, run.run_id, "withdraw")["id"] == str(sent["id"])
    assert environment.withdrawals(user) == [sent]


def set_variable(environment: Environment, name: str, value: str) -> None:
    """Set an Airflow Variable, as a person does."""
    set_it = {"action": "create", "entities": [{"key": name, "value": value}], "action_on_existence": "overwrite"}
    environment.airflow.api.call("PATCH", "variables", {"actions": [set_it]})


def test_a_mapped_list_that_grew_at_its_front_pays_the_new_one_only(environment: Environment) -> None:
    user = environment.next_user()
    old, new = (
        {"payment_reference": f"{name}-{user.reference}", "amount": amount}
        for name, amount in (("old", user.amount), ("new", "0.5"))
    )
    set_variable(environment, "money_payments", json.dumps([old]))
    run = environment.trigger("withdraw_mapped", user)
    assert environment.wait_for_end(run) == "success"
    (sent,) = environment.withdrawals(user)

    # The old one's index is the new one's now.
    set_variable(environment, "money_payments", json.dumps([new, old]))
    environment.clear(run, task_ids=["list_payments"], include_downstream=True)
    assert environment.wait_for_end(run) == "success"
    assert len(environment.airflow.api.task_instances(run.dag_id, run.run_id)) == 3
    paid = environment.withdrawals(user)
    assert Counter(each["amount"] for each in paid) == {old["amount"]: 1, new["amount"]: 1}
    assert sent in paid


def test_a_task_that_was_renamed_pays_nothing(environment: Environment) -> None:
    user, api = environment.next_user(), environment.airflow.api
    run = environment.trigger("withdraw_renamed", user)
    assert environment.wait_for_end(run) == "success"
    (sent,) = environment.withdrawals(user)

    set_variable(environment, "money_task", "pay")
    api.read_file(api.file_token(run.dag_id))

    def renamed() -> bool | None:
        return [each["task_id"] for each in api.call("GET", f"dags/{run.dag_id}/tasks")["tasks"]] == ["pay"] or None

    wait_for("the task to be renamed", renamed, timeout=PATIENCE)
    environment.clear_run(run)
    assert environment.wait_for_end(run) == "success"
    assert api.xcom(run.dag_id, run.run_id, "pay")["id"] == str(sent["id"])
    assert environment.withdrawals(user) == [sent]


def test_a_copy_of_a_dag_pays_nothing(environment: Environment) -> None:
    user = environment.next_user()
    assert environment.wait_for_end(environment.trigger("withdraw_0", user)) == "success"
    copy = environment.trigger("withdraw_1", user)
    assert environment.wait_for_end(copy) == "success"
    (sent,) = environment.withdrawals(user)
    assert environment.airflow.api.xcom(copy.dag_id, copy.run_id, "withdraw")["id"] == str(sent["id"])


def test_a_task_that_is_tried_out_from_the_command_line_pays_once_and_for_all(environment: Environment) -> None:
    user = environment.next_user()
    order = json.dumps(user.order)
    try_task = ("tasks", "test", "withdraw_tried", "withdraw", "--task-params", order)
    # The DAG is paused, so that Airflow's scheduler leaves the runs alone.
    for commands in ((try_task,), (try_task, ("dags", "test", "withdraw_tried", "--conf", order))):
        environment.commands.run(*commands)
        assert len(environment.withdrawals(user)) == 1
        assert environment.posts(user) == 1
