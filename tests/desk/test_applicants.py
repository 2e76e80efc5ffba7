"""How far an applicant has come, from what Airflow and the store of applications know."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_quoine.applications.application import new_reference
from airflow_provider_quoine.applications.store import ApplicationStore, Kept
from airflow_provider_quoine.desk.applicants import (
    CREATES,
    MEANING,
    NONE,
    WAITS,
    Applicant,
    Reached,
    Task,
    applicants_of,
    run_id_of,
)
from tests.plugins.browser import Person
from tests.support.one_task import parsed

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
REFERENCE = new_reference(NOW)
THERE = Kept(reference=REFERENCE, is_readable=True, has_user=False)
GONE = Kept(reference=REFERENCE, is_readable=False, has_user=False)
SENT = Kept(reference=REFERENCE, is_readable=False, has_user=True)


def task(state: str | None, *, started: bool = True) -> Task:
    return Task(state=state, started_at=NOW if started else None, ended_at=NOW)


DONE = task("success")


@pytest.mark.parametrize(
    ("known", "reached"),
    [
        ({"kept": THERE}, Reached.RECEIVED),
        ({"kept": THERE, "run_state": "queued"}, Reached.RECEIVED),
        ({"kept": THERE, "run_state": "running", "create": task("up_for_retry")}, Reached.RECEIVED),
        ({"kept": THERE, "run_state": "running", "create": task("failed")}, Reached.FAILED),
        ({"kept": THERE, "run_state": "failed", "create": task("failed")}, Reached.FAILED),
        ({"kept": GONE}, Reached.EXPIRED),
        ({"kept": GONE, "run_state": "failed", "create": task("failed")}, Reached.EXPIRED),
        ({"kept": SENT, "run_state": "running", "create": DONE}, Reached.SENT),
        # The store did not answer when the task had sent it.
        ({"kept": THERE, "run_state": "running", "create": DONE}, Reached.SENT),
        ({"kept": SENT, "run_state": "running", "create": DONE, "wait": task("deferred")}, Reached.PENDING),
        ({"kept": SENT, "run_state": "failed", "create": DONE, "wait": task("failed")}, Reached.FAILED),
        ({"kept": SENT, "decision": "APPROVED", "create": DONE, "wait": DONE}, Reached.APPROVED),
        ({"kept": SENT, "decision": "DECLINED", "run_state": "failed", "wait": task("failed")}, Reached.DECLINED),
        ({"kept": SENT, "decision": "BANNED", "run_state": "failed", "wait": task("failed")}, Reached.DECLINED),
        # Its run was deleted.
        ({"kept": SENT}, Reached.SENT),
    ],
)
def test_the_furthest_that_is_known_counts(known: dict[str, Any], reached: Reached) -> None:
    assert Applicant(**known).reached == reached


def test_each_state_is_explained() -> None:
    assert {*MEANING} == {*Reached}


def test_the_way_is_what_has_happened() -> None:
    fresh = Applicant(kept=THERE, create=task("running"))
    assert [what for what, _ in fresh.way] == ["Form opened"]
    # Airflow gives a task that cannot begin a time of beginning.
    stopped = Applicant(kept=THERE, create=task("failed"), wait=task("upstream_failed"))
    assert [what for what, _ in stopped.way] == ["Form opened"]
    declined = Applicant(kept=SENT, create=DONE, wait=task("failed"), decision="DECLINED")
    whole = ["Form opened", "Sent to the exchange", "Waiting for the decision", "Declined"]
    assert [what for what, _ in declined.way] == whole


@pytest.mark.usefixtures("airflow_database")
def test_tasks_and_decision_are_read_from_the_run(exchange: object) -> None:
    from airflow.models.dagbag import DBDagBag
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.sdk import timezone
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    parsed()
    reference = new_reference(NOW)
    with create_session() as session:
        dag = DBDagBag().get_latest_version_of_dag("wait_for_user_None_True", session=session)
        assert dag is not None
        dag.create_dagrun(
            run_id=run_id_of(reference),
            run_after=timezone.utcnow(),
            run_type=DagRunType.MANUAL,
            state=DagRunState.FAILED,
            triggered_by=DagRunTriggeredByType.UI,
            triggering_user_name="op",
            session=session,
        )
        instance = session.query(TaskInstance).filter_by(run_id=run_id_of(reference)).one()
        assert instance.operator == WAITS != CREATES
        instance.start_date = NOW
        XComModel.set("decision", "DECLINED", dag_id=dag.dag_id, task_id="task", run_id=run_id_of(reference))
    (found,) = applicants_of([Kept(reference=reference, is_readable=False, has_user=True)])
    assert (found.reached, found.started_by, found.dag_id) == (Reached.DECLINED, "op", "wait_for_user_None_True")
    assert (found.wait.started_at, found.create) == (NOW, NONE)


@pytest.mark.usefixtures("airflow_database")
def test_of_ten_thousand_applicants_the_newest_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    references = [new_reference(datetime.now(UTC) - timedelta(minutes=minute)) for minute in range(10_000)]
    names = [f"{reference}.{kind}" for reference in references for kind in ("received", "user")]
    monkeypatch.setattr(ApplicationStore, "_names", lambda _: names)
    began = time.thread_time()
    page = Person("viewer").get("/applicants").text
    took = time.thread_time() - began
    assert [reference for reference in references if f">{reference}<" in page] == references[:100]
    assert "9900 older ones are not shown" in page
    assert took < 5
