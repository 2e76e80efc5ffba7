"""A small client of Airflow's own REST API: what a person would click, for the demo and the tests."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import requests

T = TypeVar("T")

ENDED = frozenset({"success", "failed"})


class AirflowApiError(Exception):
    """
    Airflow refused a call.

    :param message: says which, and what it answered
    :param status: HTTP status of the answer
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


def wait_for(what: str, check: Callable[[], T | None], *, timeout: float, pause: float = 0.5) -> T:
    """
    Check until there is an answer.

    :param what: what is waited for, for the message
    :param check: returns None while there is nothing yet
    :param timeout: seconds
    :param pause: seconds between checks
    :raises TimeoutError: naming what did not come
    """
    deadline = time.monotonic() + timeout
    while (found := check()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {timeout:.0f} s in vain for {what}")
        time.sleep(pause)
    return found


class AirflowApi:
    """
    Talks to the Airflow at a URL where everybody is admin (``simple_auth_manager_all_admins``).

    Every method raises :class:`AirflowApiError` on a refusal and ``requests.RequestException`` when Airflow is not
    there.

    :param url: its base URL
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        # A proxy of the environment has no business between this machine and itself.
        self._session.trust_env = False

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def login(self) -> None:
        """Fetch a token; it lasts a day."""
        token = self._answer(self._session.get(f"{self.url}/auth/token", timeout=10))["access_token"]
        self._session.headers["Authorization"] = f"Bearer {token}"

    def healthy(self) -> bool:
        """Whether database, scheduler, triggerer and DAG processor all say so."""
        try:
            answer = self._session.get(f"{self.url}/api/v2/monitor/health", timeout=10)
            parts = answer.json().values() if answer.ok else [{}]
        except requests.RequestException:
            return False
        return all(part and part.get("status") == "healthy" for part in parts)

    def call(self, method: str, path: str, payload: object = None, **query: str) -> Any:
        """
        Make one call; again after a 500, which is how Airflow says that SQLite was locked.

        :param method: HTTP method
        :param path: path below ``/api/v2/``
        :param payload: JSON body
        :param query: query parameters
        :return: the JSON answer; None if there was none, or if a repeated call finds its work done (409)
        """
        url = f"{self.url}/api/v2/{path}"
        for pause in (0, 1, 2, 4, 8):
            time.sleep(pause)
            answer = self._session.request(method, url, json=payload, params=query, timeout=90)
            if pause and answer.status_code == HTTPStatus.CONFLICT:
                return None
            if answer.status_code != HTTPStatus.INTERNAL_SERVER_ERROR:
                break
        return self._answer(answer)

    def _answer(self, answer: requests.Response) -> Any:
        if not answer.ok:
            asked = f"{answer.request.method} {answer.request.path_url}"
            told = f"Airflow answered {answer.status_code} to {asked}: {answer.text[:2000]}"
            raise AirflowApiError(told, status=answer.status_code)
        return answer.json() if answer.content else None

    def create_connection(self, connection_id: str, connection: Mapping[str, Any]) -> None:
        """
        Create a connection, to be seen in Airflow's page.

        :param connection_id: its id
        :param connection: conn_type, host, login, password and extra (a mapping)
        """
        extra = {"extra": json.dumps(connection.get("extra", {}))}
        self.call("POST", "connections", {"connection_id": connection_id, **connection, **extra})

    def unpause(self, dag_id: str, *, timeout: float = 120) -> None:
        """
        Unpause a DAG, waiting until its file has been read.

        :raises RuntimeError: with the tracebacks, if DAG files fail on import
        """

        def present() -> bool | None:
            broken = self.call("GET", "importErrors")["import_errors"]
            if broken:
                raise RuntimeError("\n".join(error["stack_trace"] for error in broken))
            try:
                self.call("PATCH", f"dags/{dag_id}", {"is_paused": False})
            except AirflowApiError as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise
                return None
            return True

        wait_for(f"DAG {dag_id}", present, timeout=timeout)

    def trigger(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        """Start a run with the given params, and return its id."""
        # An id of our own, in Airflow's form: a repeated call cannot start a second run.
        run_id = f"manual__{datetime.now(UTC).isoformat()}"
        self.call("POST", f"dags/{dag_id}/dagRuns", {"logical_date": None, "dag_run_id": run_id, "conf": dict(conf)})
        return run_id

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Tell a run's state; :data:`ENDED` holds the final ones."""
        return str(self.call("GET", f"dags/{dag_id}/dagRuns/{quote(run_id)}")["state"])

    def has_run(self, dag_id: str, run_id: str) -> bool:
        """Whether there is such a run."""
        return any(run["dag_run_id"] == run_id for run in self.call("GET", f"dags/{dag_id}/dagRuns")["dag_runs"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """List a run's tasks as Airflow tells them: task_id, state, try_number, start_date, end_date, …"""
        answer = self.call("GET", f"dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances")
        tasks: list[dict[str, Any]] = answer["task_instances"]
        return tasks

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Read a task's XCom."""
        path = f"dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.call("GET", path, deserialize="true")["value"]

    def answer(self, dag_id: str, run_id: str, task_id: str, *, option: str, params: Mapping[str, str]) -> None:
        """
        Answer a task that waits for a person; not before :meth:`tools.standalone.Standalone.parked` says so.

        :param option: the button
        :param params: what is typed
        """
        path = f"dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/-1/hitlDetails"
        self.call("PATCH", path, {"chosen_options": [option], "params_input": dict(params)})
