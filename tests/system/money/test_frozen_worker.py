"""A worker that is stopped while it sends changes nothing that a person has settled, even hours later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

import psutil
import pytest

from tests.support.airflow_version import SCHEDULER_SURVIVES_A_CLEAR_OF_A_FROZEN_TASK
from tests.system.money.environment import PATIENCE, POST, Environment, Run, User
from tests.system.money.interruptions import SEND_WITHIN, Moment
from tools.airflow_api import wait_for

pytestmark = pytest.mark.timeout(1500)


def stopped(environment: Environment) -> list[psutil.Process]:
    """List Airflow's processes that are stopped; others come and go meanwhile."""
    found = []
    for process in environment.airflow.processes():
        with suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_STOPPED:
                found.append(process)
    return found


def wait_until_frozen(environment: Environment, *, workers: int = 1) -> list[psutil.Process]:
    """Return the workers and the tasks' processes that they supervise."""
    return wait_for(
        "the workers to freeze",
        lambda: all_ if len(all_ := stopped(environment)) == 2 * workers else None,
        timeout=PATIENCE,
    )


def wake_up(processes: list[psutil.Process]) -> None:
    """Let all go on, workers first, and wait for the tasks' ends."""
    tasks = [each for each in processes if each.ppid() in {other.pid for other in processes}]
    for process in sorted(processes, key=tasks.__contains__):
        process.resume()
    wait_for(
        "the old tasks to end", lambda: None if any(each.is_running() for each in tasks) else True, timeout=PATIENCE
    )


@pytest.mark.skipif(
    not SCHEDULER_SURVIVES_A_CLEAR_OF_A_FROZEN_TASK, reason="this version's scheduler would die, with any provider"
)
def test_a_worker_that_wakes_up_after_its_successor_sends_nothing(environment: Environment) -> None:
    user = environment.next_user()
    run = environment.trigger("withdraw_0", user, moment=Moment.BEFORE_POST, signal="SIGSTOP")
    processes = wait_until_frozen(environment)
    froze_at = time.monotonic()
    assert environment.payment(user).step == "sending"

    environment.clear(run)
    assert environment.wait(run, "failed", "success") == "failed"
    assert "its outcome is unknown" in environment.log(run, 2)

    time.sleep(max(0, froze_at + SEND_WITHIN.total_seconds() + 1 - time.monotonic()))
    wake_up(processes)
    assert environment.withdrawals(user) == []
    assert "s passed between the ledger and the request" in environment.log(run, 1)
    assert environment.posts(user) == 0
    # It was the owner, and knows that no byte has left.
    assert environment.payment(user).step == "prepared"
    assert environment.task(run)["state"] == "failed"


#: How the exchange answers what must not be paid, so that a person pays it by hand.
REFUSAL = {
    "kind": "status",
    "status": 422,
    "body": '{"errors": {"amount": ["not_enough_fund"]}}',
    "content_type": "application/json",
}
FAULTS: dict[Moment, dict[str, Any]] = {
    Moment.DURING_POST: {"kind": "drop_before"},
    Moment.BEFORE_RECORD: REFUSAL,
    Moment.AFTER_RECORD: REFUSAL,
}
#: What a person does about a payment whose worker is frozen, by what is at the exchange.
SETTLE = {
    Moment.BEFORE_SENDING: ("hold", "release"),
    Moment.BEFORE_POST: ("absent",),
    Moment.IN_POST: ("absent",),
    Moment.DURING_POST: ("exists --id",),
    Moment.BEFORE_RECORD: ("exists --id",),
    Moment.AFTER_RECORD: (),
}
IN_DOUBT = {Moment.BEFORE_POST, Moment.IN_POST, Moment.DURING_POST, Moment.BEFORE_RECORD}


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """
    A payment whose worker is frozen.

    :param user: whose payment it is
    :param run: the run
    :param moment: when the worker froze
    """

    user: User
    run: Run
    moment: Moment


def wait_until_doubts_end(environment: Environment, everything: Iterable[Frozen]) -> None:
    """Wait until no request that was left open can be under way."""
    for frozen in everything:
        if frozen.moment in IN_DOUBT:
            environment.wait_until_doubt_ends(frozen.user)


def settle(environment: Environment, everything: Iterable[Frozen]) -> None:
    """Record what is at the exchange."""
    wait_until_doubts_end(environment, everything)
    commands: list[tuple[str, User, *tuple[str, ...]]] = []
    for frozen in everything:
        found = [str(each["id"]) for each in environment.withdrawals(frozen.user)]
        for name, *options in map(str.split, SETTLE[frozen.moment]):
            commands.append((name, frozen.user, *options, *(found if options else ())))
    environment.payments(*commands)


def pay_by_hand(environment: Environment, everything: Iterable[Frozen]) -> None:
    """Find nothing at the exchange, take the payments, and pay them there."""
    assert [frozen for frozen in everything if environment.withdrawals(frozen.user)] == []
    wait_until_doubts_end(environment, everything)
    users = [frozen.user for frozen in everything]
    environment.payments(*(("hold", user) for user in users))
    environment.payments(*(("exists", user, "--id", environment.pay_by_hand(user)) for user in users))


ACTS: dict[str, Callable[[Environment, Iterable[Frozen]], None]] = {"settled": settle, "paid by hand": pay_by_hand}


@pytest.fixture(scope="module")
def woken(environment: Environment) -> dict[tuple[str, Moment], Frozen]:
    """
    Freeze a worker at each moment; Airflow fails its task; a person acts; it wakes up; the task is cleared.

    All at the same time, because Airflow takes a while to notice a worker's death, and a doubt a while to end.
    """
    everything: dict[tuple[str, Moment], Frozen] = {}
    for act, moment in product(ACTS, Moment):
        user = environment.next_user()
        if act == "paid by hand" and moment in FAULTS:
            environment.sandbox.fault(endpoint=POST, request_contains=user.amount, **FAULTS[moment])
        run = environment.trigger("withdraw_0", user, moment=moment, signal="SIGSTOP", conn="money_brief")
        everything[act, moment] = Frozen(user=user, run=run, moment=moment)
    processes = wait_until_frozen(environment, workers=len(everything))
    for frozen in everything.values():
        assert environment.wait(frozen.run, "failed") == "failed"
    for act, do in ACTS.items():
        do(environment, [everything[act, moment] for moment in Moment])
    wake_up(processes)
    for frozen in everything.values():
        environment.clear(frozen.run)
    return everything


@pytest.mark.parametrize("moment", Moment)
@pytest.mark.parametrize("act", ACTS)
def test_a_worker_that_wakes_up_after_a_person_has_acted_pays_nothing(
    environment: Environment, woken: dict[tuple[str, Moment], Frozen], act: str, moment: Moment
) -> None:
    """The exchange's own record says how often it was paid."""
    frozen = woken[act, moment]
    assert environment.wait_for_end(frozen.run) == "success"
    (paid,) = environment.withdrawals(frozen.user)
    payment = environment.payment(frozen.user)
    assert (payment.step, payment.exchange_id) == ("sent", str(paid["id"]))
    assert environment.airflow.api.xcom(frozen.run.dag_id, frozen.run.run_id, "withdraw")["id"] == str(paid["id"])
