"""The plugin's routes, on Airflow's API server in this process."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time

import pytest
from airflow.sdk.crypto import get_fernet
from cryptography.fernet import Fernet

from airflow_provider_quoine.api_server import PREFIX, VALID_FOR, WIPE
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.leaks import cells, find
from tests.support.one_task import ADDRESS, OneTask, api, database

pytestmark = pytest.mark.usefixtures("airflow_database")

URL = f"{PREFIX}{WIPE}"


def token(words: str = WIPE) -> dict[str, str]:
    """The header of a task of this Airflow."""
    return {"X-Quoine-Token": get_fernet().encrypt(words.encode()).decode()}


def test_a_code_that_was_typed_in_vain_is_wiped(exchange: SandboxControl, payer: str) -> None:
    code = f"{secrets.randbelow(10**12):012}"
    task = OneTask("authorize", user_id=payer, amount="0.5", address=ADDRESS)
    task.step()
    assert task.answer("Send", exchange.latest_code(payer)).state == "success"
    task.type_in("Send", code)
    assert find({"code": code}, cells(database()))
    assert api().post(URL, headers=token()).json()["wiped"] > 0
    assert find({"code": code}, cells(database())) == set()
    assert api().post(URL, headers=token()).json() == {"wiped": 0}


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Quoine-Token": "nothing"},
        {"X-Quoine-Token": "ü"},
        {"X-Quoine-Token": Fernet(Fernet.generate_key()).encrypt(WIPE.encode()).decode()},
        {"X-Quoine-Token": ""},
    ],
)
def test_nobody_else_may_ask(headers: dict[str, str]) -> None:
    encoded = {name: value.encode() for name, value in headers.items()}
    assert api().post(URL, headers=encoded).status_code == 403


def test_a_token_for_something_else_or_an_old_one_does_not_count() -> None:
    assert api().post(URL, headers=token("/something")).status_code == 403
    key = os.environ["AIRFLOW__CORE__FERNET_KEY"]
    old = Fernet(key).encrypt_at_time(WIPE.encode(), int(time.time()) - VALID_FOR - 1).decode()
    assert api().post(URL, headers={"X-Quoine-Token": old}).status_code == 403


def test_without_a_token_nothing_happens() -> None:
    assert api().post(URL).status_code == 422
    assert api().get(URL, headers=token()).status_code == 405


def test_the_plugin_costs_other_processes_of_airflow_nothing() -> None:
    program = (
        "import sys; from airflow_provider_quoine.plugins.plugin import QuoinePlugin as Plugin; "
        "print(Plugin.name, 'fastapi' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=200)
    assert done.stdout.splitlines()[-1] == "quoine False"
