"""Lanes show what failed whole, stop before the next stage, and leave nothing behind."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tools import lanes
from tools.airflow_api import wait_for
from tools.supervised_process import SupervisedProcess

ROOT = Path(__file__).resolve().parents[2]
#: Stands in for ``make``.
MAKE = """#!/bin/sh
case $1 in
    good) seq 100 199; echo "ONCE=$ONCE";;
    bad) seq 200 299; exit 2;;
    endless) setsid sleep 1000 & exec sleep 1000;;
esac
"""


@pytest.fixture(autouse=True)
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put a program that is called ``make`` in front of the real one; restore what SIGTERM does."""
    (tmp_path / "make").write_text(MAKE)
    (tmp_path / "make").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(lanes, "SETTINGS", {"good": {"ONCE": "1"}})
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_what_passes_is_shown_by_its_last_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lanes, "STAGES", ((("good",),),))
    assert lanes.main() == 0
    printed = capsys.readouterr().out
    assert "\n199\nONCE=1\n" in printed
    assert "\n100\n" not in printed
    assert re.search(r"\ngood +\d+ s  passed\nall +\d+ s  passed\n$", printed)


def test_a_failure_is_shown_whole_and_ends_all_after_its_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lanes, "STAGES", ((("bad", "good"),), (("endless",),)))
    assert lanes.main() == 1
    printed = capsys.readouterr().out
    assert "\n200\n" in printed
    assert "\n299\n" in printed
    assert re.search(
        r"\nbad +\d+ s  FAILED \(2\)\ngood +\d+ s  passed\nendless +not run\nall +\d+ s  FAILED\n$", printed
    )


def test_a_check_that_cannot_be_started_fails_in_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lanes, "STAGES", ((("bad", "good"), ("good",)), (("endless",),)))

    def start(command: list[str], **settings: Any) -> Any:
        if command == ["make", "bad"]:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return SupervisedProcess(command, **settings)

    monkeypatch.setattr(lanes, "SupervisedProcess", start)
    assert lanes.main() == 1
    printed = capsys.readouterr().out
    assert "It could not be started: [Errno 11] Resource temporarily unavailable" in printed
    assert re.search(r"\nbad +0 s  FAILED \(127\)\ngood +\d+ s  passed\n", printed)
    assert re.search(r"\nendless +not run\nall +\d+ s  FAILED\n$", printed)


def test_a_signal_ends_every_process() -> None:
    script = (
        "import sys; from tools import lanes; lanes.STAGES = ((('endless',), ('endless',)),); sys.exit(lanes.main())"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.DEVNULL)
    me = psutil.Process(process.pid)

    def sleepers() -> list[psutil.Process] | None:
        found = [each for each in me.children(recursive=True) if each.name() == "sleep"]
        return found if len(found) == 4 else None

    found = wait_for("four sleepers", sleepers, timeout=20)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 130
    assert [each for each in found if each.is_running()] == []
