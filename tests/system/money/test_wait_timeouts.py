"""Waits in a real triggerer: they time out, end as in poke mode, and never send again."""

from __future__ import annotations

import pytest

from tests.system.money.environment import Environment, Run

pytestmark = pytest.mark.timeout(1500)


def wait_for_end(environment: Environment, run: Run) -> tuple[str, str]:
    """Return the final states of a run and of its one task."""
    return environment.wait_for_end(run), environment.task(run)["state"]


@pytest.fixture(scope="module")
def without_end(environment: Environment) -> dict[str, Run]:
    """Start all waits at once, for a user and a withdrawal that reach no final state."""
    user = environment.next_user()
    environment.sandbox.set_user(user.user_id, "DOCUMENTS_SUBMITTED")
    payer = environment.next_user()
    withdrawal_id = environment.pay_by_hand(payer)
    return {
        dag_id: environment.trigger(dag_id, who, **conf)
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
    environment: Environment, without_end: dict[str, Run], what: str, soft_fail: bool, ends: tuple[str, str]
) -> None:
    assert wait_for_end(environment, without_end[f"wait_for_{what}_{soft_fail}"]) == ends


@pytest.mark.parametrize(("state", "ends"), [("processed", "success"), ("declined", "failed")])
def test_a_withdrawal_is_waited_for_in_its_own_task_and_never_sent_again(
    environment: Environment, state: str, ends: str
) -> None:
    user = environment.next_user()
    run = environment.trigger("withdraw_and_wait", user)
    environment.wait_until_suspended(run, "deferred")
    (sent,) = environment.withdrawals(user)
    environment.sandbox.set_withdrawal(sent["id"], state)
    assert wait_for_end(environment, run) == (ends, ends)

    environment.clear(run)
    assert wait_for_end(environment, run) == (ends, ends)
    assert environment.task(run)["try_number"] == 2
    assert [each["id"] for each in environment.withdrawals(user)] == [sent["id"]]
    if ends == "failed":
        assert "ended as declined: the exchange did not pay it out" in environment.log(run, 2)


def test_a_wait_that_was_given_up_goes_on_with_the_same_withdrawal(environment: Environment) -> None:
    user = environment.next_user()
    run = environment.trigger("withdraw_and_wait_briefly", user)
    assert wait_for_end(environment, run) == ("failed", "failed")
    (sent,) = environment.withdrawals(user)
    environment.sandbox.set_withdrawal(sent["id"], "processed")
    environment.clear(run)
    assert wait_for_end(environment, run) == ("success", "success")
    assert [each["id"] for each in environment.withdrawals(user)] == [sent["id"]]
