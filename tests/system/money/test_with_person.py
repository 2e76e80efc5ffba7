"""The task that asks a person for the code: a wrong one, a worker killed while it sends, and a clear after the end."""

from __future__ import annotations

import pytest

from tests.system.money.matrix import WAY_OUT
from tests.system.money.strikes import Moment
from tests.system.money.world import POST, Run, User, World

pytestmark = pytest.mark.timeout(600)


def answer(world: World, run: Run, code: str) -> None:
    """Answer the task's question."""
    params = {"one_time_token": code}
    world.airflow.api.answer(run.dag_id, run.run_id, "withdraw", option="Send", params=params)


def codes(world: World, user: User) -> list[str]:
    """List the codes that a user was sent."""
    return [message["code"] for message in world.sandbox.auth_codes() if str(message["user_id"]) == user.user_id]


def test_a_wrong_code_can_be_typed_again_and_a_clear_after_the_end_sends_nothing(world: World) -> None:
    user = world.next_user()
    run = world.trigger("authorize_1", user)
    world.wait_parked(run, "awaiting_input")
    answer(world, run, "000000000000")
    world.wait_parked(run, "awaiting_input", times=2)
    answer(world, run, world.sandbox.latest_code(user.user_id))
    assert world.wait(run, "success", "failed")["state"] == "success"
    (sent,) = world.withdrawals(user)

    world.clear(run)
    assert world.wait(run, "success", "failed")["state"] == "success"
    assert world.task(run)["try_number"] == 2
    assert world.airflow.api.xcom(run.dag_id, run.run_id, "withdraw")["id"] == str(sent["id"])
    assert [each["id"] for each in world.withdrawals(user)] == [sent["id"]]
    assert len(codes(world, user)) == 1


def test_a_worker_killed_while_it_sends_leaves_no_second_withdrawal_and_no_second_question(world: World) -> None:
    user = world.next_user()
    world.sandbox.fault("delay", POST, request_contains=user.amount, seconds=3)
    run = world.trigger("authorize_1", user, moment=Moment.DURING_POST)
    world.wait_parked(run, "awaiting_input")
    answer(world, run, world.sandbox.latest_code(user.user_id))
    for tries in (2, 3):
        assert world.wait(run, "failed", "success", "awaiting_input")["state"] == "failed"
        assert world.task(run)["try_number"] == tries
        assert WAY_OUT in world.log(run, tries)
        assert len(world.withdrawals(user)) == 1
        world.clear(run)
    assert world.wait(run, "failed", "success", "awaiting_input")["state"] == "failed"
    assert len(codes(world, user)) == 1
