"""The DAG that captures every trading day, and what starts when a capture has ended."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pendulum
import pytest

from airflow_provider_quoine.assets import CAPTURES, FINDINGS, USERS, WITHDRAWALS
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.airflow_fixtures import FOLDERS
from tests.support.asset_events import asset_events
from tests.support.one_task import api

pytestmark = pytest.mark.usefixtures("airflow_database")

DAG_ID = "quoine_capture_trading_day"
TOKYO = "Asia/Tokyo"

CONSUMER = """
from airflow.sdk import DAG
from airflow_provider_quoine.assets import CAPTURES

with DAG("on_finished_capture", schedule=[CAPTURES]):
    pass
"""


class ShortDay(pendulum.DateTime):
    """A day of twelve seconds: a run on a busy machine has rows, too."""

    def add(self, *args: Any, **kwargs: Any) -> Any:
        """Give the moment of the next one."""
        return super().add(seconds=12)


@pytest.fixture
def dag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The DAG, read as Airflow reads it, beside one that waits for captures."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db

    monkeypatch.setenv("AIRFLOW_VAR_QUOINE_CAPTURES", str(tmp_path / "captures"))
    DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call]  # Airflow's
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "consumer.py").write_text(CONSUMER, encoding="utf-8")
    for folder, bundle in ((tmp_path / "dags", "tests"), (FOLDERS["examples"], "examples")):
        bag = BundleDagBag(str(folder), bundle_path=folder, bundle_name=bundle)
        assert not bag.import_errors
        sync_bag_to_db(bag, bundle, None)
    return bag.dags[DAG_ID]


def states(done: Any) -> tuple[str, dict[str, str]]:
    """The run's state and its tasks' states."""
    return str(done.state), {one.task_id: str(one.state) for one in done.get_task_instances()}


def asset_graph() -> set[tuple[str, str]]:
    """The edges of the graph on Airflow's page, with names in place of numbers."""
    graph = api().get("/ui/dependencies").json()
    names = {node["id"]: f"{node['type']}:{node['label']}" for node in graph["nodes"]}
    return {(names[edge["source_id"]], names[edge["target_id"]]) for edge in graph["edges"]}


def test_it_begins_every_day_at_midnight_in_tokyo(dag: Any) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    info = DagSerialization.from_dict(DagSerialization.to_dict(dag)).next_dagrun_info(last_automated_run_info=None)
    assert info is not None
    assert pendulum.instance(info.run_after).in_timezone(TOKYO).time() == pendulum.Time(0, 0)
    assert dag.catchup is False
    trading_day = dag.user_defined_macros["trading_day"]
    # Whether a run begins at midnight or a person starts it at noon: 15:00 in London is the next day in Tokyo.
    for moment in ("2026-03-01T15:00:00Z", "2026-03-02T03:00:00Z", "2026-03-02T14:59:59Z"):
        assert trading_day(datetime.fromisoformat(moment)).isoformat() == "2026-03-02T00:00:00+09:00"


def test_a_day_is_captured_verified_drawn_and_an_event(
    dag: Any, exchange: SandboxControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.models.asset import AssetDagRunQueue
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session

    # It begins when the task does; the templates are written anew when the task goes on.
    day = cache(lambda: ShortDay.instance(pendulum.now(TOKYO).start_of("second")))
    monkeypatch.setitem(dag.user_defined_macros, "trading_day", lambda moment: day())
    with create_session() as session:
        session.get_one(DagModel, "on_finished_capture").is_paused = False
    done = dag.test()
    assert states(done) == ("success", dict.fromkeys(("capture", "verify", "report"), "success"))
    began = day()
    (manifest,) = (tmp_path / "captures").glob(f"date={began:%Y-%m-%d}/{DAG_ID}/*/capture/_*.manifest.json")
    told = json.loads(manifest.read_text())
    assert told["from"] == began.in_timezone("UTC").isoformat()
    assert (told["capture"]["duration"], told["rows"] > 0) == (12.0, True)
    # The seconds before the task started are stated.
    assert told["parts"][0]["gaps"][0]["from"] == told["from"]
    results = {one.task_id: one.xcom_pull(task_ids=one.task_id) for one in done.get_task_instances()}
    assert (results["verify"]["rows"], results["verify"]["faults"]) == (told["rows"], 0)
    assert results["report"] == str(manifest).replace(".manifest.json", ".report.svg")
    assert TOKYO in Path(results["report"]).read_text()
    shown = api().get(f"/api/v2/dags/{DAG_ID}/dagRuns/{done.run_id}/taskInstances/report/links").json()
    assert shown["extra_links"] == {"Picture of the capture": Path(results["report"]).as_uri()}
    (event,) = asset_events(CAPTURES, run_id=done.run_id)
    assert (event["path"], event["stream"], event["rows"]) == (
        results["capture"]["path"],
        "order_book",
        str(told["rows"]),
    )
    # What Airflow's page shows from the first event on.
    assert (f"asset-alias:{CAPTURES.name}/{DAG_ID}", f"asset:{CAPTURES.name}") in asset_graph()
    with create_session() as session:
        assert session.query(AssetDagRunQueue).filter_by(target_dag_id="on_finished_capture").count() == 1
        session.query(AssetDagRunQueue).delete()
        session.get_one(DagModel, "on_finished_capture").is_paused = True


def test_a_day_that_is_over_fails_at_once_in_words(dag: Any, exchange: SandboxControl, airflow_log: Any) -> None:
    done = dag.test(run_after=pendulum.datetime(2026, 3, 2, tz=TOKYO))
    assert states(done) == ("failed", {"capture": "failed", "verify": "upstream_failed", "report": "upstream_failed"})
    log = airflow_log.getvalue()
    assert "The time of this capture, 86400 s from 2026-03-02T00:00:00+09:00 on, is over" in log
    assert exchange.state()["stream"]["connections_total"] == 0
    assert asset_events(CAPTURES, run_id=done.run_id) == []


def test_the_asset_graph_leads_from_who_makes_captures_users_and_payments(dag: Any) -> None:
    edges = asset_graph()
    for producer, asset in (
        (DAG_ID, CAPTURES),
        ("quoine_onboard_user", USERS),
        ("quoine_withdraw_bitcoin", WITHDRAWALS),
        ("quoine_reconcile_payments", FINDINGS),
    ):
        assert (f"dag:{producer}", f"asset-alias:{asset.name}/{producer}") in edges
    assert (f"asset:{CAPTURES.name}", "dag:on_finished_capture") in edges
