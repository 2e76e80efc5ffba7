"""The DAG that compares the payments with the exchange every morning."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pendulum
import pytest

from airflow_provider_quoine.assets import FINDINGS
from tests.support.airflow_fixtures import FOLDERS
from tests.support.asset_events import asset_events
from tests.support.reconciled import World

pytestmark = pytest.mark.usefixtures("airflow_database")

DAG_ID = "quoine_reconcile_payments"


@pytest.fixture
def dag() -> Any:
    """The DAG, read as Airflow reads it."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call]  # Airflow's
    bag = BundleDagBag(str(FOLDERS["examples"]), bundle_path=FOLDERS["examples"], bundle_name="examples")
    sync_bag_to_db(bag, "examples", None)
    return bag.dags[DAG_ID]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """An exchange and a ledger."""
    return World(tmp_path, monkeypatch)


def run(dag: Any) -> tuple[str, dict[str, str], Any]:
    """Run the DAG in this process: the run's state, its tasks' states, and the run."""
    done = dag.test()
    return str(done.state), {one.task_id: str(one.state) for one in done.get_task_instances()}, done


def test_it_runs_every_morning_at_six_in_tokyo(dag: Any) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    info = DagSerialization.from_dict(DagSerialization.to_dict(dag)).next_dagrun_info(last_automated_run_info=None)
    assert info is not None
    local = pendulum.instance(info.run_after).in_timezone("Asia/Tokyo")
    assert (local.hour, local.minute) == (6, 0)
    assert (dag.catchup, dag.max_active_runs) == (False, 1)


def test_nothing_wrong_is_green(dag: Any, world: World) -> None:
    with world:
        world.sent("processed")
        world.sent("pending", seen=("pending",))
    with world.sandbox:
        state, tasks, done = run(dag)
    assert (state, set(tasks.values())) == ("success", {"success"})
    (reconcile,) = (one for one in done.get_task_instances() if one.task_id == "reconcile")
    counts = reconcile.xcom_pull(task_ids="reconcile")
    assert (counts["payments"], counts["looked_up"], counts["findings"]) == (2, 2, 0)
    assert asset_events(FINDINGS, run_id=done.run_id) == []


def test_findings_are_red_and_events(dag: Any, world: World) -> None:
    with world:
        world.sent("processed")
        gone = world.sent("pending", missing=True)
        stuck = world.sent("pending", ago=timedelta(days=2))
    with world.sandbox:
        state, tasks, done = run(dag)
    assert (state, tasks) == ("failed", {"reconcile": "failed", "emit_findings": "success"})
    told = {extra["reference"]: extra for extra in asset_events(FINDINGS, run_id=done.run_id)}
    assert {reference: extra["kind"] for reference, extra in told.items()} == {
        gone.reference: "missing",
        stuck.reference: "stuck",
    }
    assert told[stuck.reference] == {
        "event_id": f"stuck/withdrawal/{stuck.exchange}/{stuck.reference}/5003/pending",
        "kind": "stuck",
        "payment": "withdrawal",
        "reference": stuck.reference,
        "exchange": stuck.exchange,
        "id": "5003",
        "step": "sent",
        "state": "pending",
    }
