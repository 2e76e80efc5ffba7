"""Where in Airflow a payment is, and who started its run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import select, tuple_

#: As :func:`~airflow_provider_quoine.payments.withdrawals.task_name` writes it. The run's id may hold anything.
_NAME = re.compile(r"(?P<dag>[\w.~+-]+) / (?P<run>.+) / (?P<task>[\w.~+-]+?)(?:\[(?P<index>\d+)])?, try \d+", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Task:
    """
    A task of a run.

    :param dag_id: of the DAG.
    :param run_id: of the run.
    :param task_id: of the task.
    :param map_index: of a mapped task; -1 for others.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    @classmethod
    def named(cls, name: str) -> Task | None:
        """Return the task that the ledger names; None if a person or something else stands there."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        return cls(
            dag_id=found["dag"], run_id=found["run"], task_id=found["task"], map_index=int(found["index"] or "-1")
        )

    @property
    def run_path(self) -> str:
        """The run's path on Airflow's page."""
        return f"/dags/{quote(self.dag_id, safe='')}/runs/{quote(self.run_id, safe='')}"

    @property
    def path(self) -> str:
        """The task's path on Airflow's page."""
        mapped = f"/mapped/{self.map_index}" if self.map_index >= 0 else ""
        return f"{self.run_path}/tasks/{quote(self.task_id, safe='')}{mapped}"


def starters(tasks: Iterable[Task]) -> dict[tuple[str, str], str]:
    """
    Find who started runs.

    :param tasks: some hundreds at most.
    :return: by DAG and run; empty where nobody did. Runs that Airflow has not any more are left out.
    """
    keys = {(task.dag_id, task.run_id) for task in tasks}
    if not keys:
        return {}
    of_keys = tuple_(DagRun.dag_id, DagRun.run_id).in_(keys)
    with create_session() as session:
        rows = session.execute(select(DagRun.dag_id, DagRun.run_id, DagRun.triggering_user_name).where(of_keys))
        return {(dag_id, run_id): name or "" for dag_id, run_id, name in rows}
