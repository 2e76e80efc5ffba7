"""A worker that freezes between its record and the request sends nothing when it wakes up, hours or seconds later."""

from __future__ import annotations

import time

import psutil
import pytest

from airflow_provider_quoine.payments.send_once import SEND_WITHIN_SECONDS
from tests.system.money.strikes import Moment
from tests.system.money.world import POST, World
from tools.airflow_api import wait_for

pytestmark = pytest.mark.timeout(600)


def stopped(world: World) -> list[psutil.Process]:
    """List Airflow's processes that are stopped."""
    return [process for process in world.airflow.processes() if process.status() == psutil.STATUS_STOPPED]


def test_a_worker_that_wakes_up_after_its_successor_sends_nothing(world: World) -> None:
    user = world.next_user()
    run = world.trigger("withdraw_0", user, moment=Moment.BEFORE_POST, signal="SIGSTOP")
    # The worker, and the task's process that it supervises.
    one, other = wait_for(
        "the worker to freeze", lambda: both if len(both := stopped(world)) == 2 else None, timeout=120
    )
    worker, task = (one, other) if other.ppid() == one.pid else (other, one)
    froze_at = time.monotonic()
    assert world.record(run)["step"] == "sending"

    world.clear(run)
    assert world.wait(run, "failed", "success")["state"] == "failed"
    assert "An earlier try began to send" in world.log(run, 2)

    time.sleep(max(0, froze_at + SEND_WITHIN_SECONDS + 1 - time.monotonic()))
    worker.resume()
    task.resume()
    wait_for("the old task to end", lambda: None if task.is_running() else True, timeout=60)
    assert world.withdrawals(user) == []
    assert "s passed between the record and the request" in world.log(run, 1)
    posts = [seen for seen in world.sandbox.state()["requests"] if seen["endpoint"] == POST]
    assert [seen for seen in posts if seen["api_id"] == user.user_id] == []
    assert world.record(run)["step"] == "sending"
    assert world.task(run)["state"] == "failed"
