"""
Wipes authentication codes that no task has taken out of Airflow's tables.

A task wipes the code that a person types when it resumes. One that cannot resume leaves it there, and Airflow keeps it
with the task's earlier tries.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from airflow.models.base import Base
from airflow.utils.session import create_session
from airflow.utils.state import State
from sqlalchemy import String, Table, Update, cast, null, select, update

from airflow_provider_quoine.operators.authorization import CODE_FIELD


class Place(NamedTuple):
    """
    A column that may hold a code.

    :param module: of Airflow's that declares the table.
    :param table: the table.
    :param column: the column.
    :param wiped: what it holds without a code.
    :param task: column that names the task, if the task may still take the code; empty if it cannot.
    """

    module: str
    table: str
    column: str
    wiped: Any
    task: str


PLACES = (
    Place("airflow.models.hitl", "hitl_detail", "params_input", {}, "ti_id"),
    Place("airflow.models.taskinstance", "task_instance", "next_kwargs", null(), "id"),
    # Earlier tries. From Airflow 3.4 on they are in the tables above, as tasks that have ended.
    Place("airflow.models.hitl_history", "hitl_detail_history", "params_input", {}, ""),
    Place("airflow.models.taskinstancehistory", "task_instance_history", "next_kwargs", null(), ""),
)


def wipe_typed_codes() -> int:
    """
    Wipe the codes of tasks that have ended, and those of earlier tries.

    :return: how many places had one.
    """
    places = [place for place in PLACES if find_spec(place.module) is not None]
    for place in places:
        import_module(place.module)
    tables = {table.name: table for table in Base.metadata.tables.values()}
    with create_session() as session:
        # Not by way of Airflow's models, which do not show earlier tries.
        connection = session.connection()
        return sum(connection.execute(_wipe(place, tables)).rowcount for place in places)


def _wipe(place: Place, tables: dict[str, Table]) -> Update:
    table, tasks = tables[place.table], tables["task_instance"]
    column = table.columns[place.column]
    statement = update(table).where(cast(column, String).like(f"%{CODE_FIELD}%")).values({column: place.wiped})
    if not place.task:
        return statement
    ended = select(tasks.columns.id).where(tasks.columns.state.in_(State.finished))
    return statement.where(table.columns[place.task].in_(ended))
