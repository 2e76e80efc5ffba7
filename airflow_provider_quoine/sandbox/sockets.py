"""What ASGI has no word for: a connection that is reset, and one that is dead but open."""

from __future__ import annotations

import asyncio
import socket
import struct


def reset_socket(transport: asyncio.Transport) -> None:
    """
    Drop a connection as a crashed host would: a TCP reset, and not one byte more.

    :param transport: the connection's transport
    """
    # Lingering for 0 seconds makes the kernel send RST in place of FIN.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class _BlackHole(asyncio.Protocol):
    """Swallows whatever comes, and still tells the protocol in whose place it stands that the client has gone."""

    def __init__(self, original: asyncio.BaseProtocol) -> None:
        self._original = original

    def connection_lost(self, exc: Exception | None) -> None:
        self._original.connection_lost(exc)


def deafen(transport: asyncio.Transport) -> None:
    """
    Let a connection answer nothing any more, not even a WebSocket ping, and stay open.

    :param transport: the connection's transport
    """
    transport.set_protocol(_BlackHole(transport.get_protocol()))
    transport.resume_reading()
