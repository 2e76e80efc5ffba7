"""What the supervisor asks of a network: the real one is in ``network.py``, a simulation has its own."""

from __future__ import annotations

import asyncio
from typing import Protocol

from airflow_provider_quoine.exchange.stream.events import Handlers, Moment


class Link(Protocol):
    """One attempt at a connection, used once. Its methods do not block."""

    @property
    def heard(self) -> Moment:
        """The last byte of the last whole message: the last sign of life. Before the first, when it was made."""

    def send(self, event: str, data: dict[str, str]) -> None:
        """Send a message. Where that fails, the end of the connection is told, or a time-out passes."""

    async def end(self, *, politely: bool) -> None:
        """End it, with a close frame first if politely; nothing of it is left on return."""


class Network(Protocol):
    """Makes the connections of one event loop to one endpoint."""

    def prepare(self) -> asyncio.Future[None]:
        """
        Begin the slow work that is done once.

        :raises QuoineStreamError: by the future, if ``ca_path`` cannot be read.
        """

    def connect(self, handlers: Handlers) -> Link:
        """Begin to make a connection."""

    def close(self) -> None:
        """Clean up, after the last connection has ended."""
