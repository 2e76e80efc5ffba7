"""Applicants in Airflow's database: the DAGs that take them, the run of each, and how far it has come."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from airflow.exceptions import ParamValidationError
from airflow.models.dag import DagModel, DagTag
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.sdk import timezone
from airflow.sdk.exceptions import AirflowException
from airflow.utils.session import NEW_SESSION, create_session, provide_session
from airflow.utils.state import DagRunState, State, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from airflow_provider_quoine.applications.application import time_of
from airflow_provider_quoine.applications.store import Kept
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.models import ONBOARDING_FAILURE_STATUSES, ONBOARDING_SUCCESS_STATUSES
from airflow_provider_quoine.forms import APPLICANTS_TAG, APPLICATION_FORM
from airflow_provider_quoine.operators.onboarding import QuoineCreateOnboardingUserOperator
from airflow_provider_quoine.sensors.onboarding import DECISION, QuoineOnboardingStatusSensor

(PARAMETER,) = APPLICATION_FORM
CREATES = QuoineCreateOnboardingUserOperator.__name__
WAITS = QuoineOnboardingStatusSensor.__name__
MOST_DAGS = 50

logger = logging.getLogger(__name__)


class NotStartedError(Exception):
    """Airflow's database did not answer, so an application may be here without a run."""


class Reached(StrEnum):
    """How far an applicant has come."""

    RECEIVED = "received"
    SENT = "sent"
    PENDING = "pending"
    APPROVED = "approved"
    DECLINED = "declined"
    EXPIRED = "expired"
    FAILED = "failed"


#: What that means, in words.
MEANING = {
    Reached.RECEIVED: "Form and documents are here, encrypted. The exchange does not have them yet.",
    Reached.SENT: "The exchange has the user, and the data were removed here.",
    Reached.PENDING: "The exchange has the user and has not decided yet. The data were removed here.",
    Reached.APPROVED: "The exchange has approved the user.",
    Reached.DECLINED: "The exchange has declined or banned the user. It gives no reason: ask it.",
    Reached.EXPIRED: "Form and documents were removed because their time was over. As far as is known here, the "
    "exchange does not have the user: look at the run, then have the form filled in again.",
    Reached.FAILED: "A task has failed: its log says why, whether the exchange has the user, and what to do.",
}


@dataclass(frozen=True, kw_only=True)
class TakingDag:
    """
    A DAG that takes applications.

    :param conn_id: the connection by which it creates users; empty if only a run knows it.
    """

    dag_id: str
    is_paused: bool
    conn_id: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """One of the two tasks of an applicant's run that count here, in its last try."""

    state: str | None
    started_at: datetime | None
    ended_at: datetime | None


NONE = Task(state=None, started_at=None, ended_at=None)


@dataclass(frozen=True, kw_only=True)
class Applicant:
    """
    An applicant without personal data.

    :param kept: what is there of the application.
    :param dag_id: of the run; empty if there is none.
    :param started_by: who has sent the form; empty if the run does not say.
    :param create: the task that sends the form.
    :param wait: the task that waits for the decision.
    :param decision: the exchange's word; empty before.
    """

    kept: Kept
    dag_id: str = ""
    started_by: str = ""
    run_state: str = ""
    create: Task = NONE
    wait: Task = NONE
    decision: str = ""

    @property
    def reference(self) -> str:
        """Of the application, and of the page."""
        return self.kept.reference

    @property
    def run_id(self) -> str:
        """Of the run, if there is one."""
        return run_id_of(self.reference)

    @property
    def has_user(self) -> bool:
        """Whether the exchange has the user."""
        return self.kept.has_user or self.create.state == TaskInstanceState.SUCCESS

    @property
    def is_stranded(self) -> bool:
        """Whether nothing sends what waits here: it has no run."""
        return not self.dag_id and not self.has_user and self.kept.is_readable

    @property
    def reached(self) -> Reached:
        """How far it has come: the furthest that is known."""
        has_failed = self.run_state == DagRunState.FAILED or self.create.state in State.failed_states
        has_user = self.has_user
        furthest_first = (
            (Reached.APPROVED, self.decision in ONBOARDING_SUCCESS_STATUSES),
            (Reached.DECLINED, self.decision in ONBOARDING_FAILURE_STATUSES),
            (Reached.EXPIRED, not has_user and not self.kept.is_readable),
            (Reached.FAILED, has_failed),
            (Reached.PENDING, has_user and self.wait.started_at is not None),
            (Reached.SENT, has_user),
        )
        return next((reached for reached, is_so in furthest_first if is_so), Reached.RECEIVED)

    @property
    def way(self) -> list[tuple[str, datetime]]:
        """What happened, and when, the oldest first."""
        sent_at = self.create.ended_at if self.create.state == TaskInstanceState.SUCCESS else None
        steps = [
            ("Form opened", time_of(self.reference)),
            ("Sent to the exchange", sent_at),
            # A task that never begins because another has failed has a time of beginning too.
            ("Waiting for the decision", self.wait.started_at if self.has_user else None),
            (self.decision.capitalize(), self.wait.ended_at),
        ]
        return [(what, at) for what, at in steps if what and at]


def run_id_of(reference: str) -> str:
    """Return the id of an applicant's run: the same each time, so that Airflow's database lets only one begin."""
    return f"applicant__{reference}"


def taking_dags() -> list[TakingDag]:
    """Return the DAGs that take applications."""
    taking = []
    tagged = select(DagTag.dag_id).where(DagTag.name == APPLICANTS_TAG)
    found = select(DagModel).where(~DagModel.is_stale, DagModel.dag_id.in_(tagged))
    with create_session() as session:
        for model in session.scalars(found.order_by(DagModel.dag_id).limit(MOST_DAGS)):
            dag = DBDagBag().get_latest_version_of_dag(model.dag_id, session=session)
            if dag is not None and PARAMETER in dag.params:
                tasks = (task for task in dag.task_dict.values() if task.task_type == CREATES)
                connections = {str(getattr(task, "quoine_conn_id", "")) for task in tasks}
                conn_id = connections.pop() if len(connections) == 1 else ""
                known = "" if "{{" in conn_id else conn_id
                taking.append(TakingDag(dag_id=model.dag_id, is_paused=bool(model.is_paused), conn_id=known))
    return taking


def start_run(who: str, dag_id: str, reference: str) -> None:
    """
    Start an applicant's run as Airflow's own API does; nothing happens if it was started before.

    :param who: starts it, by Airflow's name of the person.
    :raises QuoineInputError: if Airflow refuses.
    :raises NotStartedError: if Airflow's database does not answer.
    """
    run_id, conf = run_id_of(reference), {PARAMETER: reference}
    try:
        with create_session() as session:
            model = session.get(DagModel, dag_id)
            dag = DBDagBag().get_latest_version_of_dag(dag_id, session=session)
            if model is None or model.is_stale or dag is None or model.has_import_errors:
                raise ValueError("there is no such DAG now, or its file has errors")
            if model.allowed_run_types is not None and DagRunType.MANUAL not in model.allowed_run_types:
                raise ValueError("the DAG lets nobody start its runs by hand")
            if _has_run(dag_id, run_id, session=session):
                return
            dag.create_dagrun(
                run_id=run_id,
                logical_date=None,
                run_after=timezone.utcnow(),
                conf=conf,
                run_type=DagRunType.MANUAL,
                triggered_by=DagRunTriggeredByType.UI,
                triggering_user_name=who,
                state=DagRunState.QUEUED,
                session=session,
            )
            log = Log("trigger_dag_run", None, who, who, json.dumps({"conf": conf}), dag_id=dag_id, run_id=run_id)
            session.add(log)
    except (ParamValidationError, AirflowException, ValueError) as error:
        raise QuoineInputError(f"Airflow starts no run of the DAG {dag_id}: {error}.") from None
    except SQLAlchemyError as error:
        # Somebody may have sent the same form at the same moment.
        if not (isinstance(error, IntegrityError) and _has_run(dag_id, run_id)):
            logger.error("The run %s of %s was not started: %s", run_id, dag_id, type(error).__name__)
            raise NotStartedError from None


@provide_session
def _has_run(dag_id: str, run_id: str, *, session: Session = NEW_SESSION) -> bool:
    return session.scalar(select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)) is not None


def applicants_of(kept: Sequence[Kept]) -> list[Applicant]:
    """
    Look up how far applicants have come.

    :param kept: what is there of their applications; as many as a page shows.
    """
    run_ids = [run_id_of(each.reference) for each in kept]
    with create_session() as session:
        runs = {
            run.run_id: run
            for run in session.execute(
                select(DagRun.run_id, DagRun.dag_id, DagRun.state, DagRun.triggering_user_name).where(
                    DagRun.run_id.in_(run_ids)
                )
            )
        }
        tasks = {
            (task.run_id, task.operator): Task(state=task.state, started_at=task.start_date, ended_at=task.end_date)
            for task in session.execute(
                select(
                    TaskInstance.run_id,
                    TaskInstance.operator,
                    TaskInstance.state,
                    TaskInstance.start_date,
                    TaskInstance.end_date,
                ).where(TaskInstance.run_id.in_(run_ids), TaskInstance.operator.in_((CREATES, WAITS)))
            )
        }
        words = select(XComModel.run_id, XComModel.value).where(
            XComModel.run_id.in_(run_ids), XComModel.key == DECISION
        )
        decisions = {row.run_id: str(XComModel.deserialize_value(row)) for row in session.execute(words)}
    return [
        Applicant(
            kept=each,
            dag_id=runs[run_id].dag_id if run_id in runs else "",
            started_by=(runs[run_id].triggering_user_name or "") if run_id in runs else "",
            run_state=str(runs[run_id].state) if run_id in runs else "",
            create=tasks.get((run_id, CREATES), NONE),
            wait=tasks.get((run_id, WAITS), NONE),
            decision=decisions.get(run_id, ""),
        )
        for each, run_id in zip(kept, run_ids, strict=True)
    ]
