"""How the reconciliation ends, and what it leaves for those that come after it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_quoine.applications.application import new_reference
from airflow_provider_quoine.exchange.errors import QuoineError
from airflow_provider_quoine.operators.reconciliation import QuoineReconcilePaymentsOperator
from airflow_provider_quoine.payments import reconciliation
from airflow_provider_quoine.payments.reconciliation import Reconciliation
from tests.support.reconciled import LOOK_UP, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """An exchange and a ledger."""
    return World(tmp_path, monkeypatch)


def execute(**told: Any) -> dict[str, int]:
    """Run the operator; what it hands to other tasks comes into ``told``."""
    ti = SimpleNamespace(dag_id="dag", run_id="run", task_id="reconcile", map_index=-1, try_number=1)
    ti.xcom_push = lambda key, value: told["pushed"].update({key: value})
    context: Any = {"ti": ti}
    return QuoineReconcilePaymentsOperator(task_id="reconcile").execute(context)


def test_what_is_wrong_is_a_failure_that_is_not_retried(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    with world:
        world.sent("processed")
        gone = world.sent("pending", missing=True)
    pushed: dict[str, Any] = {}
    words = r"(?s)1 findings in 2 payments\..*Nothing was changed.*1 missing\."
    with world.sandbox, pytest.raises(AirflowFailException, match=words):
        execute(pushed=pushed)
    log = capfd.readouterr().out
    assert [finding["reference"] for finding in pushed["findings"]] == [gone.reference]
    assert gone.reference in log
    assert "the exchange does not know this id" in log


def test_applications_whose_time_is_over_are_removed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__QUOINE__APPLICATIONS_PATH", str(tmp_path / "applications"))
    old, new = (new_reference(datetime.now(UTC) - timedelta(days=days)) for days in (8, 6))
    (tmp_path / "applications").mkdir()
    for reference in (old, new):
        for kind in ("sealed", "received"):
            (tmp_path / "applications" / f"{reference}.{kind}").write_bytes(b"")
    with world:
        world.sent("processed")
    with world.sandbox:
        execute(pushed={})
    assert {path.name for path in (tmp_path / "applications").iterdir()} == {
        f"{old}.received",
        f"{new}.received",
        f"{new}.sealed",
    }


def test_a_store_of_applications_that_does_not_answer_stops_no_reconciliation(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__QUOINE__APPLICATIONS_PATH", "pigeon://loft")
    with world:
        world.sent("processed")
    with world.sandbox:
        assert execute(pushed={})["looked_up"] == 1


def test_an_exchange_that_does_not_answer_is_a_failure_that_is_retried(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_quoine.exchange.rest.retries.FIRST_BACKOFF", 0.0)
    with world:
        for _ in range(7):
            world.sent("processed")
    pushed: dict[str, Any] = {}
    with world.sandbox:
        world.sandbox.control.fault("drop_before", LOOK_UP, times=1000)
        with pytest.raises(QuoineError, match=r"(?s)7 not_looked_up.+ did not answer"):
            execute(pushed=pushed)
        assert len(pushed["findings"]) == 7
        world.sandbox.control.clear_faults()
        assert execute(pushed=pushed)["looked_up"] == 7
    assert pushed["findings"] == []


@pytest.mark.parametrize("payments", [1, 4, 30])
@pytest.mark.parametrize(
    ("fault", "more"), [("drop_before", {}), ("status", {"status": 503, "body": "down for maintenance"})]
)
def test_a_connection_that_has_never_answered_is_asked_again_later_and_not_for_each(
    world: World, monkeypatch: pytest.MonkeyPatch, payments: int, fault: str, more: dict[str, Any]
) -> None:
    monkeypatch.setattr("airflow_provider_quoine.exchange.rest.retries.FIRST_BACKOFF", 0.0)
    with world:
        for _ in range(payments):
            world.sent("processed")
    with world.sandbox:
        world.sandbox.control.fault(fault, LOOK_UP, times=1000, **more)
        with pytest.raises(QuoineError, match="did not answer"):
            execute(pushed={})
        assert len(world.lookups()) <= 20


def test_what_was_found_before_a_run_broke_off_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A time-out of the task, or a ledger that goes away, between two batches."""
    monkeypatch.setattr(reconciliation, "AT_ONCE", 1)
    with world:
        gone = world.sent("pending", missing=True)
        world.sent("pending")
    next_, batches = Reconciliation._next, count()

    def break_off(self: Reconciliation, due: Any) -> Any:
        if next(batches) == 1:
            raise TimeoutError("the task's execution_timeout")
        return next_(self, due)

    monkeypatch.setattr(Reconciliation, "_next", break_off)
    pushed: dict[str, Any] = {}
    with world.sandbox, pytest.raises(TimeoutError):
        execute(pushed=pushed)
    assert [finding["reference"] for finding in pushed["findings"]] == [gone.reference]
    assert gone.reference in capfd.readouterr().out
