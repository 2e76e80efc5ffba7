"""A person who answers the questions of DAGs through Airflow's API, while ``dag.test()`` runs in the same process."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tests.support.one_task import api, database

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

WAITING = {"response_received": False, "state": "awaiting_input"}
#: Given a question (as the API tells it): which option to choose, and what to type.
Answer = Callable[[dict[str, Any]], tuple[str, dict[str, str]]]


@contextmanager
def person(answer: Answer) -> Iterator[list[dict[str, Any]]]:
    """
    Answer every new question within the block; questions that earlier tests left open stay open.

    :param answer: called with each open question until Airflow takes its answer
    :return: the questions, as they were asked
    """
    from airflow.sdk.definitions import dag
    from fastapi.testclient import TestClient

    # SQLite may be busy with the run: Airflow answers 500 then, and the person tries again.
    client = TestClient(api().app, headers=api().headers, raise_server_exceptions=False)
    left_over = {_run_of(question) for question in _open_questions(client)}
    asked: list[dict[str, Any]] = []
    over, a_task_runs = threading.Event(), threading.Lock()
    run_task = dag._run_task

    def alone(**kwargs: Any) -> Any:
        with a_task_runs:
            return run_task(**kwargs)

    def answer_all() -> None:
        while not over.wait(0.3):
            if not _a_task_asks():
                continue
            with a_task_runs:
                new = (one for one in _open_questions(client) if _run_of(one) not in left_over)
                asked.extend(question for question in new if _takes(client, question, answer(question)))

    thread = threading.Thread(target=answer_all)
    thread.start()
    try:
        # dag.test() sets the state of a waiting task a second time, from its own copy. It would overwrite an answer
        # that came in between, and the run would wait for ever. So no answer is given while a task runs.
        with patch.object(dag, "_run_task", alone):
            yield asked
    finally:
        over.set()
        thread.join()


def _a_task_asks() -> bool:
    """Look whether a task waits for an answer; the API would take twenty times as long, also where none does."""
    with closing(sqlite3.connect(database())) as connection:
        asks = connection.execute("SELECT 1 FROM task_instance WHERE state = ? LIMIT 1", [WAITING["state"]])
        return asks.fetchone() is not None


def _open_questions(client: TestClient) -> list[dict[str, Any]]:
    listed = client.get("/api/v2/dags/~/dagRuns/~/hitlDetails", params=WAITING)
    return list(listed.json()["hitl_details"]) if listed.status_code == 200 else []


def _takes(client: TestClient, question: dict[str, Any], answered: tuple[str, dict[str, str]]) -> bool:
    task, (option, typed) = question["task_instance"], answered
    path = f"/api/v2/dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}"
    body = {"chosen_options": [option], "params_input": typed}
    return bool(client.patch(f"{path}/{task['map_index']}/hitlDetails", json=body).status_code == 200)


def _run_of(question: dict[str, Any]) -> tuple[str, str]:
    task = question["task_instance"]
    return task["dag_id"], task["dag_run_id"]
