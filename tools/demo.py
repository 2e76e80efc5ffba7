"""``make demo``: a real Airflow at work against the sandbox exchange, and a person who types the codes."""

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
from tools.documents import write_documents
from tools.sandbox import SandboxProcess
from tools.show import exchange_tables, how_to_try, print_changes, task_table
from tools.standalone import Standalone
from tools.story import SETTINGS, Story, runs_of

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".demo"


def play(story: Story, console: Console) -> None:
    """Play the story, showing how it goes: a live table, or a line per change where there is no screen."""
    runs = story.runs
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            story.play(lambda: live.update(task_table(runs), refresh=True))
    else:
        shown: dict[tuple[str, str], str | None] = {}
        story.play(lambda: print_changes(runs, shown))
    console.print(task_table(runs))


def new_place() -> Path:
    """Make this run's folder, and remove those of earlier runs."""
    for earlier in PLACE.glob("run-*"):
        shutil.rmtree(earlier)
    place = PLACE / time.strftime("run-%Y%m%d-%H%M%S")
    place.mkdir()
    return place


def demo(*, port: int, once: bool, console: Console) -> bool:
    """
    Show it all.

    :param port: of Airflow's page; 0 takes a free one
    :param once: end after the show instead of staying up until a KeyboardInterrupt
    :return: whether every run ended as it should
    """
    documents = write_documents(PLACE / "documents")
    place = new_place()
    airflow = Standalone(home=place / "airflow", dags=ROOT / "dags", port=port, settings=SETTINGS)
    with ExitStack() as stack:
        sandbox = stack.enter_context(SandboxProcess(folder=place))
        console.print(f"The sandbox exchange is at {sandbox.url}")
        console.print("Airflow starts, which takes half a minute or more")
        stack.enter_context(airflow)
        console.print(f"Airflow is at {airflow.url}")
        airflow.api.create_connection("quoine_default", sandbox.connection)
        story = Story(airflow=airflow, sandbox=sandbox.control, runs=runs_of(documents, captures=place / "captures"))
        play(story, console)
        for table in exchange_tables(sandbox.control.state(requests=1)):
            console.print(table)
        problems = story.problems()
        for problem in problems:
            console.print(f"Not as it should be: {problem}", markup=False)
        if problems:
            console.print(f"The logs are in {airflow.logs}", markup=False)
        if not once:
            print(how_to_try(airflow=airflow.url, exchange=sandbox.url, documents=documents), flush=True)
            with suppress(KeyboardInterrupt):
                signal.pause()
    return not problems


def main() -> int:
    """Run the demo; the exit code is 0 if all went as it should."""
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--once", action="store_true", help="end after the show")
    parser.add_argument("--port", type=int, default=0, help="of Airflow's page")
    arguments = parser.parse_args()
    console = Console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    PLACE.mkdir(exist_ok=True)
    with (PLACE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("A demo is running from this folder already: end it first", file=sys.stderr)
            return 1
        try:
            return 0 if demo(port=arguments.port, once=arguments.once, console=console) else 1
        except KeyboardInterrupt:
            print("Stopped before the end; nothing is left running", file=sys.stderr)
            return 130
        except (RuntimeError, OSError, AirflowApiError, requests.RequestException) as error:
            print(f"The demo failed: {error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
