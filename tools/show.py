"""What the demo prints: Airflow's tasks as they go, what the exchange holds, and how to go on by hand."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.table import Table

from tools.sandbox import ADDRESS
from tools.story import Run

COLOURS = {
    "success": "green",
    "failed": "red",
    "upstream_failed": "red",
    "running": "cyan",
    "deferred": "magenta",
    "awaiting_input": "bold yellow",
    "up_for_retry": "yellow",
}


def seconds(instance: dict[str, Any]) -> str:
    """Tell how long a task or run took, or has taken until now."""
    if not instance.get("start_date"):
        return ""
    started = datetime.fromisoformat(instance["start_date"])
    ended = datetime.fromisoformat(instance["end_date"]) if instance.get("end_date") else datetime.now(started.tzinfo)
    return f"{(ended - started).total_seconds():.0f} s"


def coloured(state: str | None) -> str:
    """A state in its colour; a task that has none yet has not been looked at by the scheduler."""
    shown = state or "not yet"
    return f"[{COLOURS.get(shown, 'dim')}]{shown}[/]"


def task_table(runs: Iterable[Run]) -> Table:
    """Show every task as it stands."""
    table = Table("DAG", "task", "state", "time", title="Airflow at work")
    for run in runs:
        name = run.dag_id
        for task in run.tasks or [{"task_id": "", "state": run.state}]:
            table.add_row(name, task["task_id"], coloured(task["state"]), seconds(task))
            name = ""
        table.add_section()
    return table


def exchange_tables(held: dict[str, Any]) -> list[Table]:
    """Show what the exchange holds."""
    users = Table("user", "name", "status", "balance (BTC)", title="Users at the exchange")
    for user in held["users"]:
        name = f"{user['first_name']} {user['last_name']}"
        users.add_row(str(user["user_id"]), name, user["status"], user["balance"])
    withdrawals = Table("withdrawal", "user", "amount (BTC)", "state", "address", title="Withdrawals at the exchange")
    withdrawals.columns[-1].overflow = "fold"
    for each in held["withdrawals"]:
        withdrawals.add_row(str(each["id"]), str(each["user_id"]), each["amount"], each["state"], each["address"])
    return [users, withdrawals]


def print_changes(runs: Iterable[Run], shown: dict[tuple[str, str], str | None]) -> None:
    """Print a line for each task whose state is not the one that was shown, and remember it."""
    for run in runs:
        for task in run.tasks:
            key = (str(run.run_id), task["task_id"])
            if task["state"] and shown.get(key) != task["state"]:
                shown[key] = task["state"]
                print(f"{time.strftime('%H:%M:%S')}  {run.dag_id:28}{task['task_id']:24}{task['state']}", flush=True)


def how_to_try(*, airflow: str, exchange: str, documents: dict[str, str]) -> str:
    """
    Tell the person where everything is.

    :param airflow: URL of Airflow's page
    :param exchange: URL of the sandbox's page
    :param documents: form field → path
    """
    files = "\n".join(f"    {field:20}{path}" for field, path in documents.items())
    return f"""
Airflow's page       {airflow}
The exchange's page  {exchange}

Try it by hand: open quoine_onboard_and_withdraw in Airflow's page and press Trigger. Documents for the form:
{files}
    withdrawal_address  {ADDRESS} (the allow-list has no other)

When authorize_withdrawal waits, its question is under Required Actions; read the code in the outbox on the
exchange's page. There you also approve and decline users and move withdrawals on.

Ctrl-C ends the demo and everything that it started.
"""
