"""A real Airflow beside the sandbox exchange, on which the example DAGs have been played to their end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.airflow_api import ENDED, wait_for
from tools.documents import write_documents
from tools.sandbox import SandboxProcess
from tools.standalone import Standalone
from tools.story import SETTINGS, Story, runs_of

ROOT = Path(__file__).resolve().parents[2]
WATCHER = "quoine_on_price_cross"


@dataclass(frozen=True, kw_only=True)
class Played:
    """
    What is there after the play, still running.

    :param crossing: id of the run that a price started when it crossed a level
    :param folder: everything that Airflow and the sandbox wrote
    """

    airflow: Standalone
    sandbox: SandboxProcess
    story: Story
    crossing: str
    folder: Path


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """Play all example DAGs once; the Airflow is gone when the module is, so that it slows no other test."""
    folder = tmp_path_factory.mktemp("played")
    documents = write_documents(tmp_path_factory.mktemp("documents"))
    # A code of five digits would be found by chance in any log; the person's code is as short as it likes.
    options = ["--code-digits", "12", "--verbose"]
    with (
        SandboxProcess(folder=folder, options=options) as sandbox,
        Standalone(home=folder / "airflow", dags=ROOT / "dags", settings=SETTINGS) as airflow,
    ):
        airflow.api.create_connection("quoine_default", sandbox.connection)
        # First: Airflow starts a watcher when it reads the file of an unpaused DAG, which it does twice a minute.
        airflow.api.unpause(WATCHER)
        story = Story(airflow=airflow, sandbox=sandbox.control, runs=runs_of(documents, captures=folder / "captures"))
        story.play(lambda: None)
        crossing = cross_the_level(airflow, sandbox)
        yield Played(airflow=airflow, sandbox=sandbox, story=story, crossing=crossing, folder=folder)
        processes = airflow.processes()
    assert [process for process in processes if process.is_running()] == []


def cross_the_level(airflow: Standalone, sandbox: SandboxProcess) -> str:
    """Let the price jump above the watcher's level, from where the market soon takes it back; return the run's id."""

    def traded(price: str) -> bool | None:
        trade = {"id": 1, "price": price, "quantity": "1", "taker_side": "buy", "created_at": 1473000000}
        return sandbox.control.publish("executions_cash_btcjpy", "created", trade) > 0 or None

    def ended() -> str | None:
        runs = airflow.api.call("GET", f"dags/{WATCHER}/dagRuns")["dag_runs"]
        return next((str(run["dag_run_id"]) for run in runs if run["state"] in ENDED), None)

    wait_for("the watcher to listen", lambda: traded("99999"), timeout=120)
    traded("100001")
    return wait_for("the run that the price started", ended, timeout=120)
