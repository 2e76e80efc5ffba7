"""What else could hold the request budget: each base as a budget that the client takes its slots from."""

from __future__ import annotations

import fcntl
import math
import os
import random
import sqlite3
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_quoine.exchange.budget.file_store import FileStore
from airflow_provider_quoine.exchange.budget.redis_store import RedisStore
from airflow_provider_quoine.exchange.budget.request_budget import RequestBudget
from airflow_provider_quoine.exchange.budget.rules import Priority, Rules
from airflow_provider_quoine.exchange.budget.slot import Slot

Wait = Callable[[], float]


class Base:
    """
    A budget that knows neither order nor pauses.

    :param attempt: takes a slot and gives 0, or gives the seconds to wait before the next attempt.
    """

    def __init__(self, attempt: Wait) -> None:
        self._attempt = attempt

    def acquire(self, *, priority: Priority, **_: Any) -> Slot:
        while (seconds := self._attempt()) > 0:
            time.sleep(seconds)
        return Slot(budget=self, good_until=math.inf)

    def request_ended(self, slot: Slot) -> None:
        """Count no late request again."""

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)


def ours_file(folder: Path, redis_url: str, rules: Rules) -> RequestBudget:
    """A book in a file."""
    return RequestBudget(store=FileStore(path=folder / "book", rules=rules), rules=rules)


def ours_redis(folder: Path, redis_url: str, rules: Rules) -> RequestBudget:
    """A book in Redis."""
    return RequestBudget(store=RedisStore(url=redis_url, key="quoine-budget:bench", rules=rules), rules=rules)


def pyrate_sqlite(folder: Path, redis_url: str, rules: Rules) -> Base:
    """pyrate-limiter's SQLite bucket, with its lock between processes."""
    from pyrate_limiter import Limiter, Rate, SQLiteBucket

    rates = [Rate(rules.limit, int(rules.slot_lifetime * 1000))]
    bucket = SQLiteBucket.init_from_file(rates, db_path=str(folder / "pyrate.sqlite"), use_file_lock=True)
    limiter = Limiter(bucket)
    return Base(lambda: 0.0 if limiter.try_acquire("quoine") else 0.001)


def pyrate_redis(folder: Path, redis_url: str, rules: Rules) -> Base:
    """pyrate-limiter's Redis bucket."""
    from pyrate_limiter import Limiter, Rate, RedisBucket
    from redis import Redis

    rates = [Rate(rules.limit, int(rules.slot_lifetime * 1000))]
    limiter = Limiter(RedisBucket.init(rates, Redis.from_url(redis_url), "pyrate"))
    return Base(lambda: 0.0 if limiter.try_acquire("quoine") else 0.001)


def limits_redis(folder: Path, redis_url: str, rules: Rules) -> Base:
    """The moving window of limits, whose windows are whole seconds."""
    from limits import RateLimitItemPerSecond
    from limits.storage import RedisStorage
    from limits.strategies import MovingWindowRateLimiter

    limiter = MovingWindowRateLimiter(RedisStorage(redis_url))
    item = RateLimitItemPerSecond(rules.limit, int(rules.slot_lifetime) + 1)

    def attempt() -> float:
        if limiter.hit(item, "quoine"):
            return 0.0
        return max(0.005, float(limiter.get_window_stats(item, "quoine").reset_time) - time.time())

    return Base(attempt)


def flock_ring(folder: Path, redis_url: str, rules: Rules) -> Base:
    """A locked file with the times of the last slots, and nothing else."""
    path = folder / "ring"

    def attempt() -> float:
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            now = time.monotonic()
            times = array("d", os.pread(file, 8 * rules.limit, 0))
            if len(times) >= rules.limit and times[0] + rules.slot_lifetime > now:
                return times[0] + rules.slot_lifetime - now
            times = times[-rules.limit + 1 :]
            times.append(now)
            os.pwrite(file, times.tobytes(), 0)
            return 0.0
        finally:
            os.close(file)

    return Base(attempt)


def sqlite_ring(folder: Path, redis_url: str, rules: Rules) -> Base:
    """The same in SQLite, with BEGIN IMMEDIATE."""
    database = sqlite3.connect(folder / "ring.sqlite", isolation_level=None, timeout=30)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=OFF")
    database.execute("CREATE TABLE IF NOT EXISTS slots (at REAL)")
    database.execute("CREATE INDEX IF NOT EXISTS by_time ON slots (at)")

    def attempt() -> float:
        database.execute("BEGIN IMMEDIATE")
        try:
            now = time.monotonic()
            database.execute("DELETE FROM slots WHERE at <= ?", (now - rules.slot_lifetime,))
            count, first = database.execute("SELECT count(*), min(at) FROM slots").fetchone()
            if count >= rules.limit:
                return float(first) + rules.slot_lifetime - now + random.uniform(0, 0.001)
            database.execute("INSERT INTO slots VALUES (?)", (now,))
            return 0.0
        finally:
            database.execute("COMMIT")

    return Base(attempt)


BASES: dict[str, Callable[[Path, str, Rules], Any]] = {
    "ours, file": ours_file,
    "ours, Redis": ours_redis,
    "pyrate-limiter, SQLite": pyrate_sqlite,
    "pyrate-limiter, Redis": pyrate_redis,
    "limits, Redis": limits_redis,
    "flock and a ring": flock_ring,
    "SQLite, BEGIN IMMEDIATE": sqlite_ring,
}
