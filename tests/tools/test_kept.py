"""A kept command leaves nothing behind, however it or its starter ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tools.airflow_api import wait_for
from tools.kept import KeptProcess

ROOT = Path(__file__).resolve().parents[2]
#: A command with two descendants in sessions of their own, whose parents are gone: no process group holds them.
SPREADS = ["sh", "-c", "setsid sleep 1000 & setsid sleep 1000 & echo started; exec sleep 1000"]
DEAF = ["sh", "-c", "trap '' TERM; exec sleep 1000"]


def alive(pids: list[int]) -> list[int]:
    """List those that live, zombies left out."""
    return [each.pid for each in psutil.process_iter() if each.pid in pids and each.status() != psutil.STATUS_ZOMBIE]


def sleepers(process: psutil.Process) -> list[int]:
    """Its descendants that have got as far as sleeping."""
    return [each.pid for each in process.children(recursive=True) if each.name() == "sleep"]


def test_stopping_ends_descendants_in_sessions_of_their_own(tmp_path: Path) -> None:
    with KeptProcess(SPREADS, env=os.environ, cwd=tmp_path, console=tmp_path / "console") as kept:
        wait_for("three sleepers", lambda: len(kept.processes()) == 3 or None, timeout=20)
        pids = [process.pid for process in kept.processes()]
        assert not kept.ended
    assert alive(pids) == []
    assert kept.ended
    assert (tmp_path / "console").read_text() == "started\n"


def test_what_does_not_hear_term_is_killed(tmp_path: Path) -> None:
    with KeptProcess(DEAF, env=os.environ, cwd=tmp_path, console=tmp_path / "console") as kept:
        wait_for("the sleeper", lambda: [each.name() for each in kept.processes()] == ["sleep"] or None, timeout=20)
        pids = [process.pid for process in kept.processes()]
    assert alive(pids) == []


def test_a_command_that_ends_takes_its_descendants_along(tmp_path: Path) -> None:
    leaves = ["sh", "-c", "setsid sleep 1000 & echo $!"]
    with KeptProcess(leaves, env=os.environ, cwd=tmp_path, console=tmp_path / "console") as kept:
        wait_for("the keeper's end", lambda: kept.ended or None, timeout=20)
        assert alive([int((tmp_path / "console").read_text())]) == []


def test_killing_the_starter_ends_everything(tmp_path: Path) -> None:
    starter = f"""
import os, time
from pathlib import Path
from tools.kept import KeptProcess
here = Path({str(tmp_path)!r})
kept = KeptProcess({SPREADS!r}, env=os.environ, cwd=here, console=here / "console")
time.sleep(1000)
"""
    process = subprocess.Popen([sys.executable, "-c", starter], cwd=ROOT)
    pids: list[int] = []
    try:

        def spread() -> bool | None:
            pids[:] = sleepers(psutil.Process(process.pid))
            return len(pids) == 3 or None

        wait_for("three sleepers", spread, timeout=20)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    wait_for("the sleepers' end", lambda: not alive(pids) or None, timeout=20, pause=0.1)
