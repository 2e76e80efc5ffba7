"""After all these failures: no code, key or password is in any table, log or console."""

from __future__ import annotations

import json

import pytest

from tests.support.leaks import cells, contents, find
from tests.system.money.environment import PASSWORD, Environment

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def secrets(environment: Environment) -> dict[str, str]:
    """List every secret there was."""
    found = {f"code {number}": message["code"] for number, message in enumerate(environment.sandbox.auth_codes())}
    found |= {f"key of user {user.user_id}": json.loads(user.key)["api_secret"] for user in environment.users}
    return found | {"vendor's API secret": environment.exchange.vendor_secret, "password": PASSWORD}


def test_no_secret_is_in_any_table(environment: Environment, secrets: dict[str, str]) -> None:
    assert len(secrets) > len(environment.users) + 2
    assert all(len(secret) >= 12 for secret in secrets.values())
    assert find(secrets, cells(environment.airflow.database)) == set()


def test_no_secret_is_in_any_log_or_on_any_console(environment: Environment, secrets: dict[str, str]) -> None:
    places = dict(contents(environment.folder))
    assert {"sandbox.log", "airflow/console.log", "airflow/tasks_api.log"} < places.keys()
    assert any(name.endswith("task_id=withdraw/attempt=3.log") for name in places)
    assert find(secrets, places.items()) == set()
