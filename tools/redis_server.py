"""A Redis of one's own: empty, on a free port, keeping nothing on the disk."""

from __future__ import annotations

import shutil
import socket
import subprocess
from types import TracebackType

from tools.airflow_api import wait_for
from tools.standalone import free_port


class RedisServer:
    """
    ``redis-server``, started and stopped at will; within the ``with`` block it runs.

    :raises FileNotFoundError: saying how to install it.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = shutil.which("redis-server")
        if program is None:
            raise FileNotFoundError("There is no redis-server: apt-get install redis-server")
        options = ["--port", str(self.port), "--save", "", "--bind", "127.0.0.1"]
        self._process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        wait_for("Redis", self._answers, timeout=30, pause=0.01)

    def stop(self) -> None:
        """Kill it: it says goodbye to nobody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool | None:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return None
        return True
