"""The example DAGs on market events, run whole; what starts them is tested on a real Airflow (tests/system)."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.airflow_fixtures import FOLDERS
from tests.support.state_stores import consumer_context, state_stores

pytestmark = pytest.mark.usefixtures("airflow_database")

RunDag = Callable[..., tuple[str, dict[str, str], dict[str, Any]]]


def test_wait_for_price(run_dag: RunDag, exchange: SandboxControl) -> None:
    state, _, results = run_dag("quoine_wait_for_price", {"pair": "btcjpy", "level": "50000"})
    assert state == "success"
    assert Decimal(results["wait"]["price"]) >= 50000
    assert (results["wait"]["source"], results["wait"]["level"]) == ("best_bid", "50000")
    assert results["snapshot"]["bids"]


@pytest.mark.parametrize(
    ("dag_id", "task_id"),
    [("quoine_on_price_cross", "report"), ("quoine_on_large_trade", "report"), ("quoine_on_silent_book", "alarm")],
)
def test_a_run_by_hand_knows_of_no_event(run_dag: RunDag, exchange: SandboxControl, dag_id: str, task_id: str) -> None:
    state, _, results = run_dag(dag_id, {})
    assert (state, results[task_id] or []) == ("success", [])


def test_a_wide_spread_is_captured(
    run_dag: RunDag, exchange: SandboxControl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_QUOINE_CAPTURES", str(tmp_path))
    state, _, results = run_dag("quoine_on_wide_spread", {"minutes": 0.15})
    assert (state, results["report"]) == ("success", [])
    assert results["capture"]["rows"] > 0
    assert list(tmp_path.glob("quoine_on_wide_spread/*/capture/order_book_btcjpy_*.jsonl"))


def test_a_silence_fails_its_run_in_words() -> None:
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.sdk import Asset
    from airflow.sdk.exceptions import AirflowFailException

    bag = BundleDagBag(str(FOLDERS["examples"]), bundle_path=FOLDERS["examples"], bundle_name="examples")
    alarm: Any = bag.dags["quoine_on_silent_book"].task_dict["alarm"]

    silence = Asset("quoine_btcjpy_book_silent")
    payload = {"event_id": "it", "pair": "btcjpy", "silent_seconds": 300.4, "connected": False}
    with state_stores(silence) as stores:
        context = consumer_context({silence: [payload]}, stores=stores)
        with pytest.raises(
            AirflowFailException, match=r"of btcjpy's book for 300\.4 s, because there is no connection"
        ):
            alarm.python_callable(**context)
