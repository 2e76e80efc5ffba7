"""What a task does while the server of the ledger is down; the fault matrix over PostgreSQL is with the other one."""

from __future__ import annotations

import pytest

from tests.system.money.environment import PATIENCE, POST, Environment
from tools.airflow_api import wait_for
from tools.postgres_server import PostgresServer

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]


def test_nothing_is_sent_while_the_server_is_down(
    environment_over_postgres: Environment, postgres: PostgresServer
) -> None:
    environment = environment_over_postgres
    user = environment.next_user()
    postgres.kill()
    try:
        run = environment.trigger("withdraw_0", user)
        environment.wait(run, "failed")
    finally:
        postgres.start()
    assert "cannot be reached" in environment.log(run, 1)
    assert environment.posts(user) == 0
    environment.clear(run)
    assert environment.wait_for_end(run) == "success"
    assert len(environment.withdrawals(user)) == 1


def test_a_server_that_is_killed_while_the_request_is_under_way_leaves_a_doubt_that_names_the_id(
    environment_over_postgres: Environment, postgres: PostgresServer
) -> None:
    environment = environment_over_postgres
    user = environment.next_user()
    environment.sandbox.fault("delay", POST, request_contains=user.amount, seconds=8, when="after")
    run = environment.trigger("withdraw_0", user)
    (sent,) = wait_for("the exchange to carry it out", lambda: environment.withdrawals(user) or None, timeout=PATIENCE)
    postgres.kill()
    try:
        environment.wait(run, "failed")
    finally:
        postgres.start()
    log = environment.log(run, 1)
    assert f"The exchange carried it out, its id is {sent['id']}, but this could not be written to the ledger" in log
    environment.clear(run)
    environment.wait(run, "failed")
    assert "its outcome is unknown" in environment.log(run, 2)
    environment.payments(("exists", user, "--id", str(sent["id"])))
    environment.clear(run)
    assert environment.wait_for_end(run) == "success"
    assert environment.withdrawals(user) == [sent]
