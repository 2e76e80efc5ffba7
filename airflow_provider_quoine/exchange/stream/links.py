"""What the supervisor asks of a network, and a connection tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from airflow_provider_quoine.exchange.stream.events import Moment


class ConnectionEnd(NamedTuple):
    """
    How a connection, or the attempt at one, ended.

    :param code: WebSocket close code or Pusher error code; None where the socket just broke.
    :param reason: the server's words or the system's; they may contain the application key.
    """

    code: int | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Handlers:
    """
    What a connection calls, on a thread of its own. A moment is that of the message's last byte.

    :param take: is offered a message before it is decoded; returns whether it took it.
    :param on_event: gets every other message but pings, which the connection answers: message, event's name, data,
        channel (None for the connection's own events).
    :param on_unreadable: is called for a message that is not Pusher's.
    :param on_end: is called once, last.
    """

    take: Callable[[bytes, Moment], bool]
    on_event: Callable[[bytes, str, Any, str | None, Moment], None]
    on_unreadable: Callable[[Moment], None]
    on_end: Callable[[ConnectionEnd], None]


class Link(Protocol):
    """One attempt at a connection, used once. Its methods are called on the event loop and do not block it."""

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
