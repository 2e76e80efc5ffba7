"""
Whatever Airflow forgets, renumbers or repeats, a payment is found by its reference and not paid again.

Runs are deleted, mapped lists shift, tasks are renamed, and the task state is wiped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_quoine.payments.schema import Step
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.one_task import ADDRESS, OneTask, paid, set_connection, withdraw

pytestmark = pytest.mark.usefixtures("airflow_database")

POST = "POST /btc_withdrawals/"
SAMPLE = "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"


def test_a_cleared_task_whose_state_was_wiped_finds_its_payment(
    exchange: SandboxControl, new_code: Callable[[], None]
) -> None:
    task = withdraw()
    assert task.step().state == "success"
    new_code()
    task.wipe()
    task.clear()
    assert task.step().state == "success"
    assert [task.xcom()["id"]] == paid(exchange)


@pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
def test_a_wipe_does_not_end_a_doubt_and_a_decision_outlives_it(
    exchange: SandboxControl, new_code: Callable[[], None], fault: str
) -> None:
    exchange.fault(fault, POST)
    task = withdraw()
    assert task.step().state == "failed"
    task.wipe()
    task.clear()
    assert "outcome is unknown" in task.step().words
    # The doubt's time is not wiped either.
    with pytest.raises(SystemExit, match="may still be on its way"):
        task.cli("absent")
    task.end_in_flight_time()
    task.cli(*(("exists", "--id", *paid(exchange)) if paid(exchange) else ("absent",)))
    new_code()
    task.wipe()
    task.clear()
    assert task.step().state == "success"
    assert [task.xcom()["id"]] == paid(exchange)


def test_a_deleted_run_whose_id_is_taken_again_finds_its_payment(
    exchange: SandboxControl, new_code: Callable[[], None]
) -> None:
    first = withdraw()
    assert first.step().state == "success"
    found = first.xcom()["id"]
    first.delete_run()
    new_code()
    again = withdraw(run_id=first.run_id, payment_reference=first.reference)
    assert again.step().state == "success"
    assert again.xcom()["id"] == found
    assert paid(exchange) == [found]


@pytest.mark.parametrize("way", ["", "_copied"])
def test_another_run_or_dag_with_the_same_reference_finds_the_payment(
    exchange: SandboxControl, new_code: Callable[[], None], way: str
) -> None:
    first = withdraw()
    assert first.step().state == "success"
    new_code()
    # Written in another way, it is the same order.
    copy = withdraw(way, payment_reference=f" {first.reference} ", amount="0.50", address=ADDRESS.upper())
    assert copy.step().state == "success"
    assert [copy.xcom()["id"]] == paid(exchange) == [first.xcom()["id"]]


@pytest.mark.parametrize("other", [{"amount": "0.6"}, {"address": SAMPLE}])
def test_another_payment_under_the_same_reference_is_refused_and_told_the_first(
    exchange: SandboxControl, new_code: Callable[[], None], other: dict[str, str]
) -> None:
    first = withdraw()
    assert first.step().state == "success"
    new_code()
    end = withdraw(payment_reference=first.reference, **other).step()
    assert (end.state, len(paid(exchange))) == ("failed", 1)
    assert f"The payment reference '{first.reference}' stands for a payment with" in end.words


@pytest.mark.parametrize("before", ["paid", "refused", "unknown"])
def test_a_task_that_another_payment_has_moved_to_finds_that_one(
    exchange: SandboxControl, new_code: Callable[[], None], monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """A mapped list that grew at its front: the task of the first payment now has the reference of the second."""
    second = withdraw(amount="0.25")
    assert second.step().state == "success"
    new_code()
    if before == "refused":
        exchange.fault("status", POST, status=422, body='{"errors": {"x": ["no"]}}', content_type="application/json")
    elif before == "unknown":
        exchange.fault("drop_before", POST)
    monkeypatch.setenv("AIRFLOW_VAR_REFERENCE", f"first-of-{second.reference}")
    monkeypatch.setenv("AIRFLOW_VAR_PAYOUT", "0.5")
    moved = OneTask("withdraw_by_variable", address=ADDRESS)
    moved.step()
    count = len(paid(exchange))
    new_code()
    monkeypatch.setenv("AIRFLOW_VAR_REFERENCE", second.reference)
    monkeypatch.setenv("AIRFLOW_VAR_PAYOUT", "0.25")
    moved.clear()
    assert moved.step().state == "success"
    assert moved.xcom()["id"] == second.xcom()["id"]
    assert len(paid(exchange)) == count


@pytest.mark.parametrize("reference", ["", "  ", "None", "-n", "x" * 201, "a\nb"])
def test_what_is_no_reference_is_refused(exchange: SandboxControl, payer: str, reference: str) -> None:
    end = withdraw(payment_reference=reference).step()
    assert (end.state, paid(exchange)) == ("failed", [])
    assert "is no payment reference" in end.words


def test_a_policy_that_changes_while_the_task_waits_for_its_slot_counts(
    exchange: SandboxControl, new_code: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_quoine.exchange.rest.client import QuoineClient

    take_slot = QuoineClient.take_slot

    def take_slot_late(client: QuoineClient) -> Any:
        set_connection(monkeypatch, withdrawal_addresses=SAMPLE)
        return take_slot(client)

    monkeypatch.setattr(QuoineClient, "take_slot", take_slot_late)
    task = withdraw()
    end = task.step()
    assert (end.state, paid(exchange), task.stands()) == ("failed", [], Step.PREPARED)
    assert "it is not on the list" in end.words


def test_a_key_that_changes_while_the_task_waits_for_its_slot_sends_nothing(
    exchange: SandboxControl, new_code: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_quoine.exchange.models import UserCredentials
    from airflow_provider_quoine.exchange.rest.client import QuoineClient

    take_slot = QuoineClient.take_slot

    def take_slot_late(client: QuoineClient) -> Any:
        monkeypatch.setenv("AIRFLOW_VAR_USER_KEY", UserCredentials(api_id="9", api_secret="another's").to_json())
        return take_slot(client)

    monkeypatch.setattr(QuoineClient, "take_slot", take_slot_late)
    end = withdraw().step()
    assert (end.state, paid(exchange)) == ("failed", [])
    assert "it now leads to account 9" in end.words


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"amount": "0.6"}, '"amount":"0.6"'),
        ({"address": SAMPLE}, SAMPLE),
        ({"id": -1}, '"id":-1'),
        ({"id": 0}, '"id":0'),
        ({"id": "x7"}, "x7"),
    ],
)
def test_an_answer_that_is_not_the_orders_is_in_doubt(
    exchange: SandboxControl, new_code: Callable[[], None], wrong: dict[str, Any], words: str
) -> None:
    import json

    told = json.dumps({"id": 5001, "amount": "0.5", "address": ADDRESS, "state": "pending"} | wrong)
    exchange.fault("status", POST, status=200, body=told, content_type="application/json")
    task = withdraw()
    end = task.step()
    assert (end.state, task.stands()) == ("failed", Step.UNKNOWN)
    assert words in end.words.replace(" ", "") or words in end.words


@pytest.mark.parametrize("written", ["{0}/.", "{0}/x/..", "{1}:0{2}"])
def test_a_base_url_written_in_another_way_finds_the_payment(
    exchange: SandboxControl, new_code: Callable[[], None], monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    first = withdraw()
    assert first.step().state == "success"
    new_code()
    host = json.loads(os.environ["AIRFLOW_CONN_QUOINE_DEFAULT"])["host"]
    before, _, port = host.rpartition(":")
    set_connection(monkeypatch, host=written.format(host, before, port))
    withdraw(payment_reference=first.reference).step()
    assert len(paid(exchange)) == 1
