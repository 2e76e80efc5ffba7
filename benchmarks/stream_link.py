"""The server's side of one Pusher client, with sockets and threads only, so that a benchmark's server costs little."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_ACCEPT_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(event: str, channel: str | None, data: Any) -> bytes:
    """Return a Pusher message as one WebSocket frame."""
    place = {} if channel is None else {"channel": channel}
    payload = json.dumps({"event": event, **place, "data": data}, separators=(",", ":")).encode()
    length = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + struct.pack("!H", len(payload))
    return b"\x81" + length + payload


class PusherLink:
    """
    One client: greeted, its subscriptions confirmed, its pings answered.

    :param link: accepted.
    :param on_subscribed: called with this before each confirmation, on the thread that receives.
    """

    def __init__(self, link: socket.socket, on_subscribed: Callable[[PusherLink], None]) -> None:
        self.channels: list[str] = []
        self._link = link
        self._on_subscribed = on_subscribed
        self._writing = threading.Lock()
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def serve(self) -> None:
        """Receive until the client goes."""
        try:
            self._open()
            while True:
                self._handle(json.loads(self._take_frame()))
        except (OSError, ValueError):
            self._link.close()

    def send(self, data: bytes) -> None:
        """
        Send frames; blocks while the client takes nothing.

        :raises OSError: if the client is gone.
        """
        with self._writing:
            self._link.sendall(data)

    def reset(self) -> None:
        """End the connection with a TCP reset, as a network that lost its state does."""
        # OSError: it is closed already.
        with suppress(OSError):
            # A linger time of 0 makes closing a reset.
            self._link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Another thread may be reading: that one closes the descriptor, after this has woken it.
            self._link.shutdown(socket.SHUT_RD)

    def _open(self) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += self._take(1)
        headers = dict(line.split(": ", 1) for line in request.decode().split("\r\n")[1:] if ": " in line)
        key = next(value for name, value in headers.items() if name.lower() == "sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1((key + _ACCEPT_GUID).encode()).digest()).decode()
        head = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        greeting = frame("pusher:connection_established", None, '{"socket_id":"1.1","activity_timeout":120}')
        self.send(head.encode() + greeting)

    def _handle(self, message: dict[str, Any]) -> None:
        if message["event"] == "pusher:ping":
            self.send(frame("pusher:pong", None, "{}"))
        elif message["event"] == "pusher:subscribe":
            channel = message["data"]["channel"]
            self.channels.append(channel)
            self._on_subscribed(self)
            self.send(frame("pusher_internal:subscription_succeeded", channel, "{}"))

    def _take_frame(self) -> bytes:
        first, second = self._take(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self._take(2))
        mask = self._take(4)
        payload = bytes(byte ^ mask[place % 4] for place, byte in enumerate(self._take(length)))
        if first & 0x0F == 8:
            self.send(b"\x88\x00")
            raise ConnectionError("the client says goodbye")
        return payload

    def _take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            some = self._link.recv(count - len(data))
            if not some:
                raise ConnectionError("the client went")
            data += some
        return data
