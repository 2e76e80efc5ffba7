"""Where the book of the request budget is kept for several hosts: one key in Redis, replaced if it is unchanged."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from airflow_provider_quoine.exchange.budget.book import LONGEST_PAUSE, Ledger, Rules
from airflow_provider_quoine.exchange.budget.request_budget import BudgetStoreError
from airflow_provider_quoine.exchange.errors import QuoineInputError

if TYPE_CHECKING:
    from redis import ConnectionPool
    from redis.connection import ConnectionInterface

ANSWER_WITHIN = 1.0
"""Seconds for Redis to be connected to, and to answer."""

_STAMP_BYTES = 16
"""Random, before the book: another stamp means that somebody has changed it."""

_REPLACE = f"""
local now = redis.call('TIME')
if redis.call('GETRANGE', KEYS[1], 0, {_STAMP_BYTES - 1}) == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
    return now
end
return {{now[1], now[2], redis.call('GET', KEYS[1]) or ''}}
"""

Result = TypeVar("Result")


@dataclass(kw_only=True, eq=False)
class _Link:
    """
    A connection, used by one thread at a time.

    :param known: stamp and book as they were left last: while nobody else has changed them, one question is enough.
    """

    connection: ConnectionInterface
    known: bytes | None = None


class RedisStore:
    """
    A book in Redis. Its clock is Redis' own, the same for every host.

    A process that is killed leaves nothing locked: it has replaced the book, or it has not. It speaks over redis-py's
    connections but not by its client, which takes longer over a slot than Redis does.

    :param url: ``redis://``, ``rediss://`` or ``unix://``, as the ``redis`` package knows them; may hold a password.
    :param key: of the book.
    :param rules: for how long the book is kept.
    :raises QuoineInputError: the URL is none, or the ``redis`` package is missing.
    """

    def __init__(self, *, url: str, key: str, rules: Rules) -> None:
        self._pool = _pool(url)
        parts = urlsplit(url)
        self._where = f"{parts.hostname or ''}:{parts.port or 6379}" if parts.scheme != "unix" else parts.path
        self._key = key
        self._keep_ms = int(1000 * (rules.span + LONGEST_PAUSE))
        self._ahead = time.time() - _since_boot()
        self._pid = os.getpid()
        self._idle: list[_Link] = []

    def __str__(self) -> str:
        return f"Redis at {self._where}"

    def clock(self) -> float:
        """Estimate Redis' time from its answers; before the first, it is this host's."""
        return _since_boot() + self._ahead

    def transact(self, change: Callable[[Ledger, float], Result]) -> Result:
        """See :meth:`~airflow_provider_quoine.exchange.budget.request_budget.BudgetStore.transact`."""
        from redis import RedisError

        link = self._link()
        deadline = time.monotonic() + ANSWER_WITHIN
        try:
            while True:
                stamp, left, result = b"none", b"", None
                if (known := link.known) is not None:
                    ledger = _book(known[_STAMP_BYTES:])
                    result = change(ledger, self.clock())
                    stamp, left = known[:_STAMP_BYTES], os.urandom(_STAMP_BYTES) + ledger.to_bytes()
                asked = _since_boot()
                seconds, micros, *current = self._replace(link.connection, stamp, left)
                self._set_clock(int(seconds) + int(micros) / 1e6, asked, _since_boot())
                if not current:
                    link.known = left
                    self._idle.append(link)
                    return cast("Result", result)
                if time.monotonic() > deadline:
                    raise BudgetStoreError(f"others were faster for {ANSWER_WITHIN:g} s")
                if known is not None:
                    time.sleep(random.uniform(0, 0.002))  # noqa: S311 - no secret
                link.known = current[0]
        except (RedisError, OSError) as error:
            # Without its text, which may quote the URL.
            raise BudgetStoreError(type(error).__name__) from None

    def _set_clock(self, said: float, asked: float, answered: float) -> None:
        # Redis said it in between. What was estimated from quicker answers stays, as long as that may be true: so it
        # is no matter how long this process was held up before it read this one.
        self._ahead = max(said - answered, min(self._ahead, said - asked))

    def _link(self) -> _Link:
        if self._pid != os.getpid():
            # After a fork: the parent goes on speaking over these.
            self._pid, self._idle = os.getpid(), []
        try:
            return self._idle.pop()
        except IndexError:
            return _Link(connection=self._pool.make_connection())

    def _replace(self, connection: ConnectionInterface, stamp: bytes, left: bytes) -> list[Any]:
        from redis import ConnectionError as NotConnected

        try:
            return self._eval(connection, stamp, left)
        except NotConnected:
            # Redis closes what was idle for long, or has started anew. If the book was replaced, its stamp tells.
            return self._eval(connection, stamp, left)

    def _eval(self, connection: ConnectionInterface, stamp: bytes, left: bytes) -> list[Any]:
        # The text each time, because Redis may have forgotten it; it is short.
        connection.send_command("EVAL", _REPLACE, 1, self._key, stamp, left, self._keep_ms)  # type: ignore[no-untyped-call]
        return cast("list[Any]", connection.read_response())


def _book(written: bytes) -> Ledger:
    try:
        return Ledger.from_bytes(written) if written else Ledger()
    except ValueError:
        # Somebody wrote something else there.
        return Ledger()


def _pool(url: str) -> ConnectionPool:
    try:
        from redis import ConnectionPool
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise QuoineInputError(
            "The request budget is to be kept in Redis, but the package 'redis' is not installed: "
            "pip install 'airflow-provider-quoine[redis]'."
        ) from None
    try:
        return ConnectionPool.from_url(
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
