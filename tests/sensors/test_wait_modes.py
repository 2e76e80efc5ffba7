"""Poke, reschedule and deferrable waits end alike, whatever the exchange does meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from threading import Timer
from typing import Any

import pytest

from airflow_provider_quoine.exchange.models import Document, OnboardingUser, UserCredentials, WithdrawalOrder
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.airflow_fixtures import stored_variable

pytestmark = pytest.mark.usefixtures("airflow_database")

RunDag = Callable[..., tuple[str, dict[str, str], dict[str, Any]]]

PASSWORD = "Passw0rd-of-the-test"
MODES = pytest.mark.parametrize("mode", ["poke", "reschedule", "deferrable"])
#: dag.test() runs triggers without their time-out: a deferred one is tested on a whole Airflow (tests/system).
MODES_THAT_TIME_OUT = pytest.mark.parametrize("mode", ["poke", "reschedule"])


@pytest.fixture
def user_id(exchange: SandboxControl, monkeypatch: pytest.MonkeyPatch) -> str:
    """Create a user whose life stands still."""
    exchange.set_pace(None)
    monkeypatch.setenv("AIRFLOW_VAR_USER_PASSWORD", PASSWORD)
    person = OnboardingUser(
        first_name="Taro", last_name="Yamada", phone="09017901357", email="taro@example.com", country="JP"
    )
    document = Document(name="document.pdf", content=b"%PDF-")
    with QuoineHook().get_conn() as client:
        return client.create_onboarding_user(
            user=person, password=PASSWORD, id_document=document, proof_address=document, bank_statement=document
        )


@pytest.fixture
def withdrawal_id(exchange: SandboxControl, user_id: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Create a withdrawal whose life stands still."""
    exchange.approve(user_id)
    with QuoineHook().get_conn() as client:
        key = client.get_onboarding_status(user_id=user_id, password=PASSWORD).credentials
    assert key is not None
    monkeypatch.setenv("AIRFLOW_VAR_USER_KEY", key.to_json())
    with QuoineHook(credentials_variable="user_key").get_conn() as client:
        client.request_auth_code(user_id=user_id)
        code = exchange.latest_code(user_id)
        address = "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"
        order = WithdrawalOrder.parse(amount="0.5", address=address)
        return client.create_withdrawal(order=order, auth_code=code).id


@MODES
@pytest.mark.parametrize(
    ("end", "soft_fail", "state"),
    [
        ("processed", False, "success"),
        ("declined", False, "failed"),
        ("declined", True, "skipped"),
    ],
)
def test_withdrawal(
    run_dag: RunDag, exchange: SandboxControl, withdrawal_id: str, mode: str, end: str, soft_fail: bool, state: str
) -> None:
    # It ends while the sensor waits, not before: the deferred wait has to notice it by itself.
    with_delay = Timer(1, exchange.set_withdrawal, (withdrawal_id, end))
    with_delay.start()
    _, tasks, results = run_dag(f"wait_for_withdrawal_{mode}_{soft_fail}", {"id": withdrawal_id})
    with_delay.join()
    assert tasks == {"wait": state}
    if state == "success":
        assert results["wait"]["amount"] == "0.5"
        assert results["wait"]["state"] == "processed"


@MODES_THAT_TIME_OUT
@pytest.mark.parametrize(
    ("end", "soft_fail", "state"), [("a state that nobody knows", False, "failed"), ("pending", True, "skipped")]
)
def test_withdrawal_without_an_end_times_out(
    run_dag: RunDag, exchange: SandboxControl, withdrawal_id: str, mode: str, end: str, soft_fail: bool, state: str
) -> None:
    exchange.set_withdrawal(withdrawal_id, end)
    _, tasks, _ = run_dag(f"wait_for_withdrawal_briefly_{mode}_{soft_fail}", {"id": withdrawal_id})
    assert tasks == {"wait": state}


@MODES
@pytest.mark.parametrize("soft_fail", [False, True])
def test_refusal_fails_at_once_even_softly(
    run_dag: RunDag, exchange: SandboxControl, withdrawal_id: str, mode: str, soft_fail: bool
) -> None:
    _, tasks, _ = run_dag(f"wait_for_withdrawal_{mode}_{soft_fail}", {"id": "999"})
    assert tasks == {"wait": "failed"}


@MODES
def test_fault_that_passes_does_not_end_the_wait(
    run_dag: RunDag, exchange: SandboxControl, withdrawal_id: str, mode: str
) -> None:
    endpoint = "GET /btc_withdrawals/:id"
    for kind, more in (("drop_before", {}), ("garbage", {}), ("status", {"status": 503, "body": "busy"})):
        exchange.fault(kind, endpoint, **more)
    exchange.set_withdrawal(withdrawal_id, "processed")
    _, tasks, _ = run_dag(f"wait_for_withdrawal_{mode}_False", {"id": withdrawal_id})
    assert tasks == {"wait": "success"}


@MODES
@pytest.mark.parametrize(
    ("end", "soft_fail", "state"),
    [("APPROVED", False, "success"), ("DECLINED", False, "failed"), ("DECLINED", True, "skipped")],
)
def test_user(
    run_dag: RunDag, exchange: SandboxControl, user_id: str, mode: str, end: str, soft_fail: bool, state: str
) -> None:
    with_delay = Timer(1, exchange.set_user, (user_id, end))
    with_delay.start()
    _, tasks, results = run_dag(f"wait_for_user_{mode}_{soft_fail}", {"id": user_id})
    with_delay.join()
    assert tasks == {"wait": state}
    if state == "success":
        assert results["wait"] == "APPROVED"
        assert UserCredentials.from_json(stored_variable(f"kept_secret_{mode}")).api_id == user_id
