"""After all that went wrong: no code, key or password stands in any table, log or console."""

from __future__ import annotations

import json

import pytest

from tests.support.leaks import cells, contents, find
from tests.system.money.world import PASSWORD, World

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def secrets(world: World) -> dict[str, str]:
    """List every secret there was."""
    found = {f"code {number}": message["code"] for number, message in enumerate(world.sandbox.auth_codes())}
    found |= {f"key of user {user.user_id}": json.loads(user.key)["api_secret"] for user in world.users}
    return found | {"vendor's API secret": world.exchange.vendor_secret, "password": PASSWORD}


def test_no_secret_is_in_any_table(world: World, secrets: dict[str, str]) -> None:
    assert len(secrets) > len(world.users) + 2
    assert all(len(secret) >= 12 for secret in secrets.values())
    assert find(secrets, cells(world.airflow.database)) == set()


def test_no_secret_is_in_any_log_or_on_any_console(world: World, secrets: dict[str, str]) -> None:
    places = dict(contents(world.folder))
    assert {"sandbox.log", "airflow/console.log", "airflow/tasks_api.log"} < places.keys()
    assert any(name.endswith("task_id=withdraw/attempt=3.log") for name in places)
    assert find(secrets, places.items()) == set()
