"""Processes that share a request budget, and the slots that they took."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from airflow_provider_quoine.exchange.budget.book import Book
from airflow_provider_quoine.exchange.budget.file_store import FileStore
from airflow_provider_quoine.exchange.budget.redis_store import RedisStore
from airflow_provider_quoine.exchange.budget.request_budget import (
    BudgetStore,
    BudgetStoreError,
    RequestBudget,
)
from airflow_provider_quoine.exchange.budget.rules import Priority, Rules

ROOT = Path(__file__).resolve().parents[3]

Result = TypeVar("Result")


def open_store(where: str, rules: Rules) -> BudgetStore:
    """Open the book at a path or at a Redis URL."""
    if where.startswith("redis://"):
        return RedisStore(url=where, key="quoine-budget:test", rules=rules)
    return FileStore(path=Path(where), rules=rules)


def open_budget(where: str, rules: Rules) -> RequestBudget:
    """Open a budget as another process would."""
    return RequestBudget(store=open_store(where, rules), rules=rules)


class WatchedStore(threading.local):
    """
    A store that keeps when this thread changed the book last, by the store's time; nothing if the store failed.

    After a slot was taken, that is the slot's exact time, however long the process is held up afterwards.
    """

    def __init__(self, store: BudgetStore) -> None:
        self._store = store
        self.changed_at: list[float] = []

    def __str__(self) -> str:
        return str(self._store)

    def clock(self) -> float:
        return self._store.clock()

    def transact(self, change: Callable[[Book, float], Result]) -> Result:
        def watched(book: Book, now: float) -> Result:
            self.changed_at = [now]
            return change(book, now)

        try:
            return self._store.transact(watched)
        except BudgetStoreError:
            self.changed_at = []
            raise


class Taker:
    """
    A process that takes as many slots as it gets.

    ``taken`` has the time of each slot by this host's monotonic clock, ``slots`` by the store's clock.

    :param where: path or Redis URL.
    :param priority: of all its calls.
    """

    def __init__(self, where: str, rules: Rules, *, priority: Priority = Priority.NORMAL) -> None:
        told = json.dumps({"where": where, "rules": vars(rules), "priority": priority})
        command = [sys.executable, "-m", "tests.exchange.budget.processes", told]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.rules = rules
        self.taken: list[float] = []
        self.slots: list[float] = []
        self.said: list[str] = []
        self._threads = [threading.Thread(target=read) for read in (self._read_slots, self._read_log)]

    def __enter__(self) -> Taker:
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
                taken, *slots = map(float, line[:-2].split())
                self.taken.append(taken)
                self.slots += slots

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip())


def until(condition: Callable[[], object], *, within: float = 60.0) -> None:
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
    rules = Rules(**told["rules"])
    store = WatchedStore(open_store(told["where"], rules))
    budget = RequestBudget(store=store, rules=rules)
    while True:
        budget.acquire(priority=Priority(told["priority"]))
        sys.stdout.write(f"{time.monotonic()} {' '.join(map(str, store.changed_at))};\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
