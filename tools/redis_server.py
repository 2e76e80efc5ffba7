"""A separate Redis server: empty, on a free port, without persistence."""

from __future__ import annotations

import shutil
import socket
import subprocess
from types import TracebackType

from tools.airflow_api import wait_for
from tools.standalone import free_port


class RedisServer:
    """
    Runs ``redis-server`` within the ``with`` block; it can be stopped and started again there.

    :raises FileNotFoundError: if it is not installed
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
        """Start the server, and wait until it accepts connections."""
        program = shutil.which("redis-server")
        if program is None:
            raise FileNotFoundError("redis-server is not installed: apt-get install redis-server")
        options = ["--port", str(self.port), "--save", "", "--bind", "127.0.0.1"]
        self._process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        wait_for("Redis", self._answers, timeout=120, pause=0.01)

    def stop(self) -> None:
        """Kill the server, without a shutdown."""
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
