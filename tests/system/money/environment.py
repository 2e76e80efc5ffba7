"""A real Airflow beside a sandbox exchange with many approved users, and operations of the tests on both."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL

from airflow_provider_quoine.exchange.models import Document, OnboardingUser, UserCredentials, WithdrawalOrder
from airflow_provider_quoine.exchange.rest.auth import ApiAuth
from airflow_provider_quoine.exchange.rest.client import QuoineClient
from airflow_provider_quoine.payments.database import open_file, open_server
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.records import Payment
from airflow_provider_quoine.payments.schema import Kind
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.payments.memory import Memory
from tests.support.airflow_version import KEEP_TASK_STATE
from tests.system.money.commands import Commands
from tests.system.money.executor import LocalExecutor
from tools.airflow_api import ENDED, wait_for
from tools.sandbox import ADDRESS, SandboxProcess
from tools.standalone import READ_DAGS_ONCE, Standalone, free_port
from tools.supervised_process import SupervisedProcess

ROOT = Path(__file__).resolve().parents[3]
DAGS = Path(__file__).parent / "dags"
POST = "POST /btc_withdrawals/"
PASSWORD = "Passw0rd-of-all-users"
USERS = 110
#: Requests in five minutes that the exchange takes: nobody waits for others.
REQUESTS = 100_000

#: Seconds that a wait may take on a busy machine; none takes as long otherwise.
PATIENCE = 400

#: Enough for the workers that the fault matrix kills, for those that are frozen beside it, and for some that work.
PARALLELISM = 24
#: Killed workers are noticed soon, and slow ones are not mistaken for them.
SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": f"{LocalExecutor.__module__}.{LocalExecutor.__qualname__}",
    "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
    "AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG": "100",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "100",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
    # What is read again because a test has changed it is taken at once.
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "3",
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "100",
    # From 3.4 on a worker that has to end its task waits as long as this, even if the task has ended; before, 5 s.
    "AIRFLOW__CORE__KILLED_TASK_CLEANUP_TIME": "5",
    # The DAGs import the operators under test from here.
    "PYTHONPATH": str(ROOT),
} | READ_DAGS_ONCE


@dataclass(frozen=True, kw_only=True)
class User:
    """
    An approved user. All withdrawals of a user belong to one test.

    :param user_id: id at the exchange
    :param amount: amount of this user's withdrawals, different from every other user's
    :param key: API id and secret as JSON
    """

    user_id: str
    amount: str
    key: str = field(repr=False)

    @property
    def reference(self) -> str:
        """Reference of this user's payment."""
        return f"payment-{self.user_id}"

    @property
    def order(self) -> dict[str, str]:
        """The payment as parameters of a run."""
        return {"user_id": self.user_id, "amount": self.amount, "payment_reference": self.reference}


@dataclass(frozen=True)
class Run:
    """A DAG run."""

    dag_id: str
    run_id: str


@dataclass(kw_only=True)
class Environment:
    """
    The Airflow and the exchange.

    :param airflow: a healthy Airflow
    :param exchange: a running sandbox
    :param users: all users at the exchange
    :param folder: contains all files of Airflow and the exchange
    :param commands: runs Airflow's commands
    :param server: the ledger's database, if it is not a file
    """

    airflow: Standalone
    exchange: SandboxProcess
    users: list[User]
    folder: Path
    commands: Commands
    server: URL | None

    def __post_init__(self) -> None:
        """All users are unused, and all DAGs paused."""
        self._unused_users = iter(self.users)
        self._unpaused: set[str] = set()

    @property
    def sandbox(self) -> SandboxControl:
        """The exchange's controls."""
        return self.exchange.control

    def next_user(self) -> User:
        """Return a user that no other test uses."""
        return next(self._unused_users)

    def trigger(self, dag_id: str, user: User, **conf: Any) -> Run:
        """Start a run."""
        if dag_id not in self._unpaused:
            self.airflow.api.unpause(dag_id)
            self._unpaused.add(dag_id)
        return Run(dag_id, self.airflow.api.trigger(dag_id, user.order | conf))

    def trigger_again(self, run: Run, user: User) -> None:
        """Start a run with the id of one that Airflow does not know any more, perhaps of a DAG that it knows anew."""
        self.airflow.api.unpause(run.dag_id)
        body = {"logical_date": None, "dag_run_id": run.run_id, "conf": user.order}
        self.airflow.api.call("POST", f"dags/{run.dag_id}/dagRuns", body)

    def _query(self, sql: str, *values: str) -> list[tuple[str, ...]]:
        """Ask Airflow's database, for what is asked twice a second: each call of the API takes 50 ms of processor."""
        self.airflow.check_running()
        with closing(sqlite3.connect(f"file:{self.airflow.database}?mode=ro", uri=True, timeout=60)) as connection:
            return connection.execute(sql, values).fetchall()

    def ended_runs(self) -> dict[Run, str]:
        """Return the runs that have ended, with their states."""
        runs = self._query("SELECT dag_id, run_id, state FROM dag_run")
        return {Run(dag_id, run_id): state for dag_id, run_id, state in runs if state in ENDED}

    def _tries(self, run: Run) -> list[tuple[str, str]]:
        """Return ids and states of a run's tasks, the latest try first: from 3.4 on, earlier ones are there too."""
        sql = "SELECT task_id, state FROM task_instance WHERE dag_id = ? AND run_id = ? ORDER BY try_number DESC"
        return [(task_id, state) for task_id, state in self._query(sql, run.dag_id, run.run_id)]

    def wait(self, run: Run, *states: str) -> str:
        """Wait until a run's task is in one of these states, and return it."""

        def reached() -> str | None:
            _, state = self._tries(run)[0]
            return state if state in states else None

        return wait_for(f"{run} to be {' or '.join(states)}", reached, timeout=PATIENCE)

    def wait_until_suspended(self, run: Run, state: str, *, times: int = 1) -> None:
        """Wait until a run's task is suspended; see :meth:`tools.standalone.Standalone.is_suspended`."""
        task_key = (run.dag_id, run.run_id, self._tries(run)[0][0])
        what = f"{run} to be {state} for the {times}. time"
        wait_for(what, lambda: self.airflow.is_suspended(*task_key, state=state, times=times) or None, timeout=PATIENCE)

    def task(self, run: Run) -> dict[str, Any]:
        """Read a run's one task."""
        (task,) = self.airflow.api.task_instances(run.dag_id, run.run_id)
        return task

    def clear(self, run: Run, *, keep_state: bool = False, **which: Any) -> None:
        """
        Clear a run's tasks, as a person would.

        :param keep_state: keep the task state, also where Airflow would discard it
        :param which: which tasks; all of the run if nothing is said
        """
        # When all tasks have ended, the scheduler ends the run. If it does so at this moment, the run stays ended and
        # nothing runs the cleared task: SQLite locks no rows (seen with Airflow 3.4.0b2).
        if all(state in ENDED for _, state in self._tries(run)):
            self.wait_for_end(run)
        body = {"dag_run_id": run.run_id, "dry_run": False, "only_failed": False, **which}
        body |= KEEP_TASK_STATE if keep_state else {}
        self.airflow.api.call("POST", f"dags/{run.dag_id}/clearTaskInstances", body)

    def clear_run(self, run: Run) -> None:
        """Clear a whole run, with the DAG as it is now."""
        body = {"dry_run": False, "run_on_latest_version": True}
        self.airflow.api.call("POST", f"dags/{run.dag_id}/dagRuns/{quote(run.run_id)}/clear", body)

    def wait_for_end(self, run: Run) -> str:
        """Wait for a run's end, and return its state."""
        return wait_for(f"{run} to end", lambda: self.ended_runs().get(run), timeout=PATIENCE)

    def wait_for_report(self, run: Run) -> None:
        """
        Wait until Airflow's scheduler has heard of its executor that a run's task has succeeded.

        What it hears later it takes for news of a run that has been given the same id, and fails that one's task.
        """
        task_id, told = self.task(run)["id"], "Received executor event with state success for task instance"

        def heard() -> bool | None:
            lines = self.airflow.console.read_text(errors="replace").splitlines()
            return any(told in line and (run.run_id in line or task_id in line) for line in lines) or None

        wait_for(f"the scheduler to hear of the end of {run}", heard, timeout=PATIENCE)

    def delete_run(self, run: Run) -> None:
        """Delete a run, and with it all that Airflow remembers of it."""
        self.airflow.api.call("DELETE", f"dags/{run.dag_id}/dagRuns/{quote(run.run_id)}")

    def payment(self, user: User) -> Payment:
        """Read the user's payment in the ledger."""
        engine = open_server(self.server) if self.server else open_file(self.airflow.home / "quoine" / "ledger.db")
        (payment,) = Ledger(engine, pin=Memory()).named(user.reference, Kind.WITHDRAWAL)
        return payment

    def payments(self, *commands: tuple[str, User, *tuple[str, ...]]) -> str:
        """
        Run ``airflow quoine payments`` on users' payments, one after another, and return what is said.

        :param commands: each is a command, the user, and options
        """
        return self.commands.run(
            *(("quoine", "payments", name, user.reference, "--why", "a test", *more) for name, user, *more in commands)
        )

    def wait_until_doubt_ends(self, user: User) -> None:
        """Wait until no request of the user's payment can be under way any more."""
        until = self.payment(user).in_doubt_until
        assert until is not None
        wait_for("the doubt to end", lambda: datetime.now(UTC) > until or None, timeout=PATIENCE)

    def _store(self, run: Run) -> str:
        task = self.task(run)["task_id"]
        return f"dags/{run.dag_id}/dagRuns/{quote(run.run_id)}/taskInstances/{task}/state-store"

    def wipe_state(self, run: Run) -> None:
        """Wipe the task state store of a run's task."""
        path = self._store(run)
        assert self.airflow.api.call("GET", path)["total_entries"] > 0
        self.airflow.api.call("DELETE", path)
        assert self.airflow.api.call("GET", path)["total_entries"] == 0

    def log(self, run: Run, try_number: int) -> str:
        """Read the log of one try. Each error in it is one line."""
        task, _ = self._tries(run)[0]
        folder = f"dag_id={run.dag_id}/run_id={run.run_id}/task_id={task}"
        return (self.airflow.logs / folder / f"attempt={try_number}.log").read_text().replace(r"\n", " ")

    def pay_by_hand(self, user: User) -> str:
        """Pay the user's order at the exchange, without Airflow and without the ledger; return the id."""
        key = UserCredentials.from_json(user.key)
        auth = ApiAuth(key.api_id, key.api_secret)
        with QuoineClient(base_url=self.exchange.url, auth=auth, connect_timeout=30, read_timeout=60) as client:
            client.request_auth_code(user_id=user.user_id)
            code = self.sandbox.latest_code(user.user_id)
            order = WithdrawalOrder.parse(amount=user.amount, address=ADDRESS)
            return client.create_withdrawal(order=order, auth_code=code).id

    def posts(self, user: User) -> int:
        """Count the requests to withdraw that the exchange has seen from a user."""
        seen = self.sandbox.state()["requests"]
        return sum((each["endpoint"], each["api_id"]) == (POST, user.user_id) for each in seen)

    def withdrawals(self, user: User) -> list[dict[str, Any]]:
        """List the withdrawals that the exchange has carried out for a user."""
        withdrawals = self.sandbox.state(requests=1)["withdrawals"]
        return [each for each in withdrawals if str(each["user_id"]) == user.user_id]


@contextmanager
def start_environment(folder: Path, *, server: URL | None = None) -> Iterator[Environment]:
    """
    Start the exchange, create its users, and start Airflow.

    :param folder: takes all files
    :param server: an empty database for the ledger; by default it is a file
    """
    # A code of five digits would occur by chance in any log.
    options = ["--manual", "--limit", str(REQUESTS), "--code-digits", "12", "--verbose"]
    with ExitStack() as stack:
        exchange = stack.enter_context(SandboxProcess(folder=folder, options=options))
        users = list(_users(exchange))
        settings = SETTINGS | {f"AIRFLOW_VAR_MONEY_KEY_{user.user_id}": user.key for user in users}
        settings |= {"AIRFLOW_VAR_MONEY_PASSWORD": PASSWORD}
        settings |= _connections(
            exchange, refused=stack.enter_context(_refusing_port()), silent=stack.enter_context(_silent_port())
        )
        settings |= _ledger(server) if server else {}
        port = free_port()
        settings |= {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/"}
        airflow = stack.enter_context(Standalone(home=folder / "airflow", dags=DAGS, settings=settings))
        commands = stack.enter_context(Commands(airflow))
        stack.enter_context(_tasks_api(airflow, port))
        yield Environment(
            airflow=airflow, exchange=exchange, users=users, folder=folder, commands=commands, server=server
        )


@contextmanager
def _tasks_api(airflow: Standalone, port: int) -> Iterator[None]:
    """
    Run a separate API server for the tasks.

    With a single server, both can block until SQLite's time-out: a person's call waits for the database lock and blocks
    the event loop, which a task's call needs to release that lock (seen with Airflow 3.3.2; other databases lock rows).
    """
    command = ["airflow", "api-server", "--apps", "execution", "--port", str(port)]
    with SupervisedProcess(
        command, env=airflow.env, cwd=airflow.home, console=airflow.home / "tasks_api.log"
    ) as process:

        def healthy() -> bool | None:
            assert not process.ended, "it ended unexpectedly: see tasks_api.log"
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
            return None

        wait_for("the tasks' API server", healthy, timeout=PATIENCE)
        yield


def _users(exchange: SandboxProcess) -> Iterator[User]:
    """Onboard the users."""
    document = Document(name="document.pdf", content=b"%PDF-")
    with QuoineClient(
        base_url=exchange.url, auth=ApiAuth("7", exchange.vendor_secret), connect_timeout=30, read_timeout=60
    ) as client:
        for number in range(USERS):
            form = OnboardingUser(
                first_name="Taro", last_name="Yamada", phone="09017901357", email=f"{number}@example.com", country="JP"
            )
            user_id = client.create_onboarding_user(
                user=form, password=PASSWORD, id_document=document, proof_address=document, bank_statement=document
            )
            exchange.control.approve(user_id)
            key = client.get_onboarding_status(user_id=user_id, password=PASSWORD).credentials
            assert key is not None
            yield User(user_id=user_id, amount=f"0.001{number:04}1", key=key.to_json())


def _connections(exchange: SandboxProcess, *, refused: str, silent: str) -> dict[str, str]:
    """Return connections: one with usual time-outs, one with short ones, one refused port, one silent port."""
    hosts = {"money": exchange.url, "money_brief": exchange.url, "money_refused": refused, "money_silent": silent}
    # With the brief one, an outcome is in doubt for 15 + 3 x 2 + 4 x 3 s: long enough for a test to ask too early.
    timeouts = {"money": (10, 20), "money_brief": (2, 3), "money_refused": (10, 20), "money_silent": (1, 2)}
    return {
        f"AIRFLOW_CONN_{name.upper()}": json.dumps(
            {
                "conn_type": "quoine",
                "host": host,
                "login": "7",
                "password": exchange.vendor_secret,
                "extra": {
                    "connect_timeout": timeouts[name][0],
                    "read_timeout": timeouts[name][1],
                    "request_limit": REQUESTS,
                    "withdrawal_addresses": ADDRESS,
                    "withdrawal_max": "unlimited",
                    "withdrawal_max_24h": "unlimited",
                    "withdrawal_count_24h": "unlimited",
                    "withdrawal_max_day": "unlimited",
                    "withdrawal_count_day": "unlimited",
                },
            }
        )
        for name, host in hosts.items()
    }


def _ledger(server: URL) -> dict[str, str]:
    """Return the settings by which Airflow finds a ledger in PostgreSQL."""
    connection = {
        "conn_type": "postgres",
        "host": server.host,
        "port": server.port,
        "login": server.username,
        "schema": server.database,
    }
    return {"AIRFLOW__QUOINE__LEDGER_CONN_ID": "money_ledger", "AIRFLOW_CONN_MONEY_LEDGER": json.dumps(connection)}


@contextmanager
def _refusing_port() -> Iterator[str]:
    """Return a URL whose port refuses every connection."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def _silent_port() -> Iterator[str]:
    """Return a URL whose port never answers: its backlog is full, and Linux ignores further SYNs."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
