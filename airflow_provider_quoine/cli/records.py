"""Reads and settles the records of :mod:`airflow_provider_quoine.payments.send_once`, where the database is."""

from __future__ import annotations

import getpass
import json
from argparse import Namespace
from datetime import UTC, datetime
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.state import TaskScope, get_state_backend
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState

from airflow_provider_quoine.exchange.models import is_id
from airflow_provider_quoine.payments.send_once import Entry, Step

#: A task that is in one of these has ended: nothing of it writes the record any more.
ENDED = (
    TaskInstanceState.FAILED,
    TaskInstanceState.UPSTREAM_FAILED,
    TaskInstanceState.SKIPPED,
    TaskInstanceState.SUCCESS,
)


def show(args: Namespace, *, key: str) -> None:
    """
    Print a task's record as JSON; ``{}`` if it has none.

    :raises SystemExit: if there is no such task.
    """
    scope = _scope(args)
    _task_state(scope)
    print(json.dumps(_read(scope, key) or {}, indent=2))  # noqa: T201 - the command's answer


def exists(args: Namespace, *, key: str) -> None:
    """
    Record that the exchange carried the request out. An id that a person mistyped here may be corrected here.

    :raises SystemExit: if the task is still running, or the exchange itself has answered with another id.
    """
    if not is_id(args.identifier):
        raise SystemExit(f"{args.identifier!r:.80} is no id of the exchange; nothing was changed.")
    scope, identifier = _scope(args), args.identifier
    record = _read(scope, key) or {}
    if record.get("id", identifier) != identifier and record.get("decision") != "exists":
        raise SystemExit(f"The exchange itself answered with id {record['id']}; nothing was changed.")
    _settle(scope, key, {**record, "step": str(Step.SENT), "id": identifier}, "exists")


def absent(args: Namespace, *, key: str) -> None:
    """
    Record that the exchange did not carry the request out, so that the cleared task sends.

    :raises SystemExit: if the task is still running, has an id on record, or its request may still be on its way.
    """
    scope = _scope(args)
    record = _read(scope, key) or {}
    if record.get("step") == Step.SENT:
        raise SystemExit(f"The record names {record['id']}, which the exchange has carried out; nothing was changed.")
    doubt = _seconds_of_doubt(record)
    if doubt > 0:
        raise SystemExit(
            f"The task's request may still be on its way. Look at the exchange again in {doubt:.0f} s; nothing was "
            "changed."
        )
    _settle(scope, key, {**record, "step": str(Step.PREPARED), "reason": ""}, "absent")


def _scope(args: Namespace) -> TaskScope:
    return TaskScope(dag_id=args.dag_id, run_id=args.run_id, task_id=args.task_id, map_index=args.map_index)


def _read(scope: TaskScope, key: str) -> Entry | None:
    stored = get_state_backend().get(scope, key)
    record: Any = json.loads(stored) if stored is not None else None
    if record is not None and (not isinstance(record, dict) or "step" not in record):
        raise SystemExit(
            "The record stands in a state store of the workers' own ([workers] state_store_backend), which this "
            "command cannot read. Settle it there."
        )
    return record


def _seconds_of_doubt(record: Entry) -> float:
    if "in_doubt_until" not in record:
        return 0
    return (datetime.fromisoformat(record["in_doubt_until"]) - datetime.now(UTC)).total_seconds()


def _settle(scope: TaskScope, key: str, record: Entry, decision: str) -> None:
    state = _task_state(scope)
    if state not in ENDED:
        raise SystemExit(f"The task is {state or 'waiting to run'}; settle its record once it has failed.")
    who = {"decision": decision, "decided_by": getpass.getuser(), "decided_at": datetime.now(UTC).isoformat()}
    get_state_backend().set(scope, key, json.dumps(record | who), expires_at=None)
    print(json.dumps(record | who, indent=2))  # noqa: T201 - the command's answer
    print("Written. Clear the task and it goes on from there.")  # noqa: T201


def _task_state(scope: TaskScope) -> str | None:
    with create_session() as session:
        task = (
            session.query(TaskInstance)
            .filter_by(dag_id=scope.dag_id, run_id=scope.run_id, task_id=scope.task_id, map_index=scope.map_index)
            .one_or_none()
        )
        if task is None:
            raise SystemExit("There is no such task in that run; look at its address in Airflow's page.")
        return task.state
