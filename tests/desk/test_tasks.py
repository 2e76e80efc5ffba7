"""The task that the ledger names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from airflow_provider_quoine.desk.tasks import Task
from airflow_provider_quoine.payments.withdrawals import task_name


@pytest.mark.parametrize(
    "run_id", ["manual__2026-11-26T20:00:00+00:00_x", "a / b / c, try 1", "\u8acb\u6c42 [1]", "?#%"]
)
@pytest.mark.parametrize("map_index", [-1, 0, 12])
def test_it_is_the_one_that_sent(run_id: str, map_index: int) -> None:
    task = Task(dag_id="pays.daily", run_id=run_id, task_id="group.withdraw", map_index=map_index)
    ti = SimpleNamespace(**vars(task), try_number=3)
    assert Task.named(task_name(cast("Any", {"ti": ti}))) == task


@pytest.mark.parametrize("name", ["", "ann as root", "a / b", "a b / c / d, try 1", "a / b / c, try x"])
def test_a_person_is_no_task(name: str) -> None:
    assert Task.named(name) is None


def test_its_path_holds_any_run() -> None:
    task = Task(dag_id="a", run_id="../x?y#z /", task_id="t", map_index=4)
    assert task.path == "/dags/a/runs/..%2Fx%3Fy%23z%20%2F/tasks/t/mapped/4"
