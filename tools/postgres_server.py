"""A separate PostgreSQL server: empty, on a free port, run by an unprivileged user."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil
from sqlalchemy import URL

from tools.airflow_api import wait_for
from tools.standalone import free_port

#: PostgreSQL refuses to run as root. Debian's package makes this user.
USER = "postgres"


class PostgresServer:
    """
    Runs PostgreSQL within the ``with`` block; it can be killed and started again there.

    :param fsync: whether commits reach the disk. The death of a process, unlike that of a machine, loses none anyway.
    :raises FileNotFoundError: if it is not installed
    """

    def __init__(self, *, fsync: bool = False) -> None:
        self._fsync = "on" if fsync else "off"
        self.port = free_port()
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PostgresServer:
        self._programs = _programs()
        self._folder = Path(tempfile.mkdtemp(prefix="quoine-postgres-"))
        self._user = USER if os.geteuid() == 0 else None
        if self._user:
            os.chown(self._folder, pwd.getpwnam(USER).pw_uid, -1)
        self._run(
            "initdb", "--pgdata", "data", "--auth", "trust", "--username", "quoine", "--encoding", "UTF8", "--no-sync"
        )
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        options = ["-D", "data", "-p", str(self.port), "-k", str(self._folder), "-c", "listen_addresses=127.0.0.1"]
        command = [
            str(self._programs / "postgres"),
            *options,
            "-c",
            "max_connections=200",
            "-c",
            f"fsync={self._fsync}",
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, user=self._user, stdout=log, stderr=log)
        wait_for("PostgreSQL", self._answers, timeout=120, pause=0.02)

    def kill(self) -> None:
        """Kill all processes of the server (SIGKILL), as a failing machine would."""
        if self._process is not None:
            children = psutil.Process(self._process.pid).children()
            self._process.kill()
            for child in children:
                # One may have ended by itself since.
                with suppress(psutil.NoSuchProcess):
                    child.send_signal(signal.SIGKILL)
            self._process.wait()
            psutil.wait_procs(children, timeout=60)
            self._process = None

    def new_database(self) -> URL:
        """Make an empty database, and return its URL for SQLAlchemy."""
        name = f"ledger_{next(self._numbers)}"
        self._run("createdb", "--host", "127.0.0.1", "--port", str(self.port), "--username", "quoine", name)
        return URL.create("postgresql+psycopg", username="quoine", host="127.0.0.1", port=self.port, database=name)

    def _run(self, program: str, *options: str) -> None:
        command = [str(self._programs / program), *options]
        done = subprocess.run(command, cwd=self._folder, user=self._user, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")

    def _answers(self) -> bool | None:
        command = [str(self._programs / "pg_isready"), "--quiet", "--host", "127.0.0.1", "--port", str(self.port)]
        return subprocess.run(command).returncode == 0 or None


def _programs() -> Path:
    """Find PostgreSQL's programs; Debian keeps them out of the path, by version."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    for folder in reversed(folders):
        if (folder / "initdb").exists():
            return folder
    raise FileNotFoundError("PostgreSQL is not installed: apt-get install postgresql")
