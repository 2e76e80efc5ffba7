"""A real Airflow on this machine: API server, scheduler with LocalExecutor, triggerer and DAG processor on SQLite."""

from __future__ import annotations

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
from tools.kept import KeptProcess

SECONDS_TO_HEALTH = 240


@contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Find ports that are free on all addresses, held until the block ends so that they differ."""
    with ExitStack() as held:
        yield [held.enter_context(socket.create_server(("", 0))).getsockname()[1] for _ in range(count)]


def free_port(wanted: int = 0) -> int:
    """
    Find a free port.

    :param wanted: the one to take; 0 for any
    :raises OSError: saying so if the wanted one cannot be had
    """
    try:
        with socket.create_server(("127.0.0.1", wanted)) as listener:
            return int(listener.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise OSError(f"port {wanted} cannot be had ({error}): name another, as in PORT=8081") from None


class Standalone:
    """
    ``airflow standalone`` with a home of its own, healthy within the ``with`` block and gone after it.

    :param home: AIRFLOW_HOME; must not exist yet, so that nothing of an earlier run is seen
    :param dags: the DAGs folder
    :param port: of Airflow's page; 0 takes a free one
    :param settings: more environment variables, such as ``AIRFLOW_CONN_...`` or ``AIRFLOW__SECTION__KEY``
    """

    def __init__(self, *, home: Path, dags: Path, port: int = 0, settings: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.logs = home / "logs"
        self.console = home / "console.log"
        self.database = home / "airflow.db"
        port = free_port(port)
        self.url = f"http://127.0.0.1:{port}"
        self.api = AirflowApi(self.url)
        self.env = self._environment(dags, port) | dict(settings or {})
        self._process: KeptProcess | None = None

    def _environment(self, dags: Path, port: int) -> dict[str, str]:
        # Settings of whoever runs this must not reach in: no AIRFLOW__..., no AIRFLOW_CONN_....
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        # Compiling each import anew in each of a dozen processes was seen to hold up the triggerer's event loop.
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)
        with free_ports(3) as (worker_logs, trigger_logs, health):
            ours = {
                "AIRFLOW_HOME": self.home,
                "AIRFLOW__CORE__DAGS_FOLDER": dags,
                "AIRFLOW__CORE__LOAD_EXAMPLES": False,
                "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
                "AIRFLOW__CORE__PARALLELISM": 4,
                # SQLite gives up after 5 s unless told otherwise; Airflow's first requests were seen to hold it for 8.
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}?timeout=60",
                "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": True,
                "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
                # Without these two, any port but 8080 lets every task die of a ConnectError.
                "AIRFLOW__API__BASE_URL": self.url,
                "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
                "AIRFLOW__API__HOST": "127.0.0.1",
                "AIRFLOW__API__PORT": port,
                "AIRFLOW__API__WORKERS": 1,
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

        :raises RuntimeError: naming the console's file, if Airflow ends or is not healthy in time
        """
        self.home.mkdir(parents=True)
        self._process = KeptProcess(["airflow", "standalone"], env=self.env, cwd=self.home, console=self.console)
        try:
            wait_for("Airflow", self._healthy, timeout=SECONDS_TO_HEALTH)
            self.api.login()
        except TimeoutError as error:
            self.stop()
            raise RuntimeError(f"{error}; what it said is in {self.console}") from None
        except BaseException:
            self.stop()
            raise

    def _healthy(self) -> bool | None:
        if self._process is None or self._process.ended:
            raise RuntimeError(f"Airflow ended by itself; what it said is in {self.console}")
        return self.api.healthy() or None

    def stop(self) -> None:
        """End Airflow and all that it started."""
        self.api.close()
        if self._process is not None:
            self._process.stop()

    def processes(self) -> list[psutil.Process]:
        """List Airflow's processes, the workers and tasks among them."""
        return self._process.processes() if self._process else []

    def parked(self, dag_id: str, run_id: str, task_id: str, *, state: str = "awaiting_input", times: int = 1) -> bool:
        """
        Whether a task waits for a person, or is deferred, and the scheduler has seen its worker end.

        An answer before that lets Airflow fail the task: the scheduler finds it queued again, and takes the end of
        the worker that parked it for a mismatch (seen 5 s after parking, on a busy machine). Nothing but the
        scheduler's console tells.

        :param state: ``awaiting_input`` or ``deferred``
        :param times: how often it has been parked up to now
        """
        words = f"TaskInstance Finished: dag_id={dag_id}, task_id={task_id}, run_id={run_id},"
        lines = self.console.read_text(errors="replace").splitlines()
        return sum(words in line and f"state={state}," in line for line in lines) >= times

    def run(self, *arguments: str) -> str:
        """
        Run one command in this Airflow's environment, such as ``airflow variables list``.

        :return: what it printed
        :raises subprocess.CalledProcessError: if it fails; its words are in ``stderr``
        """
        done = subprocess.run(
            arguments, env=self.env, cwd=self.home, check=True, timeout=120, capture_output=True, text=True
        )
        return done.stdout
