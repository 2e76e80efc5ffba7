"""The runbook, step by step: from a task that failed with an unknown outcome to a finished run, both ways."""

from __future__ import annotations

import getpass
import re
import shlex
import subprocess

import pytest

from tests.system.money.environment import POST, Environment, Run, User

pytestmark = pytest.mark.timeout(1500)

#: The commands in the task's error.
ADVICE = re.compile(
    r"If it exists: (?P<exists>airflow .+?)\. If it does not: (?P<absent>airflow .+?)\. Then clear this task\."
)


def stopped_run(environment: Environment, fault: str) -> tuple[User, Run, dict[str, list[str]]]:
    """Run a withdrawal whose outcome is unknown; return the commands that its error names."""
    user = environment.next_user()
    environment.sandbox.fault(fault, POST, request_contains=user.amount)
    run = environment.trigger("withdraw_0", user, conn="money_brief")
    environment.wait(run, "failed")
    said = ADVICE.search(environment.log(run, 1))
    assert said is not None
    return user, run, {name: shlex.split(command) for name, command in said.groupdict().items()}


@pytest.fixture(scope="module", autouse=True)
def in_doubt(environment: Environment) -> tuple[User, Run]:
    """Begin with a withdrawal whose outcome is unknown, so that its doubt ends while the first tests are run."""
    return stopped_run(environment, "drop_before")[:2]


def refusal(environment: Environment, command: list[str]) -> str:
    """Run a command that must fail; return its error."""
    with pytest.raises(subprocess.CalledProcessError) as failed:
        environment.commands.run(command[1:])
    return str(failed.value.stderr)


def filled_in(command: list[str], identifier: str = "") -> list[str]:
    """Replace the words that a person fills in."""
    return [{"ID": identifier, "WHY": "looked it up"}.get(word, word) for word in command]


def test_a_withdrawal_that_exists_is_gone_on_with(environment: Environment) -> None:
    user, run, commands = stopped_run(environment, "drop_after")
    (found,) = environment.withdrawals(user)
    key = ("--conn-id", "money", "--credentials-variable", f"money_key_{user.user_id}")
    written = environment.airflow.run(*filled_in(commands["exists"], str(found["id"])), *key)
    assert "Amount and address are the same at the exchange" in written
    assert "Clear the task" in written

    shown = environment.commands.run(("quoine", "payments", "show", user.reference))
    for told in ("sent", str(found["id"]), "exists", f"by {getpass.getuser()}", "looked it up"):
        assert told in shown
    payment = environment.payment(user)
    assert (payment.step, payment.exchange_id) == ("sent", str(found["id"]))

    environment.clear(run)
    assert environment.wait_for_end(run) == "success"
    assert environment.airflow.api.xcom(run.dag_id, run.run_id, "withdraw")["id"] == str(found["id"])
    assert environment.withdrawals(user) == [found]


def test_a_withdrawal_that_does_not_exist_is_sent(environment: Environment) -> None:
    user, run, commands = stopped_run(environment, "drop_before")
    absent = filled_in(commands["absent"])
    assert environment.withdrawals(user) == []
    # Too early: the request may still be in flight.
    assert re.search(r"may still be on its way. Look at the exchange again in \d+ s", refusal(environment, absent))
    assert environment.payment(user).step == "unknown"

    environment.wait_until_doubt_ends(user)
    assert "Clear the task" in environment.commands.run(absent[1:])
    assert environment.payment(user).step == "prepared"

    environment.clear(run)
    assert environment.wait_for_end(run) == "success"
    (sent,) = environment.withdrawals(user)
    assert environment.airflow.api.xcom(run.dag_id, run.run_id, "withdraw")["id"] == str(sent["id"])
    # Now it cannot be recorded as never sent.
    assert "no doubt to settle" in refusal(environment, absent)


def test_a_withdrawal_that_is_paid_by_hand_is_held_first(environment: Environment, in_doubt: tuple[User, Run]) -> None:
    user, run = in_doubt
    environment.wait_until_doubt_ends(user)
    environment.payments(("hold", user))
    environment.clear(run)
    environment.wait(run, "failed")
    assert "A person holds the payment" in environment.log(run, 2)
    environment.payments(("exists", user, "--id", "77"))
    assert environment.withdrawals(user) == []
