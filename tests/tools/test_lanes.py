"""Lanes show what failed whole, stop before the next stage, and leave nothing behind."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
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
AGAIN, ALONE, NICE = lanes.AGAIN, lanes.ALONE, lanes.NICE
#: Stands in for ``make``.
MAKE = """#!/bin/sh
case $1 in
    good) seq 100 199; echo "ONCE=$ONCE, nice $(nice)";;
    bad) seq 200 299; exit 2;;
    endless) setsid sleep 1000 & exec sleep 1000;;
    tests)
        mkdir -p "${PYTEST_ADDOPTS##*cache_dir=}/v/cache"
        echo "$FAILED" > "${PYTEST_ADDOPTS##*cache_dir=}/v/cache/lastfailed"
        echo "make: *** [Makefile:1: tests] Error $ENDED"
        exit 2;;
esac
"""
#: Stands in for ``pytest``: tests that are called flaky pass now.
PYTEST = """#!/bin/sh
for test; do echo "again $test"; done
case "$*" in *broken*) exit 1;; esac
"""
FLAKY, BROKEN = "tests/test_a.py::test_flaky[a b]", "tests/test_a.py::test_broken"


@pytest.fixture(autouse=True)
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put a program that is called ``make`` in front of the real one; restore what SIGTERM does."""
    for name, script in (("make", MAKE), ("pytest", PYTEST)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(lanes, "AGAIN", {"tests": str(tmp_path / "pytest")})
    monkeypatch.setattr(lanes, "NICE", {"good": 19})
    monkeypatch.setattr(lanes, "ALONE", ())
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def run(*stages: tuple[tuple[str, ...], ...]) -> int:
    """Run a plan; return the exit code."""
    return lanes.main(lanes.Plan(stages=stages, settings={"good": {"ONCE": "1"}}))


def test_what_passes_is_shown_by_its_last_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(
            (("good",),),
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "\n199\nONCE=1, nice 19\n" in printed
    assert "\n100\n" not in printed
    assert re.search(r"\ngood +\d+ s  passed\nall +\d+ s  passed\n$", printed)


def test_a_failure_is_shown_whole_and_ends_all_after_its_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run((("bad", "good"),), (("endless",),)) == 1
    printed = capsys.readouterr().out
    assert "\n200\n" in printed
    assert "\n299\n" in printed
    assert re.search(
        r"\nbad +\d+ s  FAILED \(2\)\ngood +\d+ s  passed\nendless +not run\nall +\d+ s  FAILED\n$", printed
    )


def test_a_check_that_cannot_be_started_fails_in_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    def start(command: list[str], **settings: Any) -> Any:
        if command == ["make", "bad"]:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return SupervisedProcess(command, **settings)

    monkeypatch.setattr(lanes, "SupervisedProcess", start)
    assert run((("bad", "good"), ("good",)), (("endless",),)) == 1
    printed = capsys.readouterr().out
    assert "It could not be started: [Errno 11] Resource temporarily unavailable" in printed
    assert re.search(r"\nbad +0 s  FAILED \(127\)\ngood +\d+ s  passed\n", printed)
    assert re.search(r"\nendless +not run\nall +\d+ s  FAILED\n$", printed)


def failing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *failed: str, ended: int = 1
) -> tuple[int, str]:
    """Run a check in which tests fail beside another check; return the exit code, and what is printed."""
    monkeypatch.setenv("FAILED", json.dumps(dict.fromkeys(failed, True)))
    monkeypatch.setenv("ENDED", str(ended))
    return run((("tests",), ("good",)), (("good",),)), capsys.readouterr().out


def test_what_failed_beside_others_and_passes_alone_has_passed_and_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = f"{lanes.ONLY_WAIT[0]}::test_flaky"
    code, printed = failing(monkeypatch, capsys, FLAKY, f"{whole}@group_1")
    assert code == 0
    assert printed.count(f"\nagain {FLAKY}\nagain {whole}\n") == 1
    told = "    failed beside others, passed alone: "
    assert re.search(rf"\ntests +\d+ s  passed\n{told}{re.escape(FLAKY)}\n{told}{whole}\ngood", printed)
    assert re.search(r"\nall +\d+ s  passed\n$", printed)


def test_what_fails_alone_as_well_has_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = failing(monkeypatch, capsys, FLAKY, BROKEN)
    assert code == 1
    assert printed.count(f"\nagain {FLAKY}\nagain {BROKEN}\n") == 1
    assert "passed alone" not in printed
    assert re.search(r"\ntests +\d+ s  FAILED \(2\)\n", printed)


@pytest.mark.parametrize(
    ("failed", "ended"),
    [
        ((FLAKY, "tests/payments/test_ledger.py::test_flaky"), 1),
        (("tests/system/money/test_fault_matrix.py::test_cell[x]@test_fault_matrix",), 1),
        (tuple(f"tests/test_a.py::test_flaky[{number}]" for number in range(6)), 1),
        # pytest was interrupted, so that tests have not run at all.
        ((FLAKY,), 2),
    ],
)
def test_no_second_chance_for_payments_for_many_or_for_what_did_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failed: tuple[str, ...], ended: int
) -> None:
    code, printed = failing(monkeypatch, capsys, *failed, ended=ended)
    assert code == 1
    assert "\nagain" not in printed
    assert "passed alone" not in printed


def test_what_lanes_name_is_in_the_makefile() -> None:
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for plan in lanes.PLANS.values():
        run = {target for stage in plan.stages for lane in stage for target in lane}
        assert run <= made
        assert plan.settings.keys() <= run
    assert {*NICE, *AGAIN} <= made


def test_every_folder_without_a_second_chance_is_there() -> None:
    assert [folder for folder in lanes.ONLY_ONCE if not (ROOT / folder).is_dir()] == []
    assert [file for file in lanes.ONLY_WAIT if not (ROOT / file).is_file()] == []


FLAKY_FILE = """
import os, pathlib, pytest

@pytest.mark.xdist_group("shared")
def test_flaky():
    assert "PYTEST_XDIST_WORKER" not in os.environ

def test_good():
    pathlib.Path(__file__).with_name("ran").open("a").write("x")
"""


@pytest.mark.long
def test_pytest_leaves_the_names_by_which_its_failed_tests_are_run_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = long\n")
    (tmp_path / "test_it.py").write_text(FLAKY_FILE)
    pytest_xdist = f"{sys.executable} -m pytest -p xdist.plugin --numprocesses 2 --dist loadgroup"
    (tmp_path / "Makefile").write_text(f"tests:\n\t{pytest_xdist}\n")
    (tmp_path / "make").write_text(f"#!/bin/sh\nexec {shutil.which('make', path=os.defpath)} $1\n")
    monkeypatch.setattr(lanes, "ROOT", tmp_path)
    monkeypatch.setattr(lanes, "AGAIN", {"tests": sys.executable})
    monkeypatch.setattr(lanes, "ALONE", ALONE)
    # This process may be one of pytest-xdist's, with a coverage of its own.
    for name in [name for name in os.environ if name.startswith(("PYTEST_", "COV_"))]:
        monkeypatch.delenv(name)
    # The other plugins take a second of processor in each process.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    assert run((("tests",),)) == 0
    assert "failed beside others, passed alone: test_it.py::test_flaky\nall" in capsys.readouterr().out
    assert (tmp_path / "ran").read_text() == "x", "the others have run once"


def test_a_signal_ends_every_process() -> None:
    script = (
        "import sys; from tools import lanes;sys.exit(lanes.main(lanes.Plan(stages=((('endless',), ('endless',)),))))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.DEVNULL)
    me = psutil.Process(process.pid)

    def sleepers() -> list[psutil.Process] | None:
        found = [each for each in me.children(recursive=True) if each.name() == "sleep"]
        return found if len(found) == 4 else None

    found = wait_for("four sleepers", sleepers, timeout=100)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=100) == 130
    assert [each for each in found if each.is_running()] == []
