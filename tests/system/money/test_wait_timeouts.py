"""Waits in a real triggerer: they give up in time, end as poke mode does, and never send again."""

from __future__ import annotations

from decimal import Decimal

import pytest

from airflow_provider_quoine.exchange.models import UserCredentials
from airflow_provider_quoine.exchange.rest.auth import ApiAuth
from airflow_provider_quoine.exchange.rest.client import QuoineClient
from tests.system.money.world import Run, User, World
from tools.airflow_api import wait_for
from tools.sandbox import ADDRESS

pytestmark = pytest.mark.timeout(600)


def withdraw(world: World, user: User) -> str:
    """Withdraw by hand, and return the id."""
    key = UserCredentials.from_json(user.key)
    with QuoineClient(base_url=world.exchange.url, auth=ApiAuth(key.api_id, key.api_secret)) as client:
        client.request_auth_code(user_id=user.user_id)
        code = world.sandbox.latest_code(user.user_id)
        return client.create_withdrawal(amount=Decimal(user.amount), address=ADDRESS, auth_code=code).id


def wait_for_end(world: World, run: Run) -> tuple[str, str]:
    """Return the ends of a run and of its one task."""
    wait_for(f"{run} to end", lambda: run in world.ended({run.dag_id}) or None, timeout=180)
    return world.airflow.api.run_state(run.dag_id, run.run_id), world.task(run)["state"]


@pytest.fixture(scope="module")
def without_end(world: World) -> dict[str, Run]:
    """Start all waits for what does not end, at once; the ends are those of poke mode."""
    user = world.next_user()
    world.sandbox.set_user(user.user_id, "DOCUMENTS_SUBMITTED")
    payer = world.next_user()
    withdrawal_id = withdraw(world, payer)
    return {
        dag_id: world.trigger(dag_id, who, **conf)
        for dag_id, who, conf in (
            ("wait_for_withdrawal_False", payer, {"withdrawal_id": withdrawal_id}),
            ("wait_for_withdrawal_True", payer, {"withdrawal_id": withdrawal_id}),
            ("wait_for_user_False", user, {}),
            ("wait_for_user_True", user, {}),
        )
    }


@pytest.mark.parametrize("what", ["withdrawal", "user"])
@pytest.mark.parametrize(("soft_fail", "ends"), [(False, ("failed", "failed")), (True, ("success", "skipped"))])
def test_a_deferred_sensor_gives_up(
    world: World, without_end: dict[str, Run], what: str, soft_fail: bool, ends: tuple[str, str]
) -> None:
    assert wait_for_end(world, without_end[f"wait_for_{what}_{soft_fail}"]) == ends


@pytest.mark.parametrize(("state", "ends"), [("processed", "success"), ("declined", "failed")])
def test_a_withdrawal_is_waited_for_in_its_own_task_and_never_sent_again(world: World, state: str, ends: str) -> None:
    user = world.next_user()
    run = world.trigger("withdraw_and_wait", user)
    world.wait_parked(run, "deferred")
    (sent,) = world.withdrawals(user)
    world.sandbox.set_withdrawal(sent["id"], state)
    assert wait_for_end(world, run) == (ends, ends)

    world.clear(run)
    assert wait_for_end(world, run) == (ends, ends)
    assert world.task(run)["try_number"] == 2
    assert [each["id"] for each in world.withdrawals(user)] == [sent["id"]]
    if ends == "failed":
        assert "ended as declined: the exchange did not pay it out" in world.log(run, 2)


def test_a_wait_that_was_given_up_goes_on_with_the_same_withdrawal(world: World) -> None:
    user = world.next_user()
    run = world.trigger("withdraw_and_wait_briefly", user)
    assert wait_for_end(world, run) == ("failed", "failed")
    (sent,) = world.withdrawals(user)
    world.sandbox.set_withdrawal(sent["id"], "processed")
    world.clear(run)
    assert wait_for_end(world, run) == ("success", "success")
    assert [each["id"] for each in world.withdrawals(user)] == [sent["id"]]
