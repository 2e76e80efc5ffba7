"""
A Pusher server that is as fast as possible: it prepares its frames before it sends them.

It greets, confirms every channel, answers pings, and sends whole order-book sides of 1.15 kB to each connection, over
its channels in turn: as fast as the client takes them, or at a given rate for each connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import struct
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

_ACCEPT_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_ROWS = 40
_BATCH = 64


def book_side(number: int) -> str:
    """Return 40 rows as the exchange sends them, 1.15 kB; the first price numbers them."""
    rows = [[f"{600_000 + number + row}.{row:05d}", f"{row + 1}.{number % 100_000_000:08d}"] for row in range(_ROWS)]
    return json.dumps(rows, separators=(",", ":"))


def _frame(event: str, channel: str | None, data: Any) -> bytes:
    place = {} if channel is None else {"channel": channel}
    payload = json.dumps({"event": event, **place, "data": data}, separators=(",", ":")).encode()
    length = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + struct.pack("!H", len(payload))
    return b"\x81" + length + payload


def serve(pipe: Connection, core: int | None, rate: float) -> None:
    """
    Serve until told to stop; answer ``count`` with the number of connections so far.

    :param core: the processor to run on; None for any.
    :param rate: events a second to each connection; 0 for as fast as the client takes them. At a rate, the fraction of
        the first quantity is the time of sending, in units of 10 microseconds.
    """
    if core is not None:
        os.sched_setaffinity(0, {core})
    with socket.create_server(("127.0.0.1", 0), backlog=2000) as listener:
        pipe.send(listener.getsockname()[1])
        clients: list[_Client] = []
        threading.Thread(target=_accept, args=(listener, rate, clients), daemon=True).start()
        while pipe.recv() == "count":
            pipe.send(len(clients))
    os._exit(0)


def _accept(listener: socket.socket, rate: float, clients: list[_Client]) -> None:
    while True:
        link, _ = listener.accept()
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        clients.append(_Client(link, rate))
        threading.Thread(target=clients[-1].play, daemon=True).start()


class _Client:
    """
    One connection: a thread that receives, and one that sends.

    :param link: accepted.
    :param rate: events a second; 0 for as fast as it takes them.
    """

    def __init__(self, link: socket.socket, rate: float) -> None:
        self._link = link
        self._rate = rate
        self._channels: list[str] = []
        self._writing = threading.Lock()

    def play(self) -> None:
        try:
            self._open()
            while True:
                self._handle(json.loads(self._take_frame()))
        except (OSError, ValueError):
            self._link.close()

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
        self._send(
            head.encode() + _frame("pusher:connection_established", None, '{"socket_id":"1.1","activity_timeout":120}')
        )

    def _handle(self, frame: dict[str, Any]) -> None:
        if frame["event"] == "pusher:ping":
            self._send(_frame("pusher:pong", None, "{}"))
        elif frame["event"] == "pusher:subscribe":
            channel = frame["data"]["channel"]
            self._channels.append(channel)
            self._send(_frame("pusher_internal:subscription_succeeded", channel, "{}"))
            if len(self._channels) == 1:
                threading.Thread(target=self._pace if self._rate else self._flood, daemon=True).start()

    def _flood(self) -> None:
        sides = [book_side(number) for number in range(8)]
        try:
            while True:
                channels = tuple(self._channels)
                batch = b"".join(
                    _frame("updated", channels[number % len(channels)], sides[number % 8]) for number in range(_BATCH)
                )
                while channels == tuple(self._channels):
                    self._send(batch)
        except OSError:
            return

    def _pace(self) -> None:
        number, due = 0, time.perf_counter()
        body = book_side(0)
        try:
            while True:
                channel = self._channels[number % len(self._channels)]
                stamp = f"{int(time.time() * 100_000) % 100_000_000:08d}"
                self._send(_frame("updated", channel, body.replace(".00000000", f".{stamp}", 1)))
                number, due = number + 1, due + 1 / self._rate
                time.sleep(max(0.0, due - time.perf_counter()))
        except OSError:
            return

    def _send(self, data: bytes) -> None:
        with self._writing:
            self._link.sendall(data)

    def _take_frame(self) -> bytes:
        first, second = self._take(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self._take(2))
        mask = self._take(4)
        payload = bytes(byte ^ mask[place % 4] for place, byte in enumerate(self._take(length)))
        if first & 0x0F == 8:
            self._send(b"\x88\x00")
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
