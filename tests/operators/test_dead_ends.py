"""No payment is stuck, and no advice leads to a second one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.one_task import ADDRESS, ledger_of_tests, paid, payments_cli, set_connection, undo_edits, withdraw

pytestmark = pytest.mark.usefixtures("airflow_database")

POST = "POST /btc_withdrawals/"


def test_a_wrong_exists_can_be_taken_back(exchange: SandboxControl, new_code: Callable[[], None]) -> None:
    """The person had the wrong line in view; nothing exists, and the runbook knows no way back."""
    exchange.fault("drop_before", POST)
    task = withdraw()
    assert task.step().state == "failed"
    task.end_in_flight_time()
    task.cli("exists", "--id", "4999")
    task.cli("absent")
    new_code()
    task.clear()
    assert task.step().state == "success"
    assert len(paid(exchange)) == 1


def test_one_withdrawal_does_not_settle_two_payments(exchange: SandboxControl, new_code: Callable[[], None]) -> None:
    """Daily payouts have the same amount and address, so the comparison with the exchange finds no difference."""
    yesterday = withdraw(payment_reference="payout-2026-11-25")
    assert yesterday.step().state == "success"
    exchange.fault("drop_before", POST)
    new_code()
    today = withdraw(payment_reference="payout-2026-11-26")
    assert today.step().state == "failed"
    with pytest.raises(SystemExit, match=r"payout-2026-11-25"):
        today.cli(
            "exists", "--id", paid(exchange)[0], "--conn-id", "quoine_default", "--credentials-variable", "user_key"
        )


def test_a_replaced_key_does_not_hide_a_doubt(
    exchange: SandboxControl, new_code: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice "another reference" would pay a second time what may exist."""
    exchange.fault("drop_after", POST)
    task = withdraw()
    assert task.step().state == "failed"
    monkeypatch.setenv("AIRFLOW_VAR_USER_KEY", '{"api_id": "999", "api_secret": "a-new-key-of-the-same-user"}')
    task.clear()
    words = task.step().words
    assert "may exist at the exchange" in words
    assert "Give another payment another reference" not in words


def test_the_advice_after_a_declined_withdrawal_leads_to_a_payment(
    exchange: SandboxControl, new_code: Callable[[], None]
) -> None:
    exchange.set_next_outcome("withdrawal", "declined")
    first = withdraw("_waiting", payment_reference="payout-2026-11-26")
    first.step()
    end = first.trigger()
    assert end.state == "failed"
    assert "start a new run with another payment reference" in end.words
    new_code()
    second = withdraw("_waiting", payment_reference="payout-2026-11-26-again")
    assert second.step().state != "failed"
    assert len(paid(exchange)) == 2


def test_a_held_payment_with_a_mistyped_amount_is_not_lost_for_ever(
    exchange: SandboxControl, new_code: Callable[[], None]
) -> None:
    """Nothing was ever sent under the reference."""
    key = ("--conn-id", "quoine_default", "--credentials-variable", "user_key")
    payments_cli("hold", "invoice-9", "--why", "x", "--amount", "5.0", "--address", ADDRESS, *key)
    payments_cli("release", "invoice-9", "--why", "mistyped")
    assert withdraw(payment_reference="invoice-9").step().state == "success"


def test_a_password_in_the_base_url_is_not_kept_in_clear(
    exchange: SandboxControl, new_code: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = QuoineHook().settings.base_url.replace("://", "://basic:s3cret-pw@")
    set_connection(monkeypatch, host=host)
    task = withdraw()
    end = task.step()
    assert "s3cret-pw" not in end.words
    found = task.payment()
    assert found is None or "s3cret-pw" not in found.order.exchange
    # Other tests of this process have let time pass.
    undo_edits()
    assert ledger_of_tests().faults() == []


@pytest.mark.parametrize("spelling", ["{}/.", "{}/x/..", "http://127.0.0.1:0{port}"])
def test_an_exchange_that_is_spelled_otherwise_pays_nothing_again(
    exchange: SandboxControl, new_code: Callable[[], None], monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    first = withdraw()
    assert first.step().state == "success"
    url = QuoineHook().settings.base_url
    new_code()
    set_connection(monkeypatch, host=spelling.format(url, port=url.rpartition(":")[2]))
    withdraw(payment_reference=first.reference).step()
    assert len(paid(exchange)) == 1


@pytest.mark.parametrize("other", ["inv-1\u200b", "inv-1\ufeff", "inv\u00ad-1", "inv\u20111", "inv-1\u202e"])
def test_a_reference_that_looks_the_same_pays_nothing_again(
    exchange: SandboxControl, new_code: Callable[[], None], other: str
) -> None:
    assert withdraw(payment_reference="inv-1").step().state == "success"
    new_code()
    withdraw(payment_reference=other).step()
    assert len(paid(exchange)) == 1


def test_a_reference_in_another_normal_form_is_the_same(exchange: SandboxControl, new_code: Callable[[], None]) -> None:
    assert withdraw(payment_reference="Rechnung-M\u00fcller-7").step().state == "success"
    new_code()
    withdraw(payment_reference="Rechnung-Mu\u0308ller-7").step()
    assert len(paid(exchange)) == 1
