"""A capture under faults: its connection is cut in every way, and its process is killed and started again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.support.capture_lives import lives

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
) -> int:
    """
    Capture one order book, with faults.

    :param folder: where the files go.
    :param home: of Airflow.
    :param cut_every: seconds between two cuts of the connection.
    :param kill_at: seconds from the beginning at which the process is killed, and another one started.
    :param timing: fields of the stream's ``StreamTiming``.
    :return: how often the connection was cut.
    :raises RuntimeError: if the capture did not succeed.
    """
    settings = SandboxSettings(market_rate=10, activity_timeout=1)
    with SandboxServer(settings) as sandbox:
        env = os.environ | {"AIRFLOW_HOME": str(home), "AIRFLOW_CONN_QUOINE_DEFAULT": sandbox.airflow_connection()}
        with lives(env) as processes:
            processes.load()
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
            life = processes.start(arguments, timing)
            faults, kills, cut_at, cuts = cycle(enumerate(CUTS)), list(kill_at), cut_every, 0
            while (now := time.monotonic() - began) < duration:
                if kills and now >= kills[0]:
                    kills.pop(0)
                    os.kill(life, signal.SIGKILL)
                    life = processes.start(arguments, timing)
                elif now >= cut_at:
                    number, cut = next(faults)
                    sandbox.control.fault(**cut)
                    if number % 3 == 2:
                        sandbox.control.fault(**RECONNECT_FAULTS[number // 3 % len(RECONNECT_FAULTS)])
                    cut_at, cuts = cut_at + cut_every, cuts + 1
                time.sleep(min(0.05, cut_every))
            event = processes.event()
            if event["status"] != "success":
                raise RuntimeError(f"The capture failed: {event}")
            return cuts
