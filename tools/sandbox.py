"""The sandbox exchange in a process of its own, started by its command."""

from __future__ import annotations

import os
import secrets
import sys
import urllib.error
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from airflow_provider_quoine.sandbox.control import SandboxControl
from tools.airflow_api import wait_for
from tools.standalone import free_port
from tools.supervised_process import SupervisedProcess

SECONDS_TO_START = 120
#: The only address on the connection's allow-list: a valid test vector of BIP 173.
ADDRESS = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"


class SandboxProcess:
    """
    Runs ``quoine-sandbox`` on a free port within the ``with`` block.

    :param folder: folder for its log
    :param options: further arguments of the command
    """

    def __init__(self, *, folder: Path, options: Sequence[str] = ()) -> None:
        self.console = folder / "sandbox.log"
        self.vendor_secret = secrets.token_urlsafe(48)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.control = SandboxControl(self.url)
        self._options = list(options)
        self._folder = folder
        self._process: SupervisedProcess | None = None

    @property
    def connection(self) -> dict[str, Any]:
        """The vendor's Airflow connection, for :meth:`tools.airflow_api.AirflowApi.create_connection`."""
        return {
            "conn_type": "quoine",
            "host": self.url,
            "login": "7",
            "password": self.vendor_secret,
            "extra": {
                "pusher_key": "quoine-sandbox",
                "pusher_host": "127.0.0.1",
                "pusher_port": self._port,
                "pusher_tls": False,
                "withdrawal_addresses": ADDRESS,
                "withdrawal_max": "unlimited",
                "withdrawal_max_24h": "unlimited",
                "withdrawal_count_24h": "unlimited",
                "withdrawal_max_day": "unlimited",
                "withdrawal_count_day": "unlimited",
                "withdrawal_link": f"{self.url}/#withdrawal-{{id}}",
            },
        }

    def __enter__(self) -> SandboxProcess:
        command = [sys.executable, "-m", "airflow_provider_quoine.sandbox", "--port", str(self._port), *self._options]
        own_secrets = {
            "QUOINE_SANDBOX_VENDOR_SECRET": self.vendor_secret,
            "QUOINE_SANDBOX_PUSHER_SECRET": secrets.token_urlsafe(48),
        }
        env = os.environ | {**own_secrets, "PYTHONUNBUFFERED": "1"}
        self._process = SupervisedProcess(command, env=env, cwd=self._folder, console=self.console)
        try:
            wait_for("the sandbox", self._serves, timeout=SECONDS_TO_START, pause=0.1)
        except BaseException:
            self._process.stop()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.stop()

    def _serves(self) -> bool | None:
        if self._process is None or self._process.ended:
            raise RuntimeError(f"The sandbox ended unexpectedly; its output is in {self.console}")
        try:
            self.control.state(requests=1)
        except urllib.error.URLError:
            return None
        return True
