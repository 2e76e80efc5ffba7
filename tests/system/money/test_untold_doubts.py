"""People hear of each unknown outcome once, also if the task that sent it is killed in the middle of the request."""

from __future__ import annotations

import json

import pytest

from tests.system.money.environment import POST, Environment, Run, User
from tests.system.money.interruptions import Moment
from tests.system.money.telling import TOLD

pytestmark = pytest.mark.timeout(1500)


def told(environment: Environment, users: list[User]) -> list[tuple[str, str]]:
    """Who has told people of which payment."""
    lines = [json.loads(line) for line in (environment.airflow.home / TOLD).read_text().splitlines()]
    return sorted(
        (by, user.reference)
        for by, words in lines
        for user in users
        if f"payment: {user.reference}" in words.splitlines()
    )


def notify(environment: Environment) -> None:
    """Run the DAG that tells of what nobody was told."""
    environment.airflow.api.unpause("notify_unknown_outcomes")
    run = Run("notify_unknown_outcomes", environment.airflow.api.trigger("notify_unknown_outcomes", {}))
    assert environment.wait_for_end(run) == "success"


def test_people_are_told_once_also_of_a_task_that_was_killed(environment: Environment) -> None:
    alone, with_worker, alive = users = [environment.next_user() for _ in range(3)]
    for user in (alone, with_worker):
        # The exchange owes its answer until all is over, and does the work before.
        environment.sandbox.fault("delay", POST, request_contains=user.amount, when="after", seconds=3600)
    environment.sandbox.fault("drop_after", POST, request_contains=alive.amount)
    killed = {"conn": "money_brief", "moment": Moment.DURING_POST}
    runs = [
        environment.trigger("withdraw_telling", alone, **killed, spare_worker=True),
        environment.trigger("withdraw_telling", with_worker, **killed),
        environment.trigger("withdraw_telling", alive, conn="money_brief"),
    ]
    for run, user in zip(runs, users, strict=True):
        assert environment.wait(run, "failed", "success") == "failed"
        assert len(environment.withdrawals(user)) == 1
    # The dead could tell nobody.
    assert [environment.payment(user).step for user in users] == ["sending", "sending", "unknown"]
    assert told(environment, users) == [("task", alive.reference)]

    for user in users:
        environment.wait_until_doubt_ends(user)
    by = {alone: "sweep", with_worker: "sweep", alive: "task"}
    for _ in range(2):
        notify(environment)
        assert told(environment, users) == sorted((who, user.reference) for user, who in by.items())
