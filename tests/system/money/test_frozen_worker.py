"""A worker that is stopped while it sends changes nothing that a person has settled, even hours later."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import psutil
import pytest

from tests.system.money.environment import POST, Environment
from tests.system.money.interruptions import SEND_WITHIN, Moment
from tools.airflow_api import wait_for

pytestmark = pytest.mark.timeout(600)


def stopped(environment: Environment) -> list[psutil.Process]:
    """List Airflow's processes that are stopped."""
    return [process for process in environment.airflow.processes() if process.status() == psutil.STATUS_STOPPED]


def wait_until_frozen(environment: Environment) -> tuple[psutil.Process, psutil.Process]:
    """Return the worker, and the task's process that it supervises."""
    one, other = wait_for(
        "the worker to freeze", lambda: both if len(both := stopped(environment)) == 2 else None, timeout=120
    )
    return (one, other) if other.ppid() == one.pid else (other, one)


def wake_up(worker: psutil.Process, task: psutil.Process) -> None:
    """Let both go on, and wait for the task's end."""
    worker.resume()
    task.resume()
    wait_for("the old task to end", lambda: None if task.is_running() else True, timeout=60)


def test_a_worker_that_wakes_up_after_its_successor_sends_nothing(environment: Environment) -> None:
    user = environment.next_user()
    run = environment.trigger("withdraw_0", user, moment=Moment.BEFORE_POST, signal="SIGSTOP")
    worker, task = wait_until_frozen(environment)
    froze_at = time.monotonic()
    assert environment.payment(user).step == "sending"

    environment.clear(run)
    assert environment.wait(run, "failed", "success")["state"] == "failed"
    assert "its outcome is unknown" in environment.log(run, 2)

    time.sleep(max(0, froze_at + SEND_WITHIN.total_seconds() + 1 - time.monotonic()))
    wake_up(worker, task)
    assert environment.withdrawals(user) == []
    assert "s passed between the ledger and the request" in environment.log(run, 1)
    posts = [seen for seen in environment.sandbox.state()["requests"] if seen["endpoint"] == POST]
    assert [seen for seen in posts if seen["api_id"] == user.user_id] == []
    # It was the owner, and knows that no byte has left.
    assert environment.payment(user).step == "prepared"
    assert environment.task(run)["state"] == "failed"


@pytest.mark.parametrize(
    ("moment", "by_hand"),
    [
        (Moment.BEFORE_SENDING, True),
        (Moment.BEFORE_SENDING, False),
        (Moment.BEFORE_POST, True),
        (Moment.BEFORE_POST, False),
        (Moment.BEFORE_RECORD, False),
    ],
)
def test_a_worker_that_wakes_up_after_a_person_has_settled_pays_nothing(
    environment: Environment, moment: Moment, by_hand: bool
) -> None:
    """Airflow fails the task by heartbeat, a person settles the payment, the worker wakes up, a clear."""
    user = environment.next_user()
    run = environment.trigger("withdraw_0", user, moment=moment, signal="SIGSTOP", conn="money_brief")
    worker, task = wait_until_frozen(environment)
    assert environment.wait(run, "failed")["state"] == "failed"
    before = environment.withdrawals(user)
    reference = f"payment-{user.user_id}"

    def settle(*words: str) -> None:
        command, *more = words
        environment.airflow.run("airflow", "quoine", "payments", command, reference, "--why", "a test", *more)

    if moment == Moment.BEFORE_RECORD:
        settle("exists", "--id", str(before[0]["id"]))
    else:
        if moment == Moment.BEFORE_POST:
            until = environment.payment(user).in_doubt_until
            assert until is not None
            wait_for("the doubt to end", lambda: datetime.now(UTC) > until or None, timeout=120)
        settle("hold")
        settle(*(("exists", "--id", "77") if by_hand else ("release",)))
    settled = environment.payment(user)

    wake_up(worker, task)
    assert environment.withdrawals(user) == before or (moment == Moment.BEFORE_SENDING and not by_hand)
    if settled.step == "sent":
        assert (environment.payment(user).step, environment.payment(user).exchange_id) == ("sent", settled.exchange_id)
    environment.clear(run)
    environment.wait(run, "failed", "success")
    assert len(environment.withdrawals(user)) == (0 if by_hand else 1)
