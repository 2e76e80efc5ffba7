"""A real Airflow on this machine: API server, scheduler with LocalExecutor, triggerer and DAG processor on SQLite."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

import psutil
from cryptography.fernet import Fernet

from tools.airflow_api import AirflowApi, wait_for
from tools.supervised_process import SupervisedProcess

SECONDS_TO_HEALTH = 400
#: Settings of an Airflow whose DAG files nobody changes. By default it reads each one every 30 s, which takes half a
#: second of the processor.
READ_DAGS_ONCE = {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600"}
#: Run in Airflow's environment, which has the key of its Variables.
READ_VARIABLES = """
import json
from airflow.models import Variable
from airflow.utils.session import create_session
with create_session() as session:
    print(json.dumps({each.key: each.get_val() for each in session.query(Variable)}))
"""


@contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Find ports that are free on all addresses. They are held until the block ends, so that they differ."""
    with ExitStack() as held:
        yield [held.enter_context(socket.create_server(("", 0))).getsockname()[1] for _ in range(count)]


def free_port(wanted: int = 0) -> int:
    """
    Find a free port.

    :param wanted: a certain port; 0 for any
    :raises OSError: if the wanted port is not available
    """
    try:
        with socket.create_server(("127.0.0.1", wanted)) as listener:
            return int(listener.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise OSError(f"port {wanted} is not available ({error}): choose another, as in PORT=8081") from None


class Standalone:
    """
    Runs ``airflow standalone`` with a home of its own within the ``with`` block, which begins once Airflow is healthy.

    :param home: AIRFLOW_HOME; must not exist yet, so that nothing of an earlier run is left in it
    :param dags: the DAGs folder
    :param port: port of Airflow's page; 0 takes a free one
    :param path: of Airflow's page, as behind a proxy: ``/airflow``
    :param people: names of people and their roles, who log in with their name as password; without them, everybody is
        an admin
    :param settings: further environment variables, such as ``AIRFLOW_CONN_...`` or ``AIRFLOW__SECTION__KEY``
    """

    def __init__(
        self,
        *,
        home: Path,
        dags: Path,
        port: int = 0,
        path: str = "",
        people: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home
        self.logs = home / "logs"
        self.console = home / "console.log"
        self.database = home / "airflow.db"
        port = free_port(port)
        self.url = f"http://127.0.0.1:{port}{path}"
        self.people = dict(people or {})
        self.api = AirflowApi(self.url)
        self.env = self._environment(dags, port) | dict(settings or {})
        self._process: SupervisedProcess | None = None

    def _environment(self, dags: Path, port: int) -> dict[str, str]:
        # Settings of the caller's own Airflow are left out: AIRFLOW__..., AIRFLOW_CONN_...
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        # Without bytecode files, a dozen processes compile every import, which was seen to block the triggerer's loop.
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)
        with free_ports(3) as (worker_logs, trigger_logs, health):
            ours = {
                "AIRFLOW_HOME": self.home,
                "AIRFLOW__CORE__DAGS_FOLDER": dags,
                "AIRFLOW__CORE__LOAD_EXAMPLES": False,
                "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
                "AIRFLOW__CORE__PARALLELISM": 4,
                # SQLite's default is 5 s, but Airflow's first requests were seen to hold the lock for 8 s.
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}?timeout=60",
                "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": not self.people,
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
                    f"{name}:{role}" for name, role in self.people.items()
                ),
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": self.home / "passwords.json",
                "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
                # Without these two, every task fails with a ConnectError on any port but 8080.
                "AIRFLOW__API__BASE_URL": self.url,
                "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
                "AIRFLOW__API__HOST": "127.0.0.1",
                "AIRFLOW__API__PORT": port,
                "AIRFLOW__API__WORKERS": 1,
                # On a busy machine the first answers take longer than the default of 5 s; after four, a task fails.
                "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": 60,
                # Nor is a DAG broken whose imports take longer than 30 s there, or whose file takes longer than 50 s.
                "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": 120,
                "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": SECONDS_TO_HEALTH,
                "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
                "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
                "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": worker_logs,
                "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": trigger_logs,
                "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": health,
                "NO_COLOR": 1,
                # `airflow standalone` starts its parts by name.
                "PATH": f"{Path(sys.executable).parent}:{inherited.get('PATH', os.defpath)}",
                "PYTHONUNBUFFERED": 1,
            }
        return inherited | {name: str(value) for name, value in ours.items()}

    def __enter__(self) -> Standalone:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """
        Start, and wait until all parts are healthy.

        :raises RuntimeError: naming the log, if Airflow ends or is not healthy in time
        """
        self.home.mkdir(parents=True)
        (self.home / "passwords.json").write_text(json.dumps({name: name for name in self.people}))
        self._process = SupervisedProcess(["airflow", "standalone"], env=self.env, cwd=self.home, console=self.console)
        try:
            wait_for("Airflow", self._healthy, timeout=SECONDS_TO_HEALTH)
            self.api.login(next(iter(self.people), None))
        except TimeoutError as error:
            self.stop()
            raise RuntimeError(f"{error}; its output is in {self.console}") from None
        except BaseException:
            self.stop()
            raise

    def _healthy(self) -> bool | None:
        self.check_running()
        return self.api.healthy() or None

    def check_running(self) -> None:
        """
        Check that it has not ended.

        :raises RuntimeError: naming the log, if it has
        """
        if self._process is None or self._process.ended:
            raise RuntimeError(f"Airflow has ended; its output is in {self.console}")

    def stop(self) -> None:
        """End Airflow and all its descendants."""
        self.api.close()
        if self._process is not None:
            self._process.stop()

    def processes(self) -> list[psutil.Process]:
        """List Airflow's processes, including workers and tasks."""
        return self._process.processes() if self._process else []

    def is_suspended(
        self, dag_id: str, run_id: str, task_id: str, *, state: str = "awaiting_input", times: int = 1
    ) -> bool:
        """
        Tell whether a task is suspended (it waits for a person, or is deferred) and its worker's end was noticed.

        A task that is resumed earlier fails: the scheduler finds it queued again, and reports the end of the previous
        worker as a mismatch (seen 5 s after a suspension, on a busy machine). Only the scheduler's output tells.

        :param dag_id: the DAG
        :param run_id: the run
        :param task_id: the task
        :param state: ``awaiting_input`` or ``deferred``
        :param times: how often the task has been suspended so far
        """
        text = f"TaskInstance Finished: dag_id={dag_id}, task_id={task_id}, run_id={run_id},"
        lines = self.console.read_text(errors="replace").splitlines()
        return sum(text in line and f"state={state}," in line for line in lines) >= times

    def run(self, *arguments: str) -> str:
        """
        Run one command in this Airflow's environment, such as ``airflow variables list``.

        :param arguments: program and arguments
        :return: its standard output
        :raises subprocess.CalledProcessError: if it fails; ``stderr`` has its messages
        """
        done = subprocess.run(
            arguments, env=self.env, cwd=self.home, check=True, timeout=300, capture_output=True, text=True
        )
        return done.stdout

    def variables(self) -> dict[str, str]:
        """Read all Variables, decrypted, by their names."""
        found: dict[str, str] = json.loads(self.run(sys.executable, "-c", READ_VARIABLES).splitlines()[-1])
        return found
