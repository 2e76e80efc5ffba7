"""A supervised command leaves no process behind, however it or its starter ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tools.airflow_api import wait_for
from tools.supervised_process import NICENESS_OF_SESSION, SupervisedProcess

ROOT = Path(__file__).resolve().parents[2]
#: A command with two descendants in sessions of their own, whose parents have ended: no process group contains them.
DETACHES = ["sh", "-c", "setsid sleep 1000 & setsid sleep 1000 & echo started; exec sleep 1000"]
IGNORES_TERM = ["sh", "-c", "trap '' TERM; exec sleep 1000"]


def alive(pids: list[int]) -> list[int]:
    """List those that are running, without zombies."""
    return [each.pid for each in psutil.process_iter() if each.pid in pids and each.status() != psutil.STATUS_ZOMBIE]


def sleepers(process: psutil.Process) -> list[int]:
    """List its descendants that have started to sleep."""
    return [each.pid for each in process.children(recursive=True) if each.name() == "sleep"]


def test_stopping_ends_descendants_in_sessions_of_their_own(tmp_path: Path) -> None:
    with SupervisedProcess(DETACHES, env=os.environ, cwd=tmp_path, console=tmp_path / "console") as process:
        wait_for("three sleepers", lambda: len(process.processes()) == 3 or None, timeout=100)
        pids = [each.pid for each in process.processes()]
        assert not process.ended
    assert alive(pids) == []
    assert process.ended
    assert (tmp_path / "console").read_text() == "started\n"


def test_a_command_that_ignores_term_is_killed(tmp_path: Path) -> None:
    console = tmp_path / "console"
    with SupervisedProcess(IGNORES_TERM, env=os.environ, cwd=tmp_path, console=console, stop_timeout=0.5) as process:
        wait_for("the sleeper", lambda: [each.name() for each in process.processes()] == ["sleep"] or None, timeout=100)
        pids = [each.pid for each in process.processes()]
    assert alive(pids) == []


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("exit 3", 3), ("kill -9 $$", 128 + 9)])
def test_the_exit_code_is_that_of_the_command(tmp_path: Path, command: str, code: int) -> None:
    console = tmp_path / "console"
    with SupervisedProcess(["sh", "-c", command], env=os.environ, cwd=tmp_path, console=console) as process:
        assert process.wait() == code


@pytest.mark.skipif(not NICENESS_OF_SESSION.exists(), reason="this kernel knows niceness of processes only")
def test_a_session_is_nice_as_a_whole(tmp_path: Path) -> None:
    tells = ["sh", "-c", f"nice; cat {NICENESS_OF_SESSION}"]
    script = f"""
import os
from pathlib import Path
from tools.supervised_process import SupervisedProcess
os.nice(1)
here = Path({str(tmp_path)!r})
with SupervisedProcess({tells!r}, env=os.environ, cwd=here, console=here / "console", nice=3) as process:
    process.wait()
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=100)
    # One and three more than this one; there is none above 19.
    told = min(os.nice(0) + 1 + 3, 19)
    assert re.fullmatch(rf"{told}\n/autogroup-\d+ nice {told}\n", (tmp_path / "console").read_text())


def test_a_command_that_ends_takes_its_descendants_along(tmp_path: Path) -> None:
    leaves = ["sh", "-c", "setsid sleep 1000 & echo $!"]
    with SupervisedProcess(leaves, env=os.environ, cwd=tmp_path, console=tmp_path / "console") as process:
        wait_for("the supervisor's end", lambda: process.ended or None, timeout=100)
        assert alive([int((tmp_path / "console").read_text())]) == []


def test_killing_the_starter_ends_everything(tmp_path: Path) -> None:
    starter = f"""
import os, time
from pathlib import Path
from tools.supervised_process import SupervisedProcess
here = Path({str(tmp_path)!r})
supervised = SupervisedProcess({DETACHES!r}, env=os.environ, cwd=here, console=here / "console")
time.sleep(1000)
"""
    process = subprocess.Popen([sys.executable, "-c", starter], cwd=ROOT)
    pids: list[int] = []
    try:

        def started() -> bool | None:
            pids[:] = sleepers(psutil.Process(process.pid))
            return len(pids) == 3 or None

        wait_for("three sleepers", started, timeout=100)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=100)
    wait_for("the sleepers' end", lambda: not alive(pids) or None, timeout=100, pause=0.1)
