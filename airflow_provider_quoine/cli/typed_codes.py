"""
Wipes authentication codes that no task has taken out of Airflow's tables.

A task wipes the code that a person types when it resumes. One that cannot resume leaves it there, and Airflow copies it
into the history of the task's tries.
"""

from __future__ import annotations

from airflow.models.hitl import HITLDetail
from airflow.models.hitl_history import HITLDetailHistory
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.utils.session import create_session
from airflow.utils.state import State
from sqlalchemy import String, cast, select, update

from airflow_provider_quoine.operators.authorization import CODE_FIELD


def wipe_typed_codes() -> int:
    """
    Wipe the codes of tasks that have ended, and those in the history of tries.

    :return: how many places had one.
    """
    named = f"%{CODE_FIELD}%"
    ended = select(TaskInstance.id).where(TaskInstance.state.in_(State.finished))
    statements = (
        update(HITLDetailHistory)
        .where(cast(HITLDetailHistory.params_input, String).like(named))
        .values(params_input={}),
        update(TaskInstanceHistory)
        .where(cast(TaskInstanceHistory.next_kwargs, String).like(named))
        .values(next_kwargs=None),
        update(HITLDetail)
        .where(cast(HITLDetail.params_input, String).like(named), HITLDetail.ti_id.in_(ended))
        .values(params_input={}),
        update(TaskInstance)
        .where(cast(TaskInstance.next_kwargs, String).like(named), TaskInstance.id.in_(ended))
        .values(next_kwargs=None),
    )
    with create_session() as session:
        return sum(
            session.execute(statement.execution_options(synchronize_session=False)).rowcount  # type: ignore[attr-defined]  # of an update
            for statement in statements
        )
