"""
What a task asks of the provider's routes in Airflow's API server.

A request shows that it comes from this Airflow by a word that was encrypted with Airflow's Fernet key a moment ago.
"""

from __future__ import annotations

from airflow.sdk import conf
from airflow.sdk.crypto import get_fernet
from airflow.sdk.exceptions import AirflowException

from airflow_provider_quoine.exchange.errors import QuoineError

PREFIX = "/quoine"
WIPE = "/typed-codes/wipe"
VALID_FOR = 300
"""Seconds for which a token is good; the clocks of two hosts differ by less."""
TIMEOUT = 30
"""Seconds for an answer."""


class QuoineApiServerError(QuoineError):
    """The API server does not do what a task has asked for."""


def wipe_typed_codes() -> int:
    """
    Have the API server wipe codes that people have typed for tasks which could not take them.

    :return: how many places in Airflow's tables had one.
    :raises QuoineApiServerError: if it does not.
    """
    import requests

    try:
        fernet = get_fernet()
    except AirflowException as error:
        raise QuoineApiServerError(f"Airflow's Fernet key cannot be used: {error}") from error
    if not fernet.is_encrypted:
        raise QuoineApiServerError("Airflow has no Fernet key here, so the API server would not know who asks.")
    token = fernet.encrypt(WIPE.encode()).decode()
    problems = []
    for base in _bases():
        try:
            return _post(f"{base}{PREFIX}{WIPE}", token)
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            problems.append(f"{type(error).__name__}: {error}")
    raise QuoineApiServerError(f"Airflow's API server did not answer as the provider's plugin does: {problems}.")


def _bases() -> list[str]:
    """Return where the API server may be reached: the tasks' own part of it may be a server of its own."""
    for_tasks = conf.get("core", "execution_api_server_url", fallback="").rstrip("/").removesuffix("/execution")
    for_people = conf.get("api", "base_url", fallback="").rstrip("/")
    return [base for base in dict.fromkeys((for_people, for_tasks)) if base.startswith("http")]


def _post(url: str, token: str) -> int:
    import requests

    answer = requests.post(url, headers={"X-Quoine-Token": token}, timeout=TIMEOUT, allow_redirects=False)
    answer.raise_for_status()
    return int(answer.json()["wiped"])


def is_from_this_airflow(token: str, what: str) -> bool:
    """
    Whether a process with this Airflow's Fernet key has asked a moment ago.

    :param what: the route that it must have asked for.
    """
    from cryptography.fernet import InvalidToken

    fernet = get_fernet()
    try:
        return fernet.is_encrypted and fernet.decrypt(token.encode(), ttl=VALID_FOR) == what.encode()
    except InvalidToken:
        return False
