"""A person who answers what DAGs ask, through Airflow's own API, while ``dag.test()`` runs in the same process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

WAITING = {"response_received": False, "state": "awaiting_input"}
#: Given a question (as the API tells it): which option to choose, and what to type.
Answer = Callable[[dict[str, Any]], tuple[str, dict[str, str]]]


@contextmanager
def person(answer: Answer) -> Iterator[list[dict[str, Any]]]:
    """
    Answer every question that comes up within the block.

    :param answer: called with each open question until Airflow takes its answer
    :return: the questions, as they were asked
    """
    asked: list[dict[str, Any]] = []
    over = threading.Event()
    thread = threading.Thread(target=_answer_all, args=(answer, asked, over))
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join()


def _answer_all(answer: Answer, asked: list[dict[str, Any]], over: threading.Event) -> None:
    from airflow.api_fastapi.app import create_app
    from fastapi.testclient import TestClient

    # SQLite may be busy with the run: Airflow answers 500 then, and the person tries again.
    with TestClient(create_app(apps="core"), raise_server_exceptions=False) as client:
        token = client.get("/auth/token").json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        while not over.wait(0.3):
            listed = client.get("/api/v2/dags/~/dagRuns/~/hitlDetails", params=WAITING)
            for question in listed.json()["hitl_details"] if listed.status_code == 200 else ():
                task = question["task_instance"]
                option, typed = answer(question)
                path = f"/api/v2/dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}"
                body = {"chosen_options": [option], "params_input": typed}
                if client.patch(f"{path}/{task['map_index']}/hitlDetails", json=body).status_code == 200:
                    asked.append(question)
