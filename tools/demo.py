"""``make demo``: all example DAGs on a real Airflow against the sandbox exchange; it also types the codes."""

from __future__ import annotations

import argparse
import fcntl
import shutil
import signal
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import requests
from rich.console import Console
from rich.live import Live

from tools.airflow_api import AirflowApiError
from tools.demo_output import exchange_tables, instructions, print_changes, task_table
from tools.documents import write_documents
from tools.sandbox import SandboxProcess
from tools.scenario import SETTINGS, Scenario, example_runs
from tools.standalone import Standalone

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".demo"


def execute(scenario: Scenario, console: Console) -> None:
    """Execute the scenario and show its progress: a live table in a terminal, else one line per change."""
    runs = scenario.runs
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            scenario.execute(lambda: live.update(task_table(runs), refresh=True))
    else:
        printed: dict[tuple[str, str], str | None] = {}
        scenario.execute(lambda: print_changes(runs, printed))
    console.print(task_table(runs))


def new_folder() -> Path:
    """Create this run's folder, and remove those of earlier runs."""
    for earlier in FOLDER.glob("run-*"):
        shutil.rmtree(earlier)
    folder = FOLDER / time.strftime("run-%Y%m%d-%H%M%S")
    folder.mkdir()
    return folder


def demo(*, port: int, once: bool, console: Console) -> bool:
    """
    Run the demo.

    :param port: port of Airflow's page; 0 takes a free one
    :param once: end after the scenario instead of waiting for a KeyboardInterrupt
    :param console: for the output
    :return: whether every run ended as expected
    """
    documents = write_documents(FOLDER / "documents")
    folder = new_folder()
    airflow = Standalone(home=folder / "airflow", dags=ROOT / "dags", port=port, settings=SETTINGS)
    with ExitStack() as stack:
        sandbox = stack.enter_context(SandboxProcess(folder=folder))
        console.print(f"The sandbox exchange is at {sandbox.url}")
        console.print("Airflow is starting, which takes half a minute or more")
        stack.enter_context(airflow)
        console.print(f"Airflow is at {airflow.url}")
        airflow.api.create_connection("quoine_default", sandbox.connection)
        runs = example_runs(documents, captures=folder / "captures")
        scenario = Scenario(airflow=airflow, sandbox=sandbox.control, runs=runs)
        execute(scenario, console)
        for table in exchange_tables(sandbox.control.state(requests=1)):
            console.print(table)
        problems = scenario.problems()
        for problem in problems:
            console.print(f"Not as expected: {problem}", markup=False)
        if problems:
            console.print(f"The logs are in {airflow.logs}", markup=False)
        if not once:
            print(instructions(airflow=airflow.url, exchange=sandbox.url, documents=documents), flush=True)
            with suppress(KeyboardInterrupt):
                signal.pause()
    return not problems


def main() -> int:
    """Run the demo; the exit code is 0 if every run ended as expected."""
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--once", action="store_true", help="end after the scenario")
    parser.add_argument("--port", type=int, default=0, help="port of Airflow's page")
    arguments = parser.parse_args()
    console = Console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("A demo is already running in this folder: end it first", file=sys.stderr)
            return 1
        try:
            return 0 if demo(port=arguments.port, once=arguments.once, console=console) else 1
        except KeyboardInterrupt:
            print("Stopped before the end; no process is left running", file=sys.stderr)
            return 130
        except (RuntimeError, OSError, AirflowApiError, requests.RequestException) as error:
            print(f"The demo failed: {error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
