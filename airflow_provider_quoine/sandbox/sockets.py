"""Two connection failures that ASGI cannot express: a reset, and a connection that is open but dead."""

from __future__ import annotations

import asyncio
import socket
import struct


def reset_socket(transport: asyncio.Transport) -> None:
    """End a connection with a TCP reset, as a crashed host would; unsent data is dropped."""
    # Lingering for 0 seconds makes the kernel send RST in place of FIN.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class _BlackHole(asyncio.Protocol):
    """Drops all received data, but still reports the end of the connection to the protocol that it replaces."""

    def __init__(self, original: asyncio.BaseProtocol) -> None:
        self._original = original

    def connection_lost(self, exc: Exception | None) -> None:
        self._original.connection_lost(exc)


def ignore_input(transport: asyncio.Transport) -> None:
    """Keep a connection open but answer nothing any more, not even a WebSocket ping."""
    transport.set_protocol(_BlackHole(transport.get_protocol()))
    transport.resume_reading()
