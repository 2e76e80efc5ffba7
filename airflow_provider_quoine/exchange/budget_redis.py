"""Where the book of the request budget is kept for several hosts: one key in Redis, replaced if it is unchanged."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import urlsplit

from airflow_provider_quoine.exchange.budget import BudgetStoreError
from airflow_provider_quoine.exchange.budget_ledger import LONGEST_PAUSE, Ledger, Rules
from airflow_provider_quoine.exchange.errors import QuoineInputError

if TYPE_CHECKING:
    from redis import Redis

ANSWER_WITHIN = 1.0
"""Seconds for Redis to be connected to, and to answer."""

_REPLACE = """
local book = redis.call('GET', KEYS[1]) or ''
local now = redis.call('TIME')
if redis.sha1hex(book) ~= ARGV[1] then return {0, now[1], now[2], book} end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return {1, now[1], now[2], ''}
"""

Result = TypeVar("Result")


class RedisStore:
    """
    A book in Redis. Its clock is Redis' own, the same for every host.

    A process that is killed leaves nothing locked: it has replaced the book, or it has not.

    :param url: ``redis://``, ``rediss://`` or ``unix://``, as the ``redis`` package knows them; may hold a password.
    :param key: of the book.
    :param rules: for how long the book is kept.
    :raises QuoineInputError: the URL is none, or the ``redis`` package is missing.
    """

    def __init__(self, *, url: str, key: str, rules: Rules) -> None:
        self._redis = _connect(url)
        parts = urlsplit(url)
        self._where = f"{parts.hostname or ''}:{parts.port or 6379}" if parts.scheme != "unix" else parts.path
        self._key = key
        self._keep_ms = int(1000 * (rules.span + LONGEST_PAUSE))
        self._replace = self._redis.register_script(_REPLACE)
        self._ahead = time.time() - _since_boot()
        self._known: bytes | None = None

    def __str__(self) -> str:
        return f"Redis at {self._where}"

    def clock(self) -> float:
        """Estimate Redis' time from its last answer; before that, it is this host's."""
        return _since_boot() + self._ahead

    def transact(self, change: Callable[[Ledger, float], Result]) -> Result:
        """See :meth:`~airflow_provider_quoine.exchange.budget.BudgetStore.transact`."""
        from redis import RedisError

        # The book as it was left last: while nobody else has changed it, one question is enough.
        known, self._known = self._known, None
        deadline = time.monotonic() + ANSWER_WITHIN
        try:
            while True:
                expected, book, result = "", b"", None
                if known is not None:
                    ledger = _book(known)
                    result = change(ledger, self.clock())
                    expected, book = hashlib.sha1(known, usedforsecurity=False).hexdigest(), ledger.to_bytes()
                done, seconds, micros, current = self._replace(keys=[self._key], args=[expected, book, self._keep_ms])
                self._ahead = int(seconds) + int(micros) / 1e6 - _since_boot()
                if done:
                    self._known = book
                    return cast("Result", result)
                if time.monotonic() > deadline:
                    raise BudgetStoreError(f"others were faster for {ANSWER_WITHIN:g} s")
                if known is not None:
                    time.sleep(random.uniform(0, 0.002))  # noqa: S311 - no secret
                known = current
        except (RedisError, OSError) as error:
            # Without its text, which may quote the URL.
            raise BudgetStoreError(type(error).__name__) from None


def _book(known: bytes | None) -> Ledger:
    try:
        return Ledger.from_bytes(known) if known else Ledger()
    except ValueError:
        # Somebody wrote something else there.
        return Ledger()


def _connect(url: str) -> Redis:
    try:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise QuoineInputError(
            "The request budget is to be kept in Redis, but the package 'redis' is not installed: "
            "pip install 'airflow-provider-quoine[redis]'."
        ) from None
    try:
        return Redis.from_url(
            url,
            socket_connect_timeout=ANSWER_WITHIN,
            socket_timeout=ANSWER_WITHIN,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
        )
    except ValueError:
        raise QuoineInputError(
            "The URL of the request budget's Redis cannot be read; it should look like redis://host:6379/0."
        ) from None


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
