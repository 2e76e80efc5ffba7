"""
A process that has loaded everything and forks the lives of captures, so that a life starts within a moment.

It reads the arguments of a trigger and the stream's timing as lines of JSON, and says the process id of each life, and
the event of each that comes to its end.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow_provider_quoine.exchange.stream import pusher
from airflow_provider_quoine.triggers.capture import QuoineCaptureTrigger

ROOT = Path(__file__).resolve().parents[2]


class Lives:
    """Lives of captures, each a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, spec: Mapping[str, Any], timing: Mapping[str, float]) -> int:
        """Start one; return its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([spec, timing]) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def event(self) -> dict[str, Any]:
        """Wait for a life's end, and return its event."""
        event: dict[str, Any] = json.loads(self._line())
        return event

    def load(self) -> None:
        """Wait until everything is loaded."""
        while self._line() != "ready":
            pass

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that starts the lives has ended"
        return line.strip()


@contextmanager
def lives(env: Mapping[str, str]) -> Iterator[Lives]:
    """Load everything in a process with an environment; it and all lives are killed in the end."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.support.capture_lives"],
        cwd=ROOT,
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Lives(process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def _live(spec: dict[str, Any], timing: pusher.StreamTiming) -> dict[str, Any]:
    pusher.StreamTiming = lambda **_: timing  # type: ignore[assignment,misc]  # instead of the connection's
    events = [event async for event in QuoineCaptureTrigger(quoine_conn_id="quoine_default", spec=spec).run()]
    payload: dict[str, Any] = events[0].payload
    return payload


def main() -> None:
    """Fork a life for each line."""
    # Nobody waits for the killed.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _say("ready")
    for line in sys.stdin:
        spec, timing = json.loads(line)
        life = os.fork()
        if life == 0:
            said = os.dup(sys.stdout.fileno())
            # Airflow logs there.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            event = asyncio.run(_live(spec, pusher.StreamTiming(**timing)))
            os.write(said, f"{json.dumps(event)}\n".encode())
            os._exit(0)
        _say(str(life))


if __name__ == "__main__":
    main()
