"""The questions on Airflow's page that wait for a person: approvals of withdrawals, and their codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, cast

from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select

from airflow_provider_quoine.desk.tasks import Task
from airflow_provider_quoine.operators.approval import QuoineApproveWithdrawalOperator
from airflow_provider_quoine.operators.authorization import QuoineAuthorizeWithdrawalOperator
from airflow_provider_quoine.payments.approvals import Person
from airflow_provider_quoine.payments.withdrawals import task_name

if TYPE_CHECKING:
    from airflow.sdk import Context

APPROVAL, CODE = "approval", "code"
#: What the tasks of an operator ask for.
ASKS_FOR = {QuoineApproveWithdrawalOperator.__name__: APPROVAL, QuoineAuthorizeWithdrawalOperator.__name__: CODE}
_OPEN = (TaskInstanceState.AWAITING_INPUT, TaskInstanceState.DEFERRED)

MOST_READ = 500
"""Open questions that are read, the oldest."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """
    An open question about a payment.

    :param asks_for: :data:`APPROVAL` or :data:`CODE`.
    :param subject: its first line.
    :param since: when it was asked.
    :param task: that asks.
    :param actor: the task as the ledger names it.
    :param started_by: who started the run; empty if nobody did.
    """

    asks_for: str
    subject: str
    since: datetime
    task: Task
    actor: str
    started_by: str

    @property
    def path(self) -> str:
        """Where on Airflow's page it is answered."""
        return f"{self.task.path}/required_actions"


def open_questions(
    person: Person, *, may_answer: Callable[[str], bool], is_assigned: Callable[[set[str]], bool]
) -> list[Question]:
    """
    Find the questions that a person may answer, the oldest first.

    One who has started a run cannot approve in it, and is not asked to.

    :param may_answer: whether the person may answer questions of a DAG, by the DAG's id.
    :param is_assigned: whether the person is one of those who may answer, by their ids.
    """
    columns = (
        HITLDetail.subject,
        HITLDetail.created_at,
        HITLDetail.assignees,
        TaskInstance.dag_id,
        TaskInstance.run_id,
        TaskInstance.task_id,
        TaskInstance.map_index,
        TaskInstance.try_number,
        TaskInstance.operator,
        DagRun.triggering_user_name,
    )
    query = (
        select(*columns)
        .join(TaskInstance, TaskInstance.id == HITLDetail.ti_id)
        .join(DagRun, (DagRun.dag_id == TaskInstance.dag_id) & (DagRun.run_id == TaskInstance.run_id))
        .where(
            HITLDetail.responded_at.is_(None),
            TaskInstance.state.in_(_OPEN),
            TaskInstance.operator.in_(list(ASKS_FOR)),
        )
        .order_by(HITLDetail.created_at)
        .limit(MOST_READ)
    )
    found: list[Question] = []
    with create_session() as session:
        for row in session.execute(query):
            assigned = {str(user["id"]) for user in row.assignees or []}
            if not may_answer(row.dag_id) or (assigned and not is_assigned(assigned)):
                continue
            starter, asks_for = row.triggering_user_name or "", ASKS_FOR[row.operator]
            if asks_for == APPROVAL and starter and person.is_one_of([starter]):
                continue
            task = Task(dag_id=row.dag_id, run_id=row.run_id, task_id=row.task_id, map_index=row.map_index)
            found.append(
                Question(
                    asks_for=asks_for,
                    subject=row.subject,
                    since=row.created_at,
                    task=task,
                    actor=task_name(cast("Context", {"ti": row})),
                    started_by=starter,
                )
            )
    return found
