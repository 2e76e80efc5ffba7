"""All example DAGs on a real Airflow: they succeed, leak no secret, and do not block the triggerer."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from airflow_provider_quoine.triggers.market_events import QuoinePriceCrossTrigger
from tests.support.leaks import cells, contents, find
from tests.system.conftest import WATCHER, FinishedScenario

#: Alone, because one of these tests measures whether the triggerer was ever held up, and other Airflows would do that.
#: The limit is for Airflow's start, the scenario and the stop together; each also has a shorter one of its own.
pytestmark = [pytest.mark.alone, pytest.mark.timeout(1500)]

BLOCKED = "async thread was blocked for"
KINDS = Counter({"API secret": 2, "password": 2, "code": 3, "vendor's API secret": 1})
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")


@pytest.fixture(scope="module")
def secrets(finished: FinishedScenario) -> dict[str, str]:
    """Read all secrets of the scenario from the places where they may be."""
    variables = finished.airflow.variables()
    users = {key: json.loads(value) for key, value in variables.items() if key.endswith("_api_secret")}
    found = {f"API secret in {key}": key_of_user["api_secret"] for key, key_of_user in users.items()}
    found |= {f"password in {key}": value for key, value in variables.items() if key.startswith("quoine_password_")}
    found |= {f"code {n}": message["code"] for n, message in enumerate(finished.sandbox.control.auth_codes())}
    return found | {"vendor's API secret": finished.sandbox.vendor_secret}


def test_every_run_ends_as_it_should_at_airflow_and_at_the_exchange(finished: FinishedScenario) -> None:
    assert finished.scenario.problems() == []


def test_the_snapshot_has_both_sides(finished: FinishedScenario) -> None:
    run = finished.scenario.first_run("quoine_order_book_snapshot")
    assert run.run_id is not None
    snapshot = finished.airflow.api.xcom(run.dag_id, run.run_id, "snapshot")
    assert snapshot["bids"]
    assert snapshot["asks"]


def test_a_capture_is_in_its_files_and_only_its_summary_in_airflow(finished: FinishedScenario) -> None:
    run = finished.scenario.first_run("quoine_capture_order_books")
    assert run.run_id is not None
    (path,) = (finished.folder / "captures").glob("quoine_capture_order_books/*/capture/0/*.jsonl.gz")
    rows = len(gzip.decompress(path.read_bytes()).splitlines())
    assert json.loads((path.parent / f"_{path.name}.json").read_text())["rows"] == rows > 0
    result = f"dags/{run.dag_id}/dagRuns/{quote(run.run_id)}/taskInstances/capture/xcomEntries/return_value"
    summary = finished.airflow.api.call("GET", result, deserialize="true", map_index="0")["value"]
    assert summary["path"] == re.sub(r"_\d+_\d+_\w+-\d+\.", "_*.", str(path))
    assert (summary["files"], summary["rows"]) == (1, rows)


def test_a_level_crossed_once_started_one_run_that_knows_why(finished: FinishedScenario) -> None:
    (run,) = finished.airflow.api.call("GET", f"dags/{WATCHER}/dagRuns")["dag_runs"]
    assert (run["run_type"], run["state"]) == ("asset_triggered", "success")
    (event,) = finished.airflow.api.xcom(WATCHER, finished.crossing, "report")
    assert (event["event"], event["price"], event["level"]) == ("price_crossed", "100001", "100000")
    assert event["event_id"] == "quoine_default/price_crossed/btcjpy/100000/up/last_trade/1"
    events = finished.airflow.api.call("GET", "assets/events")["asset_events"]
    # Withdrawals that were paid and users who were approved are asset events too.
    assert [each["name"] for each in events if each["name"].startswith("quoine_btcjpy")] == [
        "quoine_btcjpy_above_100000"
    ]


def test_what_a_watcher_knows_and_what_a_dag_has_taken_is_in_the_asset_s_state(finished: FinishedScenario) -> None:
    (asset,) = finished.airflow.api.call("GET", "assets", name_pattern="quoine_btcjpy_above_100000")["assets"]
    state = finished.airflow.api.call("GET", f"assets/{asset['id']}/state-store")["asset_state_store"]
    kept = {each["key"]: each["value"] for each in state}
    memory = kept["quoine/quoine_default/price_crossed/btcjpy/100000/up/last_trade"]
    # The sandbox's own trades go on below the level.
    assert memory["position"] in ("true", "false")
    event_id = "quoine_default/price_crossed/btcjpy/100000/up/last_trade/1"
    assert kept[f"quoine/taken/{WATCHER}/report"] == {event_id: finished.crossing}


def test_no_secret_is_in_any_table(finished: FinishedScenario, secrets: dict[str, str]) -> None:
    # Two users with a password and a key each, three typed codes, and the vendor. Only names are compared, so that
    # a failure shows no secret.
    assert Counter(name.split(" in ")[0].rstrip("012345 ") for name in secrets) >= KINDS
    assert [name for name, secret in secrets.items() if len(secret) < 12] == []
    assert find(secrets, cells(finished.airflow.database)) == set()


def test_no_secret_is_in_any_log_or_on_any_console(finished: FinishedScenario, secrets: dict[str, str]) -> None:
    searched = {name for name, _ in contents(finished.folder)}
    assert {"sandbox.log", "airflow/console.log"} < searched
    for run in finished.scenario.runs:
        for task in run.tasks:
            logs = f"airflow/logs/dag_id={run.dag_id}/run_id={run.run_id}/task_id={task['task_id']}/"
            assert any(name.startswith(logs) for name in searched)
    assert find(secrets, contents(finished.folder)) == set()


def test_the_search_finds_what_airflow_does_keep(finished: FinishedScenario) -> None:
    run = finished.scenario.first_run("quoine_order_book_snapshot")
    assert run.run_id is not None
    marker = "no secret, but a note/that+stands where secrets must not=="
    path = f"dags/{run.dag_id}/dagRuns/{quote(run.run_id)}"
    finished.airflow.api.call("PATCH", path, {"note": f"marked: {marker}"}, update_mask="note")
    assert ("marker", "dag_run_note.content") in find({"marker": marker}, cells(finished.airflow.database))
    watcher = f"{QuoinePriceCrossTrigger.__module__}.{QuoinePriceCrossTrigger.__qualname__}"
    assert ("watcher", "serialized_dag.data") in find({"watcher": watcher}, cells(finished.airflow.database))
    assert ("run", "airflow/console.log") in find({"run": run.run_id}, contents(finished.folder))


def test_the_triggerer_ran_our_triggers_and_they_never_blocked_it(finished: FinishedScenario) -> None:
    spec = importlib.util.find_spec("airflow.jobs.triggerer_job_runner")
    assert spec is not None
    assert spec.origin is not None
    assert BLOCKED in Path(spec.origin).read_text(), "Airflow has changed this log message"
    logs = {name: text.decode() for name, text in contents(finished.folder) if ".log" in Path(name).name}
    of_triggers = [text for name, text in logs.items() if ".log.trigger." in name]
    # Two users, three withdrawals, a price and four order books.
    assert sum("trigger completed" in text for text in of_triggers) >= 10
    starts = [
        json.loads(line)["timestamp"] for text in of_triggers for line in text.splitlines() if " starting" in line
    ]
    # On a busy machine, Airflow blocks itself while it starts. Our classes are imported just before our triggers start.
    ours_from = datetime.fromisoformat(min(starts)) - timedelta(seconds=1)
    blocked = [line for text in logs.values() for line in text.splitlines() if BLOCKED in line]
    assert [line for line in blocked if datetime.fromisoformat(TIME.findall(line)[0]) > ours_from] == []
