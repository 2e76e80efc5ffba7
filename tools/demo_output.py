"""Output of the demo: Airflow's tasks, the state of the exchange, and instructions."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.table import Table

from tools.sandbox import ADDRESS
from tools.scenario import Run

COLOURS = {
    "success": "green",
    "failed": "red",
    "upstream_failed": "red",
    "running": "cyan",
    "deferred": "magenta",
    "awaiting_input": "bold yellow",
    "up_for_retry": "yellow",
}


def duration(task: dict[str, Any]) -> str:
    """Return the duration of a task, up to now if it is running."""
    if not task.get("start_date"):
        return ""
    started = datetime.fromisoformat(task["start_date"])
    ended = datetime.fromisoformat(task["end_date"]) if task.get("end_date") else datetime.now(started.tzinfo)
    return f"{(ended - started).total_seconds():.0f} s"


def coloured(state: str | None) -> str:
    """Return a state in its colour. A task has none until the scheduler has looked at it."""
    shown = state or "not yet"
    return f"[{COLOURS.get(shown, 'dim')}]{shown}[/]"


def task_table(runs: Iterable[Run]) -> Table:
    """Return a table of all tasks with their states."""
    table = Table("DAG", "task", "state", "time", title="Airflow at work")
    for run in runs:
        name = run.dag_id
        for task in run.tasks or [{"task_id": "", "state": run.state}]:
            table.add_row(name, task["task_id"], coloured(task["state"]), duration(task))
            name = ""
        table.add_section()
    return table


def exchange_tables(state: dict[str, Any]) -> list[Table]:
    """Return tables of the users and withdrawals at the exchange."""
    users = Table("user", "name", "status", "balance (BTC)", title="Users at the exchange")
    for user in state["users"]:
        name = f"{user['first_name']} {user['last_name']}"
        users.add_row(str(user["user_id"]), name, user["status"], user["balance"])
    withdrawals = Table("withdrawal", "user", "amount (BTC)", "state", "address", title="Withdrawals at the exchange")
    withdrawals.columns[-1].overflow = "fold"
    for each in state["withdrawals"]:
        withdrawals.add_row(str(each["id"]), str(each["user_id"]), each["amount"], each["state"], each["address"])
    return [users, withdrawals]


def print_changes(runs: Iterable[Run], printed: dict[tuple[str, str], str | None]) -> None:
    """Print a line for each task whose state has changed since the last call."""
    for run in runs:
        for task in run.tasks:
            key = (str(run.run_id), task["task_id"])
            if task["state"] and printed.get(key) != task["state"]:
                printed[key] = task["state"]
                print(f"{time.strftime('%H:%M:%S')}  {run.dag_id:28}{task['task_id']:24}{task['state']}", flush=True)


def instructions(*, airflow: str, exchange: str, documents: dict[str, str]) -> str:
    """
    Return instructions for trying the DAGs by hand.

    :param airflow: URL of Airflow's page
    :param exchange: URL of the sandbox's page
    :param documents: form field → path
    """
    files = "\n".join(f"    {field:20}{path}" for field, path in documents.items())
    return f"""
Airflow's page       {airflow}
Payments             {airflow}/plugin/quoine
Applicants           {airflow}/quoine/applicants (in Airflow's page: Quoine, Applicants)
The exchange's page  {exchange}

An order book is drawn beside its task: quoine_order_book_snapshot, its run, snapshot, tab Order book.

Try it by hand: press New applicant under Applicants, or open quoine_onboard_and_withdraw in Airflow's page and press
Trigger. Documents for the forms:
{files}
    withdrawal_address  {ADDRESS} (the only one on the allow-list)

When authorize_withdrawal waits, its question is under Required Actions. The code is on the exchange's page, where
you can also approve and decline users and advance withdrawals.

Ctrl-C ends the demo with all its processes.
"""
