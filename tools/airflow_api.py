"""A small client of Airflow's REST API, for the demo and the tests."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import quote

import requests

T = TypeVar("T")

ENDED = frozenset({"success", "failed"})


class AirflowApiError(Exception):
    """
    Airflow refused a call.

    :param message: the call and the response
    :param status: HTTP status of the response
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


def wait_for(what: str, check: Callable[[], T | None], *, timeout: float, pause: float = 0.5) -> T:
    """
    Call a function until it returns something.

    :param what: for the error message
    :param check: returns None as long as there is no result
    :param timeout: seconds
    :param pause: seconds between calls
    :return: the result
    :raises TimeoutError: if there is no result in time
    """
    deadline = time.monotonic() + timeout
    while (found := check()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"No result after {timeout:.0f} s of waiting for {what}")
        time.sleep(pause)
    return found


class AirflowApi:
    """
    Calls an Airflow as one of its people.

    Every method raises :class:`AirflowApiError` if Airflow refuses the call, and ``requests.RequestException`` if it
    cannot be reached.

    :param url: Airflow's base URL
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._one_at_a_time = Lock()
        # Airflow runs on this machine: a proxy from the environment would be wrong.
        self._session.trust_env = False

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def login(self, name: str | None = None) -> None:
        """
        Get a token, which is valid for a day.

        :param name: of a person, who has it as password too; None where all are admins
        """
        url, person = f"{self.url}/auth/token", {"username": name, "password": name}
        answer = self._session.post(url, json=person, timeout=10) if name else self._session.get(url, timeout=10)
        token = self._content(answer)["access_token"]
        self._session.headers["Authorization"] = f"Bearer {token}"

    def healthy(self) -> bool:
        """Tell whether database, scheduler, triggerer and DAG processor are all healthy."""
        try:
            response = self._session.get(f"{self.url}/api/v2/monitor/health", timeout=10)
            parts = response.json().values() if response.ok else [{}]
        except requests.RequestException:
            return False
        return all(part and part.get("status") == "healthy" for part in parts)

    def call(self, method: str, path: str, payload: object = None, **query: str) -> Any:
        """
        Make one call. It is repeated after a 500, with which Airflow reports a locked SQLite database.

        Threads make one call at a time: of two, one may wait for the lock in the server's event loop, which the other
        needs to release it. Both then block until SQLite's time-out (seen with Airflow 3.3.2).

        :param method: HTTP method
        :param path: path below ``/api/v2/``
        :param payload: JSON body
        :param query: query parameters
        :return: the JSON response; None if it is empty, or if a repeated call gets a 409, since the first was done
        """
        url = f"{self.url}/api/v2/{path}"
        for pause in (0, 1, 2, 4, 8):
            time.sleep(pause)
            with self._one_at_a_time:
                response = self._session.request(method, url, json=payload, params=query, timeout=90)
            if pause and response.status_code == HTTPStatus.CONFLICT:
                return None
            if response.status_code != HTTPStatus.INTERNAL_SERVER_ERROR:
                break
        return self._content(response)

    def page(self, method: str, path: str, **options: Any) -> requests.Response:
        """
        Ask for one of the provider's pages, as a browser does.

        :param path: of the page, as ``applicants/new``
        :param options: as of ``requests``, such as ``data`` and ``files``
        :return: the answer; a redirect is not followed
        """
        url = f"{self.url}/quoine/{path}"
        response = self._session.request(method, url, allow_redirects=False, timeout=90, **options)
        self._check(response)
        return response

    def _content(self, response: requests.Response) -> Any:
        self._check(response)
        return response.json() if response.content else None

    def _check(self, response: requests.Response) -> None:
        if not response.ok:
            call = f"{response.request.method} {response.request.path_url}"
            message = f"Airflow answered {response.status_code} to {call}: {response.text[:2000]}"
            raise AirflowApiError(message, status=response.status_code)

    def create_connection(self, connection_id: str, connection: Mapping[str, Any]) -> None:
        """
        Create a connection.

        :param connection_id: its id
        :param connection: conn_type, host, login, password and extra (a mapping)
        """
        extra = {"extra": json.dumps(connection.get("extra", {}))}
        self.call("POST", "connections", {"connection_id": connection_id, **connection, **extra})

    def unpause(self, dag_id: str, *, timeout: float = 120) -> None:
        """
        Wait until a DAG is known, and unpause it.

        :param dag_id: the DAG
        :param timeout: seconds
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

    def file_token(self, dag_id: str) -> str:
        """Return what :meth:`read_file` wants, for a DAG's file."""
        return str(self.call("GET", f"dags/{dag_id}")["file_token"])

    def read_file(self, file_token: str) -> None:
        """Have Airflow read a DAG file again, now."""
        self.call("PUT", f"parseDagFile/{file_token}")

    def trigger(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        """Start a run with the given params, and return its id."""
        # With an id of our own, a repeated call cannot start a second run.
        run_id = f"manual__{datetime.now(UTC).isoformat()}"
        self.call("POST", f"dags/{dag_id}/dagRuns", {"logical_date": None, "dag_run_id": run_id, "conf": dict(conf)})
        return run_id

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return a run's state; :data:`ENDED` has the final ones."""
        return str(self.call("GET", f"dags/{dag_id}/dagRuns/{quote(run_id)}")["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """List a run's tasks as Airflow's API describes them: task_id, state, try_number, start_date, …"""
        response = self.call("GET", f"dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances")
        tasks: list[dict[str, Any]] = response["task_instances"]
        return tasks

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Read a task's XCom."""
        path = f"dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.call("GET", path, deserialize="true")["value"]

    def answer(self, dag_id: str, run_id: str, task_id: str, *, option: str, params: Mapping[str, str]) -> None:
        """
        Answer a task that waits for a person, once :meth:`tools.standalone.Standalone.is_suspended` returns true.

        :param dag_id: the DAG
        :param run_id: the run
        :param task_id: the task
        :param option: the chosen button
        :param params: the typed values
        """
        path = f"dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/-1/hitlDetails"
        self.call("PATCH", path, {"chosen_options": [option], "params_input": dict(params)})
