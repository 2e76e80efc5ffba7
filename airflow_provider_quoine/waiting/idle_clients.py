"""Idle clients, kept open between two visits, so that thousands of waits share a few connections."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.rest.client import QuoineClient

MOST_IDLE = 16
"""Idle clients kept open; beyond that, the least recently used one is closed."""

LIFETIME = 300.0
"""Seconds until a client is opened anew, so that a changed connection or Variable takes effect."""


@dataclass(frozen=True, eq=False, kw_only=True)
class OpenClient:
    """
    A client and the key that it was opened for.

    :param key: credentials Variable; None for the connection's own key.
    :param client: used by one visit at a time.
    :param opened_at: seconds of the event loop's clock.
    """

    key: str | None
    client: QuoineClient
    opened_at: float


class IdleClients:
    """The open clients of one connection that no visit uses now. Not thread-safe."""

    def __init__(self) -> None:
        self._idle: list[OpenClient] = []

    def take(self, key: str | None, *, now: float) -> OpenClient | None:
        """
        Take a client that was opened for this key; the caller puts it back or closes it.

        :return: None if none is young enough.
        """
        self._close(one for one in self._idle if now - one.opened_at > LIFETIME)
        for one in reversed(self._idle):
            if one.key == key:
                self._idle.remove(one)
                return one
        return None

    def put(self, one: OpenClient) -> None:
        """Keep a client for the next visit."""
        self._idle.append(one)
        self._close(self._idle[:-MOST_IDLE])

    def forget(self, key: str | None) -> None:
        """Close the clients of a key that was refused."""
        self._close(one for one in self._idle if one.key == key)

    def close(self) -> None:
        """Close all clients."""
        self._close(self._idle)

    def _close(self, some: Iterable[OpenClient]) -> None:
        for one in list(some):
            self._idle.remove(one)
            one.client.close()
