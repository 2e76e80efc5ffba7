"""Keeps the book of the request budget in Redis, for several hosts: one key, replaced if it is unchanged."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from airflow_provider_quoine.exchange.budget.book import LONGEST_PAUSE, Book
from airflow_provider_quoine.exchange.budget.request_budget import BudgetStoreError
from airflow_provider_quoine.exchange.budget.rules import Rules
from airflow_provider_quoine.exchange.errors import QuoineInputError

if TYPE_CHECKING:
    from redis import ConnectionPool
    from redis.connection import ConnectionInterface

RESPOND_WITHIN = 1.0
"""Seconds for connecting to Redis, and for its response."""

_STAMP_BYTES = 16
"""The key holds a random stamp and then the book. Another stamp means that another process has changed the book."""

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

    :param known: stamp and book as this connection left them. While no other process has changed them, one round trip
        is enough.
    """

    connection: ConnectionInterface
    known: bytes | None = None


class RedisStore:
    """
    A book in Redis. Its clock is Redis' own, the same for every host.

    A process that is killed leaves nothing locked: it has replaced the book, or it has not. The connections are
    redis-py's. Its client is not used, because that takes longer over a slot than Redis does.

    :param url: ``redis://``, ``rediss://`` or ``unix://``, as the ``redis`` package knows them; may hold a password.
    :param key: under which Redis has the book.
    :param rules: of the budget; they say for how long Redis keeps the book.
    :raises QuoineInputError: the URL cannot be read, or the ``redis`` package is missing.
    """

    def __init__(self, *, url: str, key: str, rules: Rules) -> None:
        self._pool = _pool(url)
        parts = urlsplit(url)
        self._where = f"{parts.hostname or ''}:{parts.port or 6379}" if parts.scheme != "unix" else parts.path
        self._key = key
        self._keep_ms = int(1000 * (rules.slot_lifetime + LONGEST_PAUSE))
        self._clock_offset = time.time() - _since_boot()
        self._pid = os.getpid()
        self._idle: list[_Link] = []

    def __str__(self) -> str:
        return f"Redis at {self._where}"

    def clock(self) -> float:
        """Estimate Redis' time from its responses; before the first, it is this host's time."""
        return _since_boot() + self._clock_offset

    def transact(self, change: Callable[[Book, float], Result]) -> Result:
        """See :meth:`~airflow_provider_quoine.exchange.budget.request_budget.BudgetStore.transact`."""
        from redis import RedisError

        link = self._link()
        deadline = time.monotonic() + RESPOND_WITHIN
        try:
            while True:
                stamp, written, result = b"none", b"", None
                if (known := link.known) is not None:
                    book = _read_book(known[_STAMP_BYTES:])
                    result = change(book, self.clock())
                    stamp, written = known[:_STAMP_BYTES], os.urandom(_STAMP_BYTES) + book.to_bytes()
                asked = _since_boot()
                seconds, micros, *current = self._replace(link.connection, stamp, written)
                self._set_clock(int(seconds) + int(micros) / 1e6, asked, _since_boot())
                if not current:
                    link.known = written
                    self._idle.append(link)
                    return cast("Result", result)
                if time.monotonic() > deadline:
                    raise BudgetStoreError(f"other processes were faster for {RESPOND_WITHIN:g} s")
                if known is not None:
                    time.sleep(random.uniform(0, 0.002))  # noqa: S311 - no secret
                link.known = current[0]
        except (RedisError, OSError) as error:
            # Without its text, which may quote the URL.
            raise BudgetStoreError(type(error).__name__) from None

    def _set_clock(self, server_time: float, asked: float, answered: float) -> None:
        # Redis read its clock between asked and answered, which bounds the offset. An earlier estimate within these
        # bounds stays, so a response that this process read late does not spoil it.
        self._clock_offset = max(server_time - answered, min(self._clock_offset, server_time - asked))

    def _link(self) -> _Link:
        if self._pid != os.getpid():
            # After a fork: these connections are the parent's.
            self._pid, self._idle = os.getpid(), []
        try:
            return self._idle.pop()
        except IndexError:
            return _Link(connection=self._pool.make_connection())

    def _replace(self, connection: ConnectionInterface, stamp: bytes, written: bytes) -> list[Any]:
        from redis import ConnectionError as NotConnected

        try:
            return self._eval(connection, stamp, written)
        except NotConnected:
            # Redis closes idle connections, and a restart closes all. If the book was replaced, its stamp shows it.
            return self._eval(connection, stamp, written)

    def _eval(self, connection: ConnectionInterface, stamp: bytes, written: bytes) -> list[Any]:
        # The whole script each time: Redis may have forgotten it, and it is short.
        connection.send_command("EVAL", _REPLACE, 1, self._key, stamp, written, self._keep_ms)  # type: ignore[no-untyped-call]
        return cast("list[Any]", connection.read_response())


def _read_book(written: bytes) -> Book:
    try:
        return Book.from_bytes(written) if written else Book()
    except ValueError:
        # Something else was written under this key.
        return Book()


def _pool(url: str) -> ConnectionPool:
    try:
        from redis import ConnectionPool
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise QuoineInputError(
            "The request budget is kept in Redis, but the package 'redis' is not installed: "
            "pip install 'airflow-provider-quoine[redis]'."
        ) from None
    try:
        return ConnectionPool.from_url(
            url,
            socket_connect_timeout=RESPOND_WITHIN,
            socket_timeout=RESPOND_WITHIN,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
        )
    except ValueError:
        raise QuoineInputError(
            "The URL of the request budget's Redis cannot be read; it should look like redis://host:6379/0."
        ) from None


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
