"""What Airflow's page shows of a task that waits for a withdrawal."""

from __future__ import annotations

import pytest

from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.one_task import ADDRESS, OneTask, paid, set_connection

pytestmark = pytest.mark.usefixtures("airflow_database")


def test_the_link_to_the_withdrawal_is_there_while_the_sensor_waits(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange.set_pace(None)
    set_connection(monkeypatch, withdrawal_link="https://exchange.example/withdrawals/{id}")
    task = OneTask("authorize", user_id=payer, amount="0.5", address=ADDRESS)
    task.step()
    task.answer("Send", exchange.latest_code(payer))
    (withdrawal,) = paid(exchange)
    waiting = OneTask("wait_for_withdrawal", id=withdrawal)
    assert waiting.step().state == "deferred"
    page = {"Withdrawal at the exchange": f"https://exchange.example/withdrawals/{withdrawal}"}
    assert waiting.links() == task.links() == page
