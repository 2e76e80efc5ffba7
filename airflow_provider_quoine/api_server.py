"""
What a task asks of the provider's routes in Airflow's API server.

A request shows that it comes from this Airflow by a word that was encrypted with Airflow's Fernet key a moment ago.
"""

from __future__ import annotations

import json
from typing import Any, TypedDict

from airflow.sdk import conf
from airflow.sdk.crypto import get_fernet
from airflow.sdk.exceptions import AirflowException

from airflow_provider_quoine.exchange.errors import QuoineError

PREFIX = "/quoine"
WIPE = "/typed-codes/wipe"
QUESTION = "/questions/write"
VALID_FOR = 300
"""Seconds for which a token is good; the clocks of two hosts differ by less."""
TIMEOUT = 30
"""Seconds for an answer."""
QUESTION_TIMEOUT = 5
"""The same for a question: a task waits for it."""


class Answer(TypedDict):
    """
    A person's answer, as Airflow's page shows it.

    :ivar chosen: the option.
    :ivar by: who answered: ``id`` and ``name``.
    :ivar fields: label and text of what is shown beside it.
    """

    chosen: str
    by: dict[str, str]
    fields: dict[str, str]


class QuoineApiServerError(QuoineError):
    """The API server does not do what a task has asked for."""


def wipe_typed_codes() -> int:
    """
    Have the API server wipe codes that people have typed for tasks which could not take them.

    :return: how many places in Airflow's tables had one.
    :raises QuoineApiServerError: if it does not.
    """
    return int(_ask(WIPE, "", timeout=TIMEOUT)["wiped"])


def write_question(task_instance: object, *, body: str = "", answer: Answer | None = None) -> bool:
    """
    Have the API server change a question to a person. Airflow lets no task do so: it keeps the text of a question that
    is asked again (3.3), and an answer that was wiped leaves the question open.

    :param task_instance: id of the task instance that asks.
    :param body: the new text; empty leaves it as it is.
    :param answer: what a person has chosen and what became of it; nothing secret. It closes the question.
    :return: whether there is such a question.
    :raises QuoineApiServerError: if it does not.
    """
    wanted = {"task_instance": str(task_instance), "body": body, "answer": answer}
    return bool(_ask(QUESTION, json.dumps(wanted), timeout=QUESTION_TIMEOUT)["written"])


def _ask(route: str, words: str, *, timeout: float) -> dict[str, Any]:
    import requests

    try:
        fernet = get_fernet()
    except AirflowException as error:
        raise QuoineApiServerError(f"Airflow's Fernet key cannot be used: {error}") from error
    if not fernet.is_encrypted:
        raise QuoineApiServerError("Airflow has no Fernet key here, so the API server would not know who asks.")
    token, sealed = (fernet.encrypt(text.encode()).decode() for text in (route, words))
    problems = []
    for base in _bases():
        try:
            return _post(f"{base}{PREFIX}{route}", token, sealed, timeout=timeout)
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            problems.append(f"{type(error).__name__}: {error}")
    raise QuoineApiServerError(f"Airflow's API server did not answer as the provider's plugin does: {problems}.")


def _bases() -> list[str]:
    """Return where the API server may be reached: the tasks' own part of it may be a server of its own."""
    for_tasks = conf.get("core", "execution_api_server_url", fallback="").rstrip("/").removesuffix("/execution")
    for_people = conf.get("api", "base_url", fallback="").rstrip("/")
    if not for_people.startswith("http"):
        # As Airflow's own executors complete it.
        for_people = f"http://localhost:8080{for_people}"
    return [base for base in dict.fromkeys((for_people, for_tasks)) if base.startswith("http")]


def _post(url: str, token: str, sealed: str, *, timeout: float) -> dict[str, Any]:
    import requests

    headers = {"X-Quoine-Token": token, "Content-Type": "text/plain"}
    answer = requests.post(url, headers=headers, data=sealed, timeout=timeout, allow_redirects=False)
    answer.raise_for_status()
    return dict(answer.json())


def is_from_this_airflow(token: str, what: str) -> bool:
    """
    Whether a process with this Airflow's Fernet key has asked a moment ago.

    :param what: the route that it must have asked for.
    """
    return words_of_this_airflow(token) == what


def words_of_this_airflow(token: str) -> str | None:
    """Return what a process with this Airflow's Fernet key has written a moment ago; None if it has not."""
    from cryptography.fernet import InvalidToken

    fernet = get_fernet()
    try:
        return fernet.decrypt(token.encode(), ttl=VALID_FOR).decode() if fernet.is_encrypted else None
    except InvalidToken:
        return None
