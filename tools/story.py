"""The example DAGs played through as a person would, for the demo and for the test of the whole."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_quoine.sandbox.control import SandboxControl
from tools.airflow_api import ENDED
from tools.sandbox import ADDRESS
from tools.standalone import Standalone

SECONDS_FOR_ALL = 900
#: A machine that is too busy lets Airflow fail tasks that did nothing wrong: a trigger that fires before the scheduler
#: has seen the deferring worker end is taken for a mismatch. Tried again, as anybody's Airflow would.
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
    One DAG run of the story.

    :param dag_id: which DAG
    :param conf: its params; an empty ``user_id`` stands for the user of the run before
    :param after: DAG whose run has to succeed first
    :param started_by: DAG whose run starts this one, under the given run id
    :param users: how many users it makes at the exchange
    :param withdrawals: amounts that it withdraws
    """

    dag_id: str
    conf: dict[str, Any]
    after: str | None = None
    started_by: str | None = None
    users: int = 0
    withdrawals: tuple[str, ...] = ()
    run_id: str | None = None
    state: str = "waiting"
    tasks: list[dict[str, Any]] = field(default_factory=list)


def runs_of(documents: dict[str, str], *, captures: Path) -> list[Run]:
    """
    List the runs of the story, in the order in which they start.

    :param documents: form field → path, as :func:`tools.documents.write_documents` returns them
    :param captures: folder for what is captured
    """
    onboard, withdraw = "quoine_onboard_user", "quoine_withdraw_bitcoin"
    chained = {"amount": "0.25", "withdrawal_address": ADDRESS, "pair": "btcjpy"}
    by_hand = {"user_id": "", "amount": "0.5", "address": ADDRESS}
    capture = {"pairs": ["ethjpy"], "path": str(captures), "minutes": 0.2, "interval": 0.5}
    payment = {"payment_reference": "invoice-117", "user_id": "", "amount": "0.125", "address": ADDRESS}
    return [
        Run(
            dag_id="quoine_onboard_and_withdraw",
            conf=HANAKO | documents | chained,
            users=1,
            withdrawals=("0.25",),
        ),
        Run(dag_id=onboard, conf=TARO | documents, users=1),
        Run(dag_id="quoine_order_book_snapshot", conf={"pair": "btcusd"}, after=onboard),
        Run(dag_id="quoine_capture_order_books", conf=capture, after=onboard),
        Run(dag_id="quoine_wait_for_price", conf={"pair": "btcjpy", "level": "50000"}, after=onboard),
        Run(dag_id=withdraw, conf=by_hand, after=onboard, withdrawals=("0.5",)),
        # After the one before, because a user's newest code is the only one that is right.
        Run(dag_id="quoine_pay_out_once", conf=payment, after=withdraw),
        Run(
            dag_id=withdraw,
            run_id="payment-invoice-117",
            conf={"user_id": ""},
            started_by="quoine_pay_out_once",
            withdrawals=("0.125",),
        ),
    ]


class Story:
    """
    Starts the runs, watches them, and answers what they ask a person.

    :param airflow: one whose connection ``quoine_default`` leads to the sandbox
    :param sandbox: where the codes are read
    :param runs: what to play
    """

    def __init__(self, *, airflow: Standalone, sandbox: SandboxControl, runs: list[Run]) -> None:
        self.airflow = airflow
        self.api = airflow.api
        self.sandbox = sandbox
        self.runs = runs

    def run(self, dag_id: str) -> Run:
        """Return the first run of a DAG."""
        return next(run for run in self.runs if run.dag_id == dag_id)

    def play(self, show: Callable[[], None]) -> None:
        """
        Play to the end.

        :param show: called after each step
        :raises TimeoutError: telling what is not as it should be, after :data:`SECONDS_FOR_ALL`
        """
        deadline = time.monotonic() + SECONDS_FOR_ALL
        while not all(run.state in ENDED or self._never_starts(run) for run in self.runs):
            if time.monotonic() > deadline:
                raise TimeoutError(f"After {SECONDS_FOR_ALL} s: {'; '.join(self.problems())}")
            self._step()
            show()
            time.sleep(1)

    def _step(self) -> None:
        """Start what can start, read how all stand, and answer who asks."""
        for run in self.runs:
            if run.state == "waiting":
                self._start(run)
            if run.run_id is not None and run.state not in {"waiting", *ENDED}:
                # The state first: once it is final, so are the tasks read after it.
                run.state = self.api.run_state(run.dag_id, run.run_id)
                run.tasks = self.api.task_instances(run.dag_id, run.run_id)
                self._answer(run, run.run_id)

    def _before(self, run: Run) -> Run | None:
        name = run.after or run.started_by
        return self.run(name) if name else None

    def _never_starts(self, run: Run) -> bool:
        before = self._before(run)
        return (
            run.state == "waiting" and before is not None and (before.state == "failed" or self._never_starts(before))
        )

    def _start(self, run: Run) -> None:
        before = self._before(run)
        if before is not None:
            if before.state not in ({"success"} if run.after else {"running", "success"}):
                return
            if "user_id" in run.conf:
                run.conf["user_id"] = self._user_id(before)
        if run.run_id is None:
            self.api.unpause(run.dag_id)
            run.run_id = self.api.trigger(run.dag_id, run.conf)
            run.state = "queued"
        elif self.api.has_run(run.dag_id, run.run_id):
            run.state = "queued"

    def _user_id(self, run: Run) -> str:
        assert run.run_id is not None
        return run.conf.get("user_id") or str(self.api.xcom(run.dag_id, run.run_id, "create_user"))

    def _answer(self, run: Run, run_id: str) -> None:
        for task in run.tasks:
            place = (run.dag_id, run_id, task["task_id"])
            if task["state"] == "awaiting_input" and self.airflow.parked(*place):
                code = self.sandbox.latest_code(self._user_id(run))
                self.api.answer(*place, option="Send", params={"one_time_token": code})

    def problems(self) -> list[str]:
        """Tell what did not end as it should, in Airflow and at the exchange; nothing if all is well."""
        found = [f"{run.dag_id}: {run.state}" for run in self.runs if run.state != "success"]
        held = self.sandbox.state(requests=1)
        users = sorted(user["status"] for user in held["users"])
        wanted_users = ["APPROVED"] * sum(run.users for run in self.runs)
        if users != wanted_users:
            found.append(f"the exchange holds users {users} instead of {wanted_users}")
        withdrawals = sorted((each["amount"], each["state"]) for each in held["withdrawals"])
        wanted = sorted((amount, "processed") for run in self.runs for amount in run.withdrawals)
        if withdrawals != wanted:
            found.append(f"the exchange holds withdrawals {withdrawals} instead of {wanted}")
        return found
