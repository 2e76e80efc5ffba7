"""The asset events of tasks that see a withdrawal's or a user's end."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset, AssetAlias
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_quoine import assets
from airflow_provider_quoine.assets import FINDINGS, USERS, WITHDRAWALS, add_withdrawal_event, take_each_once
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.operators.reconciliation import QuoineEmitFindingsOperator
from airflow_provider_quoine.payments.database import open_file
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.reconciliation import FindingKind, Reconciliation
from airflow_provider_quoine.payments.refusals import LedgerUnusableError
from airflow_provider_quoine.payments.withdrawals import exchange_of
from airflow_provider_quoine.sandbox.control import SandboxControl
from airflow_provider_quoine.sensors.withdrawals import QuoineWithdrawalSensor
from tests.payments.memory import Memory
from tests.support.asset_events import asset_events
from tests.support.one_task import OneTask, parsed
from tests.support.reconciled import World
from tests.support.state_stores import consumer_context, state_stores

pytestmark = pytest.mark.usefixtures("airflow_database")

MAPPED = """
from airflow.sdk import DAG, Asset
from airflow_provider_quoine.sensors.withdrawals import QuoineWithdrawalSensor

with DAG("mapped", schedule=None):
    QuoineWithdrawalSensor.partial(task_id="wait", credentials_variable="user_key", poke_interval=0.1).expand_kwargs(
        [{{"withdrawal_id": "{paid}", "payment_reference": "{reference}"}}]
    )
with DAG("consumer", schedule=[Asset(name="quoine_withdrawals", uri="quoine://withdrawals")]):
    pass
"""
ADDRESS = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"


GROUPED = """
from airflow.sdk import DAG, TaskGroup
from airflow_provider_quoine.operators.reconciliation import QuoineEmitFindingsOperator, QuoineReconcilePaymentsOperator

with DAG("grouped", schedule=None):
    with TaskGroup("morning"):
        reconcile = QuoineReconcilePaymentsOperator(task_id="reconcile")
        reconcile >> QuoineEmitFindingsOperator(task_id="emit_findings").as_teardown()
        reconcile >> QuoineEmitFindingsOperator(task_id="astray", reconcile_task_id="reconcile").as_teardown()
"""


class Outlet:
    """What a task adds to its outlets."""

    def __init__(self) -> None:
        self.added: list[dict[str, Any]] = []
        outlet = SimpleNamespace(add=lambda _, extra: self.added.append(extra))
        dag = SimpleNamespace(task_ids=["reconcile"])
        task = SimpleNamespace(outlets=[AssetAlias(f"{each.name}/a_dag") for each in (FINDINGS, WITHDRAWALS)])
        self.context: Any = {"outlet_events": defaultdict(lambda: outlet), "dag": dag, "task": task}


@pytest.fixture
def code(exchange: SandboxControl, payer: str) -> Iterator[None]:
    """Put a code into the Variable that the tasks read."""
    from airflow.models.variable import Variable

    with QuoineHook(credentials_variable="user_key").get_conn() as client:
        client.request_auth_code(user_id=payer)
    Variable.set("user_code", exchange.latest_code(payer))
    yield
    Variable.delete("user_code")


def withdraw(way: str, **params: str) -> OneTask:
    """Withdraw, and wait where the way waits."""
    task = OneTask(f"withdraw{way}", amount="0.5", address=ADDRESS, **params)
    if task.step().state == "deferred":
        task.trigger()
    return task


def test_a_withdrawal_that_is_paid_out_is_an_event(code: None) -> None:
    task = withdraw("_waiting")
    found, base_url = task.xcom()["id"], exchange_of(QuoineHook())
    expected = {
        "event_id": f"withdrawal/{base_url}/{found}/processed",
        "exchange": base_url,
        "id": found,
        "state": "processed",
        "reference": task.reference,
        "connection": "quoine_default",
    }
    assert asset_events(WITHDRAWALS, run_id=task.run_id) == [expected]
    # A task that is cleared sees it again, and says the same.
    task.clear()
    assert task.step().state == "success"
    assert asset_events(WITHDRAWALS, run_id=task.run_id) == [expected, expected]


def test_the_event_names_the_reference_as_the_ledger_does(code: None) -> None:
    """Typed with a Japanese keyboard. The ledger keeps Unicode's normal form."""
    full_width = "".join(chr(ord(letter) + 0xFEE0) for letter in "invoice-77")
    (event,) = asset_events(WITHDRAWALS, run_id=withdraw("_waiting", payment_reference=full_width).run_id)
    assert event["reference"] == "invoice-77"


def test_withdrawals_of_two_exchanges_are_two_events() -> None:
    """Each exchange counts its withdrawals from 1. A consumer that remembers the ids deals with one of them."""
    events, withdrawal = Outlet(), {"id": "5001", "state": "processed"}
    for exchange in ("https://tokyo.example", "https://singapore.example"):
        add_withdrawal_event(events.context, withdrawal, exchange=exchange, reference="", connection="quoine_default")
    assert len({extra["event_id"] for extra in events.added}) == 2


def test_a_finding_that_comes_again_in_another_way_is_another_event() -> None:
    """Backwards to pending in May, mended; reverted in June. A consumer that remembers the ids says it in June too."""
    events = Outlet()
    common = {"kind": "backwards", "payment": "withdrawal", "reference": "i-1", "exchange": "https://x", "id": "5001"}
    for number, state in enumerate(("pending", "reverted")):
        found = [common | {"step": "sent", "state": state}]
        events.context["ti"] = SimpleNamespace(xcom_pull=lambda found=found, **_: found)
        QuoineEmitFindingsOperator(task_id=f"emit_{number}").execute(events.context)
    assert len({extra["event_id"] for extra in events.added}) == 2


def test_findings_of_a_reconciliation_in_a_group_are_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db

    parsed()
    (tmp_path / "world").mkdir()
    (tmp_path / "dags").mkdir()
    world = World(tmp_path / "world", monkeypatch)
    (tmp_path / "dags" / "grouped.py").write_text(GROUPED, encoding="utf-8")
    bag = BundleDagBag(str(tmp_path / "dags"), bundle_path=tmp_path / "dags", bundle_name="tests")
    assert not bag.import_errors
    sync_bag_to_db(bag, "tests", None)
    with world:
        gone = world.sent("pending", missing=True)
    with world.sandbox:
        done = bag.dags["grouped"].test()
    states = {one.task_id: str(one.state) for one in done.get_task_instances()}
    assert states == {"morning.reconcile": "failed", "morning.emit_findings": "success", "morning.astray": "failed"}
    (event,) = asset_events(FINDINGS, run_id=done.run_id)
    assert event["reference"] == gone.reference


def ledger() -> Ledger:
    """The ledger of the tasks."""
    return Ledger(open_file(Path(os.environ["AIRFLOW_HOME"]) / "quoine" / "ledger.db"), pin=Memory())


def test_a_withdrawal_that_was_told_as_paid_and_then_went_back_is_found(exchange: SandboxControl, code: None) -> None:
    """The task saw it processed, an event said so, and the exchange gave the money back before 06:00."""
    task = withdraw("_waiting")
    (event,) = asset_events(WITHDRAWALS, run_id=task.run_id)
    assert event["state"] == "processed"
    exchange.set_withdrawal(event["id"], "reverted")
    report = Reconciliation(
        ledger=ledger(), final_for=timedelta(days=7), stuck_after=timedelta(days=1), actor="task"
    ).run()
    about = [finding.kind for finding in report.findings if finding.payment.order.reference == task.reference]
    assert about == [FindingKind.BACKWARDS]


def test_a_ledger_that_cannot_be_used_keeps_no_task_from_the_end_that_it_has_seen(
    code: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LedgerUnusableError("gone")

    monkeypatch.setattr(Ledger, "see", fail)
    task = withdraw("_waiting")
    assert task.state == "success"
    assert len(asset_events(WITHDRAWALS, run_id=task.run_id)) == 1


def test_an_authors_outlets_have_their_events_too(code: None) -> None:
    task = withdraw("_with_outlet")
    assert len(asset_events(WITHDRAWALS, run_id=task.run_id)) == 1
    assert len(asset_events(Asset("an_outlet_of_the_author"), run_id=task.run_id)) == 1


def test_airflow_has_the_asset_before_its_first_event() -> None:
    """Of two tasks that bring an asset its first event at the same time, Airflow would fail one."""
    waiting = QuoineWithdrawalSensor(task_id="waits", withdrawal_id="5001")
    assert WITHDRAWALS in waiting.inlets


def test_one_list_of_outlets_for_several_tasks_stays_as_it_is() -> None:
    from tests.support.dags.one_task import OUTLETS

    assert [Asset("an_outlet_of_the_author")] == OUTLETS


@pytest.mark.parametrize("way", ["", "_dry"])
def test_a_task_that_sees_no_end_makes_no_event(code: None, way: str) -> None:
    assert asset_events(WITHDRAWALS, run_id=withdraw(way).run_id) == []


def test_a_task_that_fails_makes_no_event(exchange: SandboxControl, code: None) -> None:
    exchange.set_next_outcome("withdrawal", "declined")
    task = withdraw("_waiting")
    assert task.state == "failed"
    assert asset_events(WITHDRAWALS, run_id=task.run_id) == []


@pytest.mark.parametrize(("status", "events"), [("APPROVED", 1), ("DECLINED", 0)])
def test_a_user_who_is_approved_is_an_event(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch, status: str, events: int
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_USER_PASSWORD", "Passw0rd-of-the-test")
    exchange.set_user(payer, status)
    task = OneTask("wait_for_user_None_False", user_id=payer)
    assert task.step().state == "success"
    told = asset_events(USERS, run_id=task.run_id)
    base_url = exchange_of(QuoineHook())
    expected = {
        "event_id": f"user/{base_url}/{payer}/APPROVED",
        "exchange": base_url,
        "id": payer,
        "state": "APPROVED",
        "connection": "quoine_default",
    }
    assert told == events * [expected]


def test_each_of_a_mapped_task_has_its_event_and_starts_who_waits_for_it(
    exchange: SandboxControl, code: None, tmp_path: Path
) -> None:
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
    from airflow.models.asset import AssetDagRunQueue
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session

    task = withdraw("")
    paid = task.xcom()["id"]
    (tmp_path / "mapped.py").write_text(MAPPED.format(paid=paid, reference=task.reference), encoding="utf-8")
    bag = BundleDagBag(str(tmp_path), bundle_path=tmp_path, bundle_name="tests")
    assert not bag.import_errors
    sync_bag_to_db(bag, "tests", None)
    with create_session() as session:
        session.get_one(DagModel, "consumer").is_paused = False
    done = bag.dags["mapped"].test()
    assert str(done.state) == "success"
    told = asset_events(WITHDRAWALS, run_id=done.run_id)
    assert [(extra["id"], extra["reference"]) for extra in told] == [(paid, task.reference)]
    (payment,) = [payment for payment in ledger().all() if payment.order.reference == task.reference]
    assert payment.state == "processed"
    with create_session() as session:
        assert session.query(AssetDagRunQueue).filter_by(target_dag_id="consumer").count() == 1
        session.query(AssetDagRunQueue).delete()
        session.get_one(DagModel, "consumer").is_paused = True


def test_each_event_is_taken_in_one_run_only_and_by_that_run_again() -> None:
    rise, fall = Asset("taken_rise"), Asset("taken_fall")
    one, two, three = ({"event_id": str(number), "price": str(600 + number)} for number in (1, 2, 3))
    with state_stores(rise, fall) as stores:

        def take(run: str, came: dict[Asset, list[dict[str, Any]]]) -> list[dict[str, Any]]:
            return take_each_once(consumer_context(came, stores=stores, run=run))

        assert take("first", {rise: [one, {**one, "price": "0"}], fall: [two]}) == [one, two]
        assert take("first", {rise: [one], fall: [two]}) == [one, two]
        assert take("second", {rise: [one, three]}) == [three]
        with pytest.raises(AirflowSkipException, match="have taken all"):
            take("third", {rise: [one, three]})
        assert take("by hand", {}) == []


def test_a_task_keeps_the_ids_of_its_last_events_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "MOST_TAKEN", 3)
    rise = Asset("taken_few")
    with state_stores(rise) as stores:
        for number in range(5):
            came = {rise: [{"event_id": str(number)}]}
            assert take_each_once(consumer_context(came, stores=stores, run=str(number)))
        assert stores.get("quoine/taken/consumer/take") == {"2": "2", "3": "3", "4": "4"}
