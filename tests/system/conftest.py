"""A real Airflow beside the sandbox exchange, on which the scenario of all example DAGs was executed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.airflow_api import ENDED, wait_for
from tools.documents import write_documents
from tools.sandbox import SandboxProcess
from tools.scenario import SETTINGS, Scenario, example_runs
from tools.standalone import READ_DAGS_ONCE, Standalone

ROOT = Path(__file__).resolve().parents[2]
WATCHER = "quoine_on_price_cross"


@dataclass(frozen=True, kw_only=True)
class FinishedScenario:
    """
    The scenario after its end; Airflow and the sandbox are still running.

    :param airflow: the Airflow
    :param sandbox: the sandbox
    :param scenario: with the final states of all runs
    :param crossing: id of the run that was started by a price crossing a level
    :param folder: contains all files of Airflow and the sandbox
    """

    airflow: Standalone
    sandbox: SandboxProcess
    scenario: Scenario
    crossing: str
    folder: Path


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark each test of this folder, and name those that share an Airflow: one process of pytest-xdist runs them."""
    item.add_marker("system")
    if item.get_closest_marker("xdist_group") is None:
        item.add_marker(pytest.mark.xdist_group("money" if item.path.parent.name == "money" else item.path.stem))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedScenario]:
    """Execute the scenario once. Airflow stops with the module, so that it does not slow other tests."""
    folder = tmp_path_factory.mktemp("finished")
    documents = write_documents(tmp_path_factory.mktemp("documents"))
    # A code of five digits would occur by chance in any log.
    options = ["--code-digits", "12", "--verbose"]
    with (
        SandboxProcess(folder=folder, options=options) as sandbox,
        Standalone(home=folder / "airflow", dags=ROOT / "dags", settings=SETTINGS | READ_DAGS_ONCE) as airflow,
    ):
        airflow.api.create_connection("quoine_default", sandbox.connection)
        airflow.api.unpause(WATCHER)
        # Airflow starts a watcher when it reads the file of an unpaused DAG.
        airflow.api.read_file(airflow.api.file_token(WATCHER))
        runs = example_runs(documents, captures=folder / "captures")
        scenario = Scenario(airflow=airflow, sandbox=sandbox.control, runs=runs)
        scenario.execute(lambda: None)
        crossing = cross_the_level(airflow, sandbox)
        yield FinishedScenario(airflow=airflow, sandbox=sandbox, scenario=scenario, crossing=crossing, folder=folder)
        processes = airflow.processes()
    assert [process for process in processes if process.is_running()] == []


def cross_the_level(airflow: Standalone, sandbox: SandboxProcess) -> str:
    """Publish one trade above the watcher's level; return the id of the run that it starts."""

    def traded(price: str) -> bool | None:
        trade = {"id": 1, "price": price, "quantity": "1", "taker_side": "buy", "created_at": 1473000000}
        return sandbox.control.publish("executions_cash_btcjpy", "created", trade) > 0 or None

    def ended() -> str | None:
        runs = airflow.api.call("GET", f"dags/{WATCHER}/dagRuns")["dag_runs"]
        return next((str(run["dag_run_id"]) for run in runs if run["state"] in ENDED), None)

    wait_for("the watcher to listen", lambda: traded("99999"), timeout=400)
    traded("100001")
    return wait_for("the run that the price started", ended, timeout=400)
