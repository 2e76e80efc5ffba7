"""A scenario with the example DAGs, run as a person would run them: for the demo and the system test."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_quoine.sandbox.control import SandboxControl
from tools.airflow_api import ENDED
from tools.applicant_form import DAG_ID, send_applicant
from tools.sandbox import ADDRESS
from tools.standalone import Standalone

TIMEOUT_SECONDS = 900
#: On a busy machine, Airflow fails tasks wrongly: if a trigger fires before the scheduler has noticed the end of the
#: worker that deferred, the scheduler reports a mismatch. Such tasks are retried.
SETTINGS = {"AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "2", "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "5"}
TARO = {
    "first_name": "Taro",
    "last_name": "Yamada",
    "first_furi_name": "タロウ",
    "last_furi_name": "ヤマダ",
    "email_address": "taro.yamada@example.com",
    "phone": "+81 90-1790-1357",
    "country": "JP",
    "address": "1-2-3 Marunouchi",
    "city": "Tokyo",
    "postcode": "100-0005",
}
HANAKO = TARO | {
    "first_name": "Hanako",
    "last_name": "Suzuki",
    "first_furi_name": "ハナコ",
    "last_furi_name": "スズキ",
    "email_address": "hanako.suzuki@example.com",
}


@dataclass(kw_only=True)
class Run:
    """
    One DAG run of the scenario.

    :param dag_id: the DAG
    :param conf: its params; an empty ``user_id`` is replaced by the user of the preceding run
    :param files: form field → path, for a run that is started by the form of a new applicant, whose fields ``conf`` has
    :param after: DAG whose run has to succeed first
    :param variable: Variable that gets the ``conf`` as JSON, for a DAG without params that its schedule starts
    :param users: number of users that the run creates at the exchange
    :param withdrawals: amounts that the run withdraws
    :param run_id: None until the run is started
    :param state: the run's state in Airflow; ``waiting`` before its start
    :param tasks: the run's tasks, as Airflow's API describes them
    """

    dag_id: str
    conf: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)
    after: str | None = None
    variable: str | None = None
    users: int = 0
    withdrawals: tuple[str, ...] = ()
    run_id: str | None = None
    state: str = "waiting"
    tasks: list[dict[str, Any]] = field(default_factory=list)


def example_runs(documents: dict[str, str], *, captures: Path) -> list[Run]:
    """
    List the runs of the scenario, in the order in which they start.

    :param documents: form field → path, as :func:`tools.documents.write_documents` returns them
    :param captures: folder for captured files
    """
    onboard, withdraw = DAG_ID, "quoine_withdraw_bitcoin"
    applicant = {"email" if name == "email_address" else name: value for name, value in TARO.items()}
    chained = {"payment_reference": "invoice-115", "amount": "0.25", "withdrawal_address": ADDRESS, "pair": "btcjpy"}
    by_hand = {"payment_reference": "invoice-116", "user_id": "", "amount": "0.5", "address": ADDRESS}
    capture = {"pairs": ["ethjpy"], "path": str(captures), "minutes": 0.2, "interval": 0.5}
    daily = {"user_id": "", "amount": "0.125", "address": ADDRESS}
    return [
        Run(
            dag_id="quoine_onboard_and_withdraw",
            conf=HANAKO | documents | chained,
            users=1,
            withdrawals=("0.25",),
        ),
        # Through the desk's page, so that nothing of the person is in the run.
        Run(dag_id=onboard, conf=applicant, files=documents, users=1),
        Run(dag_id="quoine_order_book_snapshot", conf={"pair": "btcusd"}, after=onboard),
        Run(dag_id="quoine_capture_order_books", conf=capture, after=onboard),
        Run(dag_id="quoine_wait_for_price", conf={"pair": "btcjpy", "level": "50000"}, after=onboard),
        Run(dag_id=withdraw, conf=by_hand, after=onboard, withdrawals=("0.5",)),
        # The same reference again, as after a second press on the button: it finds the first withdrawal.
        Run(dag_id=withdraw, conf=dict(by_hand), after=withdraw),
        # After the first one, because only a user's newest code is valid.
        Run(
            dag_id="quoine_daily_payout",
            conf=daily,
            variable="quoine_daily_payout",
            after=withdraw,
            withdrawals=("0.125",),
        ),
    ]


class Scenario:
    """
    Starts runs, follows their states, and answers their questions to a person.

    :param airflow: one whose connection ``quoine_default`` is that of the sandbox
    :param sandbox: controls of the sandbox, for the authentication codes
    :param runs: the runs
    """

    def __init__(self, *, airflow: Standalone, sandbox: SandboxControl, runs: list[Run]) -> None:
        self.airflow = airflow
        self.api = airflow.api
        self.sandbox = sandbox
        self.runs = runs
        self._variables: set[str] = set()

    def first_run(self, dag_id: str) -> Run:
        """Return the first run of a DAG."""
        return next(run for run in self.runs if run.dag_id == dag_id)

    def execute(self, on_step: Callable[[], None]) -> None:
        """
        Execute all runs to their ends.

        :param on_step: called after each step
        :raises TimeoutError: with all problems, after :data:`TIMEOUT_SECONDS`
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not all(run.state in ENDED or self._never_starts(run) for run in self.runs):
            if time.monotonic() > deadline:
                raise TimeoutError(f"After {TIMEOUT_SECONDS} s: {'; '.join(self.problems())}")
            self._step()
            on_step()
            time.sleep(1)

    def _step(self) -> None:
        """Start the runs that can start, update all states, and answer questions."""
        for run in self.runs:
            if run.state == "waiting":
                self._start(run)
            if run.run_id is not None and run.state not in {"waiting", *ENDED}:
                # The state is read first: if it is final, the tasks read after it are final too.
                run.state = self.api.run_state(run.dag_id, run.run_id)
                run.tasks = self.api.task_instances(run.dag_id, run.run_id)
                self._answer(run, run.run_id)

    def _predecessor(self, run: Run) -> Run | None:
        return self.first_run(run.after) if run.after else None

    def _never_starts(self, run: Run) -> bool:
        predecessor = self._predecessor(run)
        return (
            run.state == "waiting"
            and predecessor is not None
            and (predecessor.state == "failed" or self._never_starts(predecessor))
        )

    def _start(self, run: Run) -> None:
        predecessor = self._predecessor(run)
        if predecessor is not None:
            if predecessor.state != "success":
                return
            if "user_id" in run.conf:
                run.conf["user_id"] = self._user_id(predecessor)
        if run.variable:
            self._start_by_schedule(run, run.variable)
            return
        self.api.unpause(run.dag_id)
        if run.files:
            run.run_id = send_applicant(self.api, run.conf, run.files)
        else:
            run.run_id = self.api.trigger(run.dag_id, run.conf)
        run.state = "queued"

    def _start_by_schedule(self, run: Run, variable: str) -> None:
        """Switch a DAG on, whose newest run is due; take that run once it is there."""
        if variable not in self._variables:
            self._variables.add(variable)
            self.api.call("POST", "variables", {"key": variable, "value": json.dumps(run.conf)})
            self.api.unpause(run.dag_id)
        for started in self.api.call("GET", f"dags/{run.dag_id}/dagRuns")["dag_runs"]:
            run.run_id, run.state = started["dag_run_id"], "queued"

    def _user_id(self, run: Run) -> str:
        assert run.run_id is not None
        return run.conf.get("user_id") or str(self.api.xcom(run.dag_id, run.run_id, "create_user"))

    def _answer(self, run: Run, run_id: str) -> None:
        for task in run.tasks:
            task_key = (run.dag_id, run_id, task["task_id"])
            if task["state"] == "awaiting_input" and self.airflow.is_suspended(*task_key):
                code = self.sandbox.latest_code(self._user_id(run))
                self.api.answer(*task_key, option="Send", params={"one_time_token": code})

    def problems(self) -> list[str]:
        """List differences from the expected end, in Airflow and at the exchange."""
        found = [f"{run.dag_id}: {run.state}" for run in self.runs if run.state != "success"]
        state = self.sandbox.state(requests=1)
        users = sorted(user["status"] for user in state["users"])
        expected_users = ["APPROVED"] * sum(run.users for run in self.runs)
        if users != expected_users:
            found.append(f"the exchange has users {users} instead of {expected_users}")
        withdrawals = sorted((each["amount"], each["state"]) for each in state["withdrawals"])
        expected = sorted((amount, "processed") for run in self.runs for amount in run.withdrawals)
        if withdrawals != expected:
            found.append(f"the exchange has withdrawals {withdrawals} instead of {expected}")
        return found
