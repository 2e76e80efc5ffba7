"""
Runs the checks of the Makefile in lanes, side by side, for ``.ci/run``.

A lane is a list of targets that run one after another; the lanes of a stage run at the same time, and a stage begins
when the one before it has passed. The cheap checks come first. What a check prints goes to a file of its own: it is
shown whole if the check fails, and else by its last lines. A table of all checks comes last.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from tools.supervised_process import SupervisedProcess

ROOT = Path(__file__).resolve().parents[1]
#: The tests that need a quiet machine, and those on another Airflow, come last, when nothing else runs.
STAGES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("lint",), ("docs", "build"), ("unit",)),
    (("test-system", "test-airflow", "test-clients", "test-cluster", "demo"),),
    (("test-alone", "test-captures"),),
    (("test-next",),),
)
#: Branch coverage is measured over three targets, one after another, and printed at the end of the last.
SETTINGS = {
    "unit": {"PYTEST_ADDOPTS": "--cov --cov-report="},
    "test-airflow": {"PYTEST_ADDOPTS": "--cov --cov-append --cov-report="},
    "test-alone": {"PYTEST_ADDOPTS": "--cov --cov-append --cov-report=term:skip-covered"},
    "demo": {"ONCE": "1"},
    "test-captures": {"MINUTES": "3"},
    # A whole Airflow of a pre-release is too much to depend on: `make test-next` has it too.
    "test-next": {"PAYMENTS": "tests/payments tests/operators tests/cli tests/plugins tests/dags/test_example_dags.py"},
}
LAST_LINES = 40
#: Exit code of a check that could not be started, as a shell has it.
NOT_STARTED = 127


@dataclass(frozen=True, kw_only=True)
class Result:
    """
    How a check ended.

    :param target: of the Makefile
    :param code: exit code of ``make``
    :param seconds: how long it took
    """

    target: str
    code: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.target:16}{self.seconds:6.0f} s  {f'FAILED ({self.code})' if self.code else 'passed'}"


@dataclass
class Lanes:
    """
    Runs lanes and keeps their results.

    :param logs: folder for what the checks print
    """

    logs: Path
    results: list[Result] = field(default_factory=list)
    _running: set[SupervisedProcess] = field(default_factory=set)
    _stopped: Event = field(default_factory=Event)

    @property
    def passed(self) -> bool:
        """Whether no check has failed so far."""
        return not any(result.code for result in self.results)

    def run(self, stage: tuple[tuple[str, ...], ...]) -> None:
        """Run the lanes of a stage side by side, and wait until all have ended."""
        with ThreadPoolExecutor(len(stage)) as threads:
            try:
                for done in [threads.submit(self._run_lane, lane) for lane in stage]:
                    done.result()
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """End every check that runs, and begin no other."""
        self._stopped.set()
        for process in list(self._running):
            process.stop()

    def _run_lane(self, lane: tuple[str, ...]) -> None:
        for target in lane:
            if not self._stopped.is_set():
                self._run_check(target)

    def _run_check(self, target: str) -> None:
        began = time.monotonic()
        try:
            code, lines = self._make(target)
        except OSError as error:
            code, lines = NOT_STARTED, [f"It could not be started: {error}"]
        if self._stopped.is_set():
            return
        result = Result(target=target, code=code, seconds=time.monotonic() - began)
        self.results.append(result)
        shown = lines if code else lines[-LAST_LINES:]
        # One write, so that lanes that end at the same time do not mix their lines.
        print("\n".join([f"\n===== {result} =====", *shown]), flush=True)

    def _make(self, target: str) -> tuple[int, list[str]]:
        """Run a check; return its exit code, and the lines that it printed."""
        log = self.logs / target
        env = os.environ | SETTINGS.get(target, {})
        with SupervisedProcess(["make", target], env=env, cwd=ROOT, console=log) as process:
            self._running.add(process)
            if self._stopped.is_set():
                process.stop()
            code = process.wait()
            self._running.discard(process)
        return code, log.read_text(errors="replace").splitlines()


def main() -> int:
    """Run all stages; the exit code is 0 if every check passed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="quoine-lanes-") as folder:
        lanes, began = Lanes(Path(folder)), time.monotonic()
        try:
            for stage in STAGES:
                print(f"Running side by side: {'; '.join(', then '.join(lane) for lane in stage)}", flush=True)
                lanes.run(stage)
                if not lanes.passed:
                    break
        except KeyboardInterrupt:
            print("Stopped before the end; nothing is left running", file=sys.stderr)
            return 130
    print("\n===== Checks =====")
    results = {result.target: str(result) for result in lanes.results}
    for target in (target for stage in STAGES for lane in stage for target in lane):
        print(results.get(target, f"{target:16}{'not run':>17}"))
    print(f"{'all':16}{time.monotonic() - began:6.0f} s  {'passed' if lanes.passed else 'FAILED'}", flush=True)
    return 0 if lanes.passed else 1


if __name__ == "__main__":
    sys.exit(main())
