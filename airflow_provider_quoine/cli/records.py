"""
The commands that show and resolve records of :mod:`airflow_provider_quoine.payments.records`.

They read and write Airflow's metadata database, so they run on a host that reaches it.
"""

from __future__ import annotations

import getpass
import json
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.state import TaskScope, get_state_backend
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState

from airflow_provider_quoine.payments.records import Entry, ResolutionRefusedError, resolve_as_absent, resolve_as_sent

#: A task in one of these states has ended and does not write its record any more.
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
    print(json.dumps(_read(scope, key), indent=2))  # noqa: T201 - the command's answer


def exists(args: Namespace, *, key: str) -> None:
    """
    Record that the exchange carried the request out.

    :raises SystemExit: if the task still runs, or as
        :func:`~airflow_provider_quoine.payments.records.resolve_as_sent` refuses.
    """
    _resolve(args, key, lambda record, person: resolve_as_sent(record, args.identifier, decided_by=person))


def absent(args: Namespace, *, key: str) -> None:
    """
    Record that the exchange did not carry the request out.

    :raises SystemExit: if the task still runs, or as
        :func:`~airflow_provider_quoine.payments.records.resolve_as_absent` refuses.
    """
    _resolve(args, key, lambda record, person: resolve_as_absent(record, decided_by=person))


def _scope(args: Namespace) -> TaskScope:
    return TaskScope(dag_id=args.dag_id, run_id=args.run_id, task_id=args.task_id, map_index=args.map_index)


def _read(scope: TaskScope, key: str) -> Entry:
    stored = get_state_backend().get(scope, key)
    record: Any = json.loads(stored) if stored is not None else {}
    if stored is not None and (not isinstance(record, dict) or "step" not in record):
        raise SystemExit(
            "The record is in a state store of the workers' own ([workers] state_store_backend), which this "
            "command cannot read. Nothing was changed. Resolve it there."
        )
    return record or {}


def _resolve(args: Namespace, key: str, resolve: Callable[[Entry, str], Entry]) -> None:
    scope = _scope(args)
    try:
        resolved = resolve(_read(scope, key), getpass.getuser())
    except ResolutionRefusedError as refusal:
        raise SystemExit(str(refusal)) from None
    state = _task_state(scope)
    if state not in ENDED:
        raise SystemExit(f"The task is {state or 'waiting to run'}; resolve its record once it has failed.")
    get_state_backend().set(scope, key, json.dumps(resolved), expires_at=None)
    print(json.dumps(resolved, indent=2))  # noqa: T201 - the command's answer
    print("Written. Clear the task and it goes on from there.")  # noqa: T201 - the command's answer


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
