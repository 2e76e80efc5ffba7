"""Processes that share a request budget, and what they took of it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from airflow_provider_quoine.exchange.budget import BudgetStore, Priority, RequestBudget
from airflow_provider_quoine.exchange.budget_file import FileStore
from airflow_provider_quoine.exchange.budget_ledger import Rules
from airflow_provider_quoine.exchange.budget_redis import RedisStore

ROOT = Path(__file__).resolve().parents[2]


def open_store(where: str, rules: Rules) -> BudgetStore:
    """Open the book at a path or at a Redis URL."""
    if where.startswith("redis://"):
        return RedisStore(url=where, key="quoine-budget:test", rules=rules)
    return FileStore(path=Path(where), rules=rules)


def open_budget(where: str, rules: Rules) -> RequestBudget:
    """Take a share of one's own."""
    return RequestBudget(store=open_store(where, rules), rules=rules)


class Sharer:
    """
    A process that takes as many slots as it gets.

    :param where: path or Redis URL.
    :param priority: of all its calls.
    """

    def __init__(self, where: str, rules: Rules, *, priority: Priority = Priority.NORMAL) -> None:
        told = json.dumps({"where": where, "rules": vars(rules), "priority": priority})
        command = [sys.executable, "-m", "tests.exchange.sharers", told]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.taken: list[float] = []
        self.said: list[str] = []
        self._threads = [threading.Thread(target=read) for read in (self._read_slots, self._read_log)]

    def __enter__(self) -> Sharer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def _read_slots(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            # The last line of a killed process may be half a number.
            if line.endswith(";\n"):
                self.taken.append(float(line[:-2]))

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip())


def until(condition: Callable[[], object], *, within: float = 30.0) -> None:
    """Wait for a condition; fail when it does not come true."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


def busiest(taken: Sequence[float], window: float) -> int:
    """Count the most slots in any sliding window."""
    times, start, most = sorted(taken), 0, 0
    for end, time_ in enumerate(times):
        while time_ - times[start] >= window:
            start += 1
        most = max(most, end - start + 1)
    return most


def _main(told: dict[str, Any]) -> None:
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    budget = open_budget(told["where"], Rules(**told["rules"]))
    while True:
        budget.acquire(priority=Priority(told["priority"]))
        sys.stdout.write(f"{time.monotonic()};\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
