"""A person who answers the questions of DAGs through Airflow's API, while ``dag.test()`` runs in the same process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

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

    asked: list[dict[str, Any]] = []
    ready, over, a_task_runs = threading.Event(), threading.Event(), threading.Lock()
    run_task = dag._run_task

    def alone(**kwargs: Any) -> Any:
        with a_task_runs:
            return run_task(**kwargs)

    thread = threading.Thread(target=_answer_all, args=(answer, asked, ready, over, a_task_runs))
    thread.start()
    try:
        assert ready.wait(200), "Airflow's API did not start"
        # dag.test() sets the state of a waiting task a second time, from its own copy. It would overwrite an answer
        # that came in between, and the run would wait for ever. So no answer is given while a task runs.
        with patch.object(dag, "_run_task", alone):
            yield asked
    finally:
        over.set()
        thread.join()


def _answer_all(
    answer: Answer,
    asked: list[dict[str, Any]],
    ready: threading.Event,
    over: threading.Event,
    a_task_runs: threading.Lock,
) -> None:
    from airflow.api_fastapi.app import create_app
    from fastapi.testclient import TestClient

    # SQLite may be busy with the run: Airflow answers 500 then, and the person tries again.
    with TestClient(create_app(apps="core"), raise_server_exceptions=False) as client:
        token = client.get("/auth/token").json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        left_over = {_run_of(question) for question in _open_questions(client)}
        ready.set()
        while not over.wait(0.3):
            with a_task_runs:
                new = (one for one in _open_questions(client) if _run_of(one) not in left_over)
                asked += [question for question in new if _takes(client, question, answer(question))]


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
