"""A worker that is stopped between its record and the request sends nothing when it continues, even hours later."""

from __future__ import annotations

import time

import psutil
import pytest

from airflow_provider_quoine.payments.send_once import SEND_WITHIN_SECONDS
from tests.system.money.environment import POST, Environment
from tests.system.money.interruptions import Moment
from tools.airflow_api import wait_for

pytestmark = pytest.mark.timeout(600)


def stopped(environment: Environment) -> list[psutil.Process]:
    """List Airflow's processes that are stopped."""
    return [process for process in environment.airflow.processes() if process.status() == psutil.STATUS_STOPPED]


def test_a_worker_that_wakes_up_after_its_successor_sends_nothing(environment: Environment) -> None:
    user = environment.next_user()
    run = environment.trigger("withdraw_0", user, moment=Moment.BEFORE_POST, signal="SIGSTOP")
    # The worker, and the task's process that it supervises.
    one, other = wait_for(
        "the worker to freeze", lambda: both if len(both := stopped(environment)) == 2 else None, timeout=120
    )
    worker, task = (one, other) if other.ppid() == one.pid else (other, one)
    froze_at = time.monotonic()
    assert environment.record(run)["step"] == "sending"

    environment.clear(run)
    assert environment.wait(run, "failed", "success")["state"] == "failed"
    assert "An earlier try began to send" in environment.log(run, 2)

    time.sleep(max(0, froze_at + SEND_WITHIN_SECONDS + 1 - time.monotonic()))
    worker.resume()
    task.resume()
    wait_for("the old task to end", lambda: None if task.is_running() else True, timeout=60)
    assert environment.withdrawals(user) == []
    assert "s passed between the record and the request" in environment.log(run, 1)
    posts = [seen for seen in environment.sandbox.state()["requests"] if seen["endpoint"] == POST]
    assert [seen for seen in posts if seen["api_id"] == user.user_id] == []
    assert environment.record(run)["step"] == "sending"
    assert environment.task(run)["state"] == "failed"
