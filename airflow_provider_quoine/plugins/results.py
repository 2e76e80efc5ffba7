"""What a task has returned, read from Airflow's tables within a bound."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XCOM_RETURN_KEY, XComModel
from airflow.utils.session import create_session
from sqlalchemy import Text, cast, func, select

MOST_CHARACTERS = 1_000_000
"""Of a result that is read; an order book of the exchange has 5,000."""


class NoResultError(ValueError):
    """A task has returned nothing that can be read."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """
    A task and its result.

    :param operator: name of the operator's class.
    :param state: empty if the task has none yet.
    :param text: the result as JSON; None if there is none.
    :param is_too_long: the result is longer than :data:`MOST_CHARACTERS`, and was not read.
    """

    operator: str
    state: str
    text: str | None
    is_too_long: bool

    def value(self) -> Any:
        """
        Return the result, which is whatever the DAG's author has made it.

        :raises NoResultError: if there is none that can be read, saying why.
        """
        if self.is_too_long:
            raise NoResultError(f"Its result is longer than {MOST_CHARACTERS:,} characters, so it was not read.")
        if self.text is None:
            raise NoResultError(f"It has no result: its state is {self.state or 'none yet'}.")
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            raise NoResultError("Its result cannot be read.") from None


def result_of(*, dag_id: str, run_id: str, task_id: str, map_index: int) -> TaskResult | None:
    """
    Read the newest try of a task.

    :param map_index: -1 for a task that is not mapped.
    :return: None if there is no such task.
    """
    key = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
    text = cast(XComModel.value, Text)
    with create_session() as session:
        task = session.scalars(select(TaskInstance).filter_by(**key)).first()
        if task is None:
            return None
        same = [getattr(XComModel, name) == value for name, value in {**key, "key": XCOM_RETURN_KEY}.items()]
        found = session.execute(select(func.length(text), func.substr(text, 1, MOST_CHARACTERS)).where(*same)).first()
        length, beginning = found or (0, None)
        return TaskResult(
            operator=str(task.operator),
            state=str(task.state or ""),
            text=beginning,
            is_too_long=(length or 0) > MOST_CHARACTERS,
        )
