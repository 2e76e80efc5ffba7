"""
Runs the checks of the Makefile in lanes, side by side: for ``make test``, and for ``.ci/run``.

A lane is a list of targets that run one after another; the lanes of a stage run at the same time, and a stage begins
when the one before it has passed. The cheap checks come first. What a check prints goes to a file of its own: it is
shown whole if the check fails, and else by its last lines. A table of all checks comes last.

A test that fails beside others may have failed because the machine was busy. So the failed tests of a check are run
again once, one by one, when all lanes of the stage have ended. If they pass alone, the check has passed, and the table
names them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

from tools.supervised_process import SupervisedProcess

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    What is run.

    :param stages: of lanes, each of targets of the Makefile
    :param settings: environment variables of a target
    """

    stages: tuple[tuple[tuple[str, ...], ...], ...]
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


#: A developer waits for ``make test``, so what measures time runs beside checks that give way to it. A machine of CI
#: may know no such niceness: there it runs when nothing else does.
PLANS = {
    "test": Plan(
        # What waits most of the time comes first, beside what never does: so the processors have something to do.
        stages=((("test-paced", "test-alone", "unit"), ("test-system",), ("test-airflow",)),),
        # Each process imports all that it looks at, and the processors have enough to do.
        settings={"unit": {"WORKERS": "3"}},
    ),
    "ci": Plan(
        stages=(
            (("lint",), ("docs", "build"), ("unit",)),
            (("test-system", "test-clients", "test-browser", "demo"), ("test-airflow",)),
            (("test-paced", "test-alone", "test-cluster", "covered"),),
            (("test-captures",), ("test-next",)),
        ),
        settings={
            "unit": {"PYTEST_ADDOPTS": "--cov --cov-report=", "COVERAGE_FILE": ".coverage-unit"},
            "test-airflow": {
                "PYTEST_ADDOPTS": "--cov --cov-report=",
                "COVERAGE_FILE": ".coverage-airflow",
                "QUOINE_HISTORIES": "1000",
            },
            "test-paced": {"PYTEST_ADDOPTS": "--cov --cov-report=", "COVERAGE_FILE": ".coverage-paced"},
            "test-alone": {"PYTEST_ADDOPTS": "--cov --cov-report=", "COVERAGE_FILE": ".coverage-alone"},
            "demo": {"ONCE": "1"},
            "test-captures": {"MINUTES": "3"},
        },
    ),
}
#: How nice a check is to those beside it, 0 if it is not here. What measures time has the processor first, because it
#: waits most of the time; then the tests of a whole Airflow, for the sake of Airflow's time-outs.
NICE = {"unit": 8, "test-airflow": 8, "test-next": 8, "test-system": 5, "test-browser": 5, "demo": 5}
#: The checks of which failed tests are run again, each with the Python that they run on.
AGAIN = {
    **dict.fromkeys(
        (
            "unit",
            "test-system",
            "test-airflow",
            "test-paced",
            "test-alone",
            "test-clients",
            "test-browser",
            "test-cluster",
        ),
        sys.executable,
    ),
    "test-next": str(ROOT / ".venv-next" / "bin" / "python"),
}
#: Has that Python run the tests that follow one by one, whatever they need.
ALONE = ("-m", "pytest", "-m", "", "-p", "no:cacheprovider")
#: Tests of payments get no second chance: a payment that is made twice, once in a hundred runs, is what they look for.
ONLY_ONCE = ("tests/payments/", "tests/operators/", "tests/system/money/", "tests/cli/")
#: But those that only wait, which Airflow fails now and then on a busy machine (see tools/scenario.py).
ONLY_WAIT = ("tests/system/money/test_wait_timeouts.py",)
#: If more tests than these fail in one check, the machine is not the reason, and none is run again.
MOST_AGAIN = 5
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
    :param passed_alone: ids of the tests that failed beside others, and passed when they were run again alone
    """

    target: str
    code: int
    seconds: float
    passed_alone: tuple[str, ...] = ()

    def __str__(self) -> str:
        line = f"{self.target:16}{self.seconds:6.0f} s  {f'FAILED ({self.code})' if self.code else 'passed'}"
        return "\n".join([line, *(f"    failed beside others, passed alone: {test}" for test in self.passed_alone)])


@dataclass
class Lanes:
    """
    Runs lanes and keeps their results.

    :param logs: folder for what the checks print
    :param settings: environment variables of a target
    """

    logs: Path
    settings: Mapping[str, Mapping[str, str]]
    results: list[Result] = field(default_factory=list)
    _running: set[SupervisedProcess] = field(default_factory=set)
    _stopped: Event = field(default_factory=Event)

    @property
    def passed(self) -> bool:
        """Whether no check has failed so far."""
        return not any(result.code for result in self.results)

    def run(self, stage: tuple[tuple[str, ...], ...]) -> None:
        """Run the lanes of a stage side by side, wait until all have ended, and run again what failed."""
        with ThreadPoolExecutor(len(stage)) as threads:
            try:
                for done in [threads.submit(self._run_lane, lane) for lane in stage]:
                    done.result()
            except BaseException:
                self.stop()
                raise
        self.results = [self._run_again(result) if result.code else result for result in self.results]

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
        settings, cache = self.settings.get(target, {}), shlex.quote(f"cache_dir={self._cache(target)}")
        env = {**settings, "PYTEST_ADDOPTS": f"{settings.get('PYTEST_ADDOPTS', '')} -o {cache}"}
        began = time.monotonic()
        code, lines = self._run(["make", target], env, self.logs / target, nice=NICE.get(target, 0))
        if self._stopped.is_set():
            return
        result = Result(target=target, code=code, seconds=time.monotonic() - began)
        self.results.append(result)
        show(str(result), lines if code else lines[-LAST_LINES:])

    def _run_again(self, result: Result) -> Result:
        """Run the failed tests of a check alone, if they may be; return the result that counts."""
        tests = self._tests_to_repeat(result.target)
        if not tests:
            return result
        log = self.logs / f"{result.target} again"
        # Without coverage, which would begin anew.
        env = {**self.settings.get(result.target, {}), "PYTEST_ADDOPTS": ""}
        code, lines = self._run([AGAIN[result.target], *ALONE, *tests], env, log)
        show(f"{result.target}, what failed, alone: {f'FAILED ({code})' if code else 'passed'}", lines)
        return result if code else replace(result, code=0, passed_alone=tests)

    def _tests_to_repeat(self, target: str) -> tuple[str, ...]:
        """List the tests of a check that failed; none if they may not be run again, or if some have not run at all."""
        failed = self._cache(target) / "v" / "cache" / "lastfailed"
        if target not in AGAIN or not failed.exists():
            return ()
        # With 1, and with no other exit code, pytest says that all tests have run.
        if not re.search(
            r"^make(\[\d+\])?: .* Error 1$", (self.logs / target).read_text(errors="replace"), re.MULTILINE
        ):
            return ()
        # pytest-xdist adds the group's name.
        tests = tuple(re.sub(r"@\w+$", "", test) for test in json.loads(failed.read_text()))
        of_payments = [test for test in tests if test.startswith(ONLY_ONCE) and not test.startswith(ONLY_WAIT)]
        return () if len(tests) > MOST_AGAIN or of_payments else tests

    def _cache(self, target: str) -> Path:
        return self.logs / f"{target}.cache"

    def _run(self, command: list[str], env: Mapping[str, str], log: Path, *, nice: int = 0) -> tuple[int, list[str]]:
        """Run a command; return its exit code, and the lines that it printed."""
        try:
            with SupervisedProcess(command, env={**os.environ, **env}, cwd=ROOT, console=log, nice=nice) as process:
                self._running.add(process)
                if self._stopped.is_set():
                    process.stop()
                code = process.wait()
                self._running.discard(process)
        except OSError as error:
            return NOT_STARTED, [f"It could not be started: {error}"]
        return code, log.read_text(errors="replace").splitlines()


def show(title: str, lines: list[str]) -> None:
    """Print lines under a title: at once, so that lanes that end at the same time do not mix theirs."""
    print("\n".join([f"\n===== {title} =====", *lines]), flush=True)


def main(plan: Plan) -> int:
    """Run all stages; the exit code is 0 if every check passed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="quoine-lanes-") as folder:
        lanes, began = Lanes(Path(folder), plan.settings), time.monotonic()
        try:
            for stage in plan.stages:
                print(f"Running side by side: {'; '.join(', then '.join(lane) for lane in stage)}", flush=True)
                lanes.run(stage)
                if not lanes.passed:
                    break
        except KeyboardInterrupt:
            print("Stopped before the end; nothing is left running", file=sys.stderr)
            return 130
    print("\n===== Checks =====")
    results = {result.target: str(result) for result in lanes.results}
    for target in (target for stage in plan.stages for lane in stage for target in lane):
        print(results.get(target, f"{target:16}{'not run':>17}"))
    print(f"{'all':16}{time.monotonic() - began:6.0f} s  {'passed' if lanes.passed else 'FAILED'}", flush=True)
    return 0 if lanes.passed else 1


if __name__ == "__main__":
    sys.exit(main(PLANS[sys.argv[1]]))
