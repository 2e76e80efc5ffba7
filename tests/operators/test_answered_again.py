"""A question that is answered once more: no code stays, and the wait goes on."""

from __future__ import annotations

import io
import secrets

import pytest
from airflow.sdk.log import redact  # type: ignore[attr-defined]  # Airflow's, which exports mask_secret only

from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.leaks import cells, find
from tests.support.one_task import ADDRESS, OneTask, database

pytestmark = pytest.mark.usefixtures("airflow_database")


@pytest.fixture
def second() -> str:
    """A code that no other test has."""
    return f"{secrets.randbelow(10**12):012}"


@pytest.fixture
def waiting(exchange: SandboxControl, payer: str) -> OneTask:
    """A withdrawal that was sent, whose task waits for the final state."""
    exchange.set_pace(None)
    task = OneTask("authorize_waiting", user_id=payer, amount="0.5", address=ADDRESS)
    task.step()
    assert task.answer("Send", exchange.latest_code(payer)).state == "deferred"
    return task


def test_a_second_answer_does_not_end_the_wait_and_its_code_is_nowhere(
    waiting: OneTask, second: str, exchange: SandboxControl, airflow_log: io.StringIO
) -> None:
    waiting.type_in("Send", second)
    end = waiting.step()
    assert end.state == "deferred"
    assert second not in end.words
    assert second not in airflow_log.getvalue()
    assert find({"code": second}, cells(database())) == set()
    assert len(exchange.state()["withdrawals"]) == 1
    # Whatever is logged after that, the code is not in it.
    assert redact(f"the code was {second}") == "the code was ***"


@pytest.mark.parametrize("reached", ["success", "awaiting_input"])
def test_a_code_that_no_task_takes_is_in_no_table_once_a_command_has_run(
    exchange: SandboxControl, payer: str, second: str, reached: str
) -> None:
    """It is typed after the end, or before the task is cleared: Airflow copies it into histories."""
    task = OneTask("authorize", user_id=payer, amount="0.5", address=ADDRESS)
    task.step()
    if reached == "success":
        assert task.answer("Send", exchange.latest_code(payer)).state == "success"
        task.type_in("Send", second)
    else:
        task.type_in("Send", second)
        task.clear()
        assert task.step().state == "awaiting_input"
    task.cli("show")
    assert find({"code": second}, cells(database())) == set()
