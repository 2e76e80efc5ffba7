"""A capture under faults: its connection is cut in every way, and its process is killed and started again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import Any

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings

ROOT = Path(__file__).resolve().parents[1]

CUTS: tuple[dict[str, Any], ...] = (
    {"kind": "close", "endpoint": "stream"},
    {"kind": "close", "endpoint": "stream", "abrupt": True},
    {"kind": "close", "endpoint": "stream", "code": 4100},
    {"kind": "close", "endpoint": "stream", "code": 4200},
    {"kind": "close", "endpoint": "stream", "code": 1001},
    {"kind": "silence", "endpoint": "stream"},
    {"kind": "pusher_error", "endpoint": "stream", "code": 4100, "message": "Over capacity"},
    {"kind": "pusher_error", "endpoint": "stream", "code": 4201, "message": "Pong reply not received in time"},
    {"kind": "pusher_error", "endpoint": "stream", "message": "A complaint that ends nothing"},
    {"kind": "refuse", "seconds": 1.0},
)
"""Every way in which a connection ends that a new one mends (pusher, Protocol 7; pusher, Defects of pysher)."""

RECONNECT_FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "silence", "endpoint": "stream", "when": "connect"},
    {"kind": "close", "endpoint": "stream", "when": "subscribe", "abrupt": True},
    {"kind": "pusher_error", "endpoint": "stream", "when": "connect", "code": 4100, "message": "Over capacity"},
)
"""Faults that also hit the connection after every third cut."""

SECONDS_TO_LOAD = 120


class Worker:
    """
    A process that loads, waits, and then runs a capture trigger.

    :param env: its environment.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tools.capture_worker"],
            cwd=ROOT,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def load(self) -> None:
        """Wait until it is loaded."""
        if "ready" not in self._line():
            raise RuntimeError("The process of the capture did not start")

    def start(self, arguments: Mapping[str, Any], timing: Mapping[str, float]) -> None:
        """Let it run."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(arguments)}\n{json.dumps(timing)}\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, and the end of its pipes."""
        self._process.kill()
        self._process.communicate()

    def event(self) -> dict[str, Any]:
        """Wait for the trigger's event."""
        event: dict[str, Any] = json.loads(self._line())
        return event

    def _line(self) -> str:
        assert self._process.stdout is not None
        # Airflow may say something of its own on the way.
        while (line := self._process.stdout.readline()) and not line.startswith(("ready", "{")):
            pass
        if not line:
            raise RuntimeError("The process of the capture ended")
        return line


def capture_under_faults(
    *,
    folder: Path,
    home: Path,
    duration: float,
    interval: float,
    part_seconds: float,
    cut_every: float,
    kill_at: Sequence[float],
    timing: Mapping[str, float],
) -> tuple[dict[str, Any], dict[str, Any], int]:
    """
    Capture one order book, with faults.

    :param folder: where the files go.
    :param home: of Airflow.
    :param cut_every: seconds between two cuts of the connection.
    :param kill_at: seconds from the beginning at which the process is killed; the next one is loaded by then.
    :param timing: fields of the stream's ``StreamTiming``.
    :return: the capture's specification, the summary in its event, and how often the connection was cut.
    :raises RuntimeError: if the capture did not succeed.
    """
    settings = SandboxSettings(market_rate=10, activity_timeout=1)
    with SandboxServer(settings) as sandbox:
        env = os.environ | {"AIRFLOW_HOME": str(home), "AIRFLOW_CONN_QUOINE_DEFAULT": sandbox.airflow_connection()}
        workers = [Worker(env)]
        workers[0].load()
        began = time.monotonic()
        arguments = {
            "stream": "order_book",
            "pair": "btcjpy",
            "depth": 5,
            "interval": interval,
            "duration": duration,
            "part_seconds": part_seconds,
            "folder": str(folder),
            "file_format": "jsonl",
            "began_at": datetime.now(UTC).isoformat(),
        }
        try:
            workers[0].start(arguments, timing)
            faults, kills, cut_at, cuts = cycle(enumerate(CUTS)), list(kill_at), cut_every, 0
            while (now := time.monotonic() - began) < duration:
                if kills and len(workers) == 1:
                    workers.append(Worker(env))
                if kills and now >= kills[0]:
                    kills.pop(0)
                    workers.pop(0).kill()
                    workers[0].load()
                    workers[0].start(arguments, timing)
                elif now >= cut_at:
                    number, cut = next(faults)
                    sandbox.control.fault(**cut)
                    if number % 3 == 2:
                        sandbox.control.fault(**RECONNECT_FAULTS[number // 3 % len(RECONNECT_FAULTS)])
                    cut_at, cuts = cut_at + cut_every, cuts + 1
                time.sleep(min(0.05, cut_every))
            event = workers[0].event()
            if event["status"] != "success":
                raise RuntimeError(f"The capture failed: {event}")
            return arguments, event["result"], cuts
        finally:
            for worker in workers:
                worker.kill()
