"""
One task of a run, executed try by try. Between the tries a test acts as the scheduler, the triggerer and a person.

It uses the parts of ``dag.test()``: Airflow's real task runner, execution API and database, in this process.
``dag.test()`` itself neither retries at once, nor clears, nor stops at a deferred task.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.records import Payment
from airflow_provider_quoine.payments.schema import IN_DOUBT, Kind, Step
from airflow_provider_quoine.payments.users import user_reference
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.heap import kept

FOLDER = Path(__file__).parent / "dags"
BUNDLE = "tests"
PAST = "2026-01-01T00:00:00+00:00"
ADDRESS = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"


def database() -> Path:
    """Return the file of Airflow's database."""
    return Path(os.environ["AIRFLOW_HOME"]) / "airflow.db"


@cache
def parsed() -> Any:
    """Parse the DAGs of the folder and write them to the database, once."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call]  # Airflow's
    bag = BundleDagBag(str(FOLDER), bundle_path=FOLDER, bundle_name=BUNDLE)
    assert not bag.import_errors
    sync_bag_to_db(bag, BUNDLE, None)
    return bag


@dataclass(frozen=True)
class End:
    """
    The end of a step.

    :param state: the task's state in the database
    :param words: the task's error, empty if there is none
    """

    state: str
    words: str


class OneTask:
    """
    A new run of a DAG whose one task is called ``task``.

    :param dag_id: of ``tests/support/dags/one_task.py``
    :param run_id: the run's id; by default a new one
    :param started_by: who started the run; nobody if empty
    :param conf: the run's parameters; a withdrawal without a ``payment_reference`` gets one of its own
    """

    def __init__(self, dag_id: str, *, run_id: str | None = None, started_by: str = "", **conf: Any) -> None:
        from airflow.models.dagbag import DBDagBag
        from airflow.models.dagrun import DagRun
        from airflow.sdk import timezone
        from airflow.utils.session import create_session
        from airflow.utils.state import DagRunState
        from airflow.utils.types import DagRunTriggeredByType, DagRunType

        self.task = parsed().dags[dag_id].get_task("task")
        self.dag_id, now = dag_id, timezone.utcnow()
        self.run_id = run_id or DagRun.generate_run_id(run_type=DagRunType.MANUAL, logical_date=None, run_after=now)
        if dag_id.startswith(("withdraw", "authorize", "approve")):
            conf = {"payment_reference": f"test-{uuid4().hex}"} | conf
        self.reference = str(conf.get("payment_reference") or conf.get("email_address"))
        with create_session() as session:
            self.dag = DBDagBag().get_latest_version_of_dag(dag_id, session=session)
            assert self.dag is not None
            self.dag.create_dagrun(
                run_id=self.run_id,
                logical_date=None,
                run_after=now,
                conf=conf,
                run_type=DagRunType.MANUAL,
                state=DagRunState.RUNNING,
                triggered_by=DagRunTriggeredByType.TEST,
                triggering_user_name=started_by or None,
                start_date=now,
                session=session,
            )

    @classmethod
    def of_run(cls, dag_id: str, run_id: str) -> OneTask:
        """Take the task of a run that somebody else has started."""
        from airflow.models.dagbag import DBDagBag
        from airflow.utils.session import create_session

        found = cls.__new__(cls)
        found.task = parsed().dags[dag_id].get_task("task")
        found.dag_id, found.run_id, found.reference = dag_id, run_id, ""
        with create_session() as session:
            found.dag = DBDagBag().get_latest_version_of_dag(dag_id, session=session)
        return found

    @contextmanager
    def instance(self) -> Iterator[Any]:
        """Open the task instance in the database."""
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session

        with create_session() as session:
            found = session.query(TaskInstance).filter_by(dag_id=self.dag_id, run_id=self.run_id, task_id="task").one()
            yield found

    @property
    def state(self) -> str:
        """The task's state."""
        with self.instance() as instance:
            return str(instance.state)

    def schedule(self) -> None:
        """Schedule the next try, as the scheduler does."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from airflow.utils.state import DagRunState

        with create_session() as session:
            run = session.query(DagRun).filter_by(dag_id=self.dag_id, run_id=self.run_id).one()
            run.dag = self.dag
            run.set_state(DagRunState.RUNNING)
            ready, _ = run.update_state(session=session)
            assert run.schedule_tis(ready, session=session) == 1

    def step(self) -> End:
        """Run the task until it ends, defers, or asks a person."""
        from airflow.sdk.api.datamodels._generated import TaskInstance
        from airflow.sdk.execution_time.supervisor import run_task_in_process
        from airflow.utils.state import TaskInstanceState

        if self.state != TaskInstanceState.SCHEDULED:
            self.schedule()
        with self.instance() as instance:
            instance.state = TaskInstanceState.QUEUED
            names = ("id", "task_id", "dag_id", "run_id", "try_number", "map_index", "dag_version_id")
            ready = TaskInstance(**{name: getattr(instance, name) for name in names})
        done = run_task_in_process(ti=ready, task=self.task)
        # Its lines are wrapped for a log.
        return End(state=self.state, words=" ".join(str(done.error or "").split()))

    def trigger(self) -> End:
        """Run the task's trigger, as the triggerer does, and resume the task with its event."""
        from airflow.models.trigger import Trigger
        from airflow.sdk._shared.module_loading import import_string
        from airflow.sdk.api.datamodels._generated import TaskInstance
        from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor
        from airflow.utils.session import create_session

        with create_session() as session, self.instance() as instance:
            row = session.get_one(Trigger, instance.trigger_id)
            trigger = import_string(row.classpath)(**row.kwargs)
            instance_id = TaskInstance.model_construct(id=UUID(str(instance.id)))
        run = InProcessTestSupervisor.run_trigger_in_process
        event = run(trigger=trigger, ti=instance_id)  # type: ignore[no-untyped-call]  # Airflow's has no types
        Trigger.submit_event(row.id, event)
        return self.step()

    def answer(self, option: str, code: str = "", *, person: str = "") -> End:
        """Answer the task's question, and resume the task."""
        self.type_in(option, code, person=person)
        return self.step()

    def type_in(self, option: str, code: str, *, person: str = "") -> None:
        """
        Answer the task's question as a person does, over Airflow's API.

        :param code: typed where the question asks for one
        :param person: who answers; by default the user that is logged in
        """
        body = {"chosen_options": [option], "params_input": {} if person else {"one_time_token": code}}
        headers = {"Authorization": f"Bearer {token_of(person)}"} if person else {}
        answered = api().patch(f"{self._url}/-1/hitlDetails", json=body, headers=headers)
        assert answered.status_code == 200, answered.text

    def question(self) -> dict[str, Any]:
        """Read the task's question."""
        asked: dict[str, Any] = api().get(f"{self._url}/-1/hitlDetails").json()
        return asked

    @property
    def _url(self) -> str:
        return f"/api/v2/dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/task"

    def clear(self) -> None:
        """Clear the task as a person does. From Airflow 3.4 on, this discards the task's state."""
        body = {"dag_run_id": self.run_id, "task_ids": ["task"], "dry_run": False, "only_failed": False}
        cleared = api().post(f"/api/v2/dags/{self.dag_id}/clearTaskInstances", json=body)
        assert cleared.status_code == 200, cleared.text

    @property
    def kind(self) -> Kind:
        """The kind of the task's payment."""
        return Kind.USER if "user" in self.dag_id else Kind.WITHDRAWAL

    def payment(self) -> Payment | None:
        """Read the task's payment in the ledger; None if it was not begun."""
        ledger = ledger_of_tests()
        reference = user_reference(ledger, self.reference) if self.kind == Kind.USER else self.reference
        return next(iter(ledger.named(reference, self.kind)), None)

    def stands(self) -> str:
        """Where the task's payment stands; empty if it was not begun."""
        found = self.payment()
        return found.step if found is not None else ""

    def events(self) -> list[str]:
        """What happened to the payment."""
        found = self.payment()
        return [event.event for event in ledger_of_tests().history(found.order)] if found is not None else []

    def wipe(self) -> None:
        """Delete the task's entries in the task state store, as Airflow 3.4 does when a task is cleared."""
        from airflow.state import TaskScope, get_state_backend

        get_state_backend().clear(TaskScope(dag_id=self.dag_id, run_id=self.run_id, task_id="task"))

    def remembers(self) -> int:
        """Count the task's entries in the task state store."""
        return int(api().get(f"{self._url}/state-store").json()["total_entries"])

    def delete_run(self) -> None:
        """Let the run end and delete it, and with it all that Airflow remembers of it."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from airflow.utils.state import DagRunState

        with create_session() as session:
            run = session.query(DagRun).filter_by(dag_id=self.dag_id, run_id=self.run_id).one()
            run.state = DagRunState.SUCCESS
        deleted = api().delete(f"/api/v2/dags/{self.dag_id}/dagRuns/{self.run_id}")
        assert deleted.status_code == 204, deleted.text

    def end_in_flight_time(self) -> None:
        """Let the time pass in which the lost request may still be in flight."""
        found = self.payment()
        assert found is not None
        with ledger_of_tests().transaction() as at:
            assert at.change(found.order, if_step=IN_DOUBT, in_doubt_until=PAST)

    def cli(self, command: str, *more: str) -> None:
        """Run ``airflow quoine payments`` on this task's payment, in this process."""
        why = () if command == "show" else ("--why", "a test")
        payments_cli(command, self.reference, "--kind", str(self.kind), *why, *more)

    def rendered(self) -> dict[str, Any]:
        """Read the rendered fields that Airflow's page shows."""
        fields: dict[str, Any] = api().get(self._url).json()["rendered_fields"]
        return fields

    def links(self) -> dict[str, str]:
        """Read the links that Airflow's page shows on the task."""
        found: dict[str, str] = api().get(f"{self._url}/links").json()["extra_links"]
        return found

    def xcom(self, key: str = "return_value") -> Any:
        """Read an XCom of the task; None if there is none."""
        found = api().get(f"{self._url}/xcomEntries/{key}", params={"stringify": False})
        return found.json()["value"] if found.status_code == 200 else None


def undo_edits() -> None:
    """Put back what tests have changed in the ledger to let time pass, so that its rows follow from its events."""
    ledger = ledger_of_tests()
    edited = [each.order for each in ledger.all() if each.in_doubt_until == datetime.fromisoformat(PAST)]
    for order in edited:
        until = next(each.data["in_doubt_until"] for each in reversed(ledger.history(order)) if each.event == "sending")
        with ledger.transaction() as at:
            assert at.change(order, if_step=frozenset(Step), in_doubt_until=until)


def payments_cli(*words: str) -> None:
    """Run ``airflow quoine payments`` in this process."""
    from airflow.cli import cli_parser

    told = cli_parser.get_parser().parse_args(["quoine", "payments", *words])
    told.func(told)


def ledger_of_tests() -> Ledger:
    """Open the ledger that the tasks of this process use, outside of a task."""
    from airflow_provider_quoine.desk.opening import ModelPin
    from airflow_provider_quoine.payments.configuration import open_ledger

    return open_ledger(pin=ModelPin())


@cache
def api() -> Any:
    """Airflow's API server, in this process, with a user logged in."""
    with kept():
        from airflow.api_fastapi.app import create_app
        from fastapi.testclient import TestClient

        client = TestClient(create_app(apps="core"))
    token = client.get("/auth/token").json()["access_token"]
    client.headers["Authorization"] = f"Bearer {token}"
    return client


def token_of(person: str, role: str = "ADMIN") -> str:
    """Log a user in, with a role of Airflow's simple auth manager."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    # Its auth manager is the server's.
    api()
    return str(get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=person, role=role)))


def set_connection(monkeypatch: Any, **fields: Any) -> None:
    """Change extra fields of ``quoine_default``, or ``host``, ``login`` and ``password``."""
    connection = json.loads(os.environ["AIRFLOW_CONN_QUOINE_DEFAULT"])
    for name, value in fields.items():
        (connection if name in connection else connection["extra"])[name] = value
    monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", json.dumps(connection))


def withdraw(way: str = "", **order: Any) -> OneTask:
    """Make a task that withdraws in one of the ways of the DAGs for tests."""
    return OneTask(f"withdraw{way}", **{"amount": "0.5", "address": ADDRESS} | order)


def paid(exchange: SandboxControl) -> list[str]:
    """Return the ids of what the exchange has carried out."""
    return [str(each["id"]) for each in exchange.state()["withdrawals"]]
