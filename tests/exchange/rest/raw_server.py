"""A server of a few lines for misbehaviour that needs bytes on the wire; all else is tested on the sandbox."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Script = Callable[["RawServer", socket.socket], None]


class RawServer:
    """
    Plays one script per connection, in their order, on a free port of 127.0.0.1.

    :param scripts: each handles one connection; when they are used up, further connections are closed at once.
    :param tls: wraps each connection before its script.
    """

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self.scripts = list(scripts)
        self.tls = tls
        self.requests: list[bytes] = []
        self.connections = 0
        self.stopping = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            script = self.scripts.pop(0) if self.scripts else close
            with connection:
                connection.settimeout(10)
                try:
                    if self.tls:
                        with self.tls.wrap_socket(connection, server_side=True) as wrapped:
                            script(self, wrapped)
                    else:
                        script(self, connection)
                except OSError:
                    pass

    def take_request(self, connection: socket.socket) -> bytes:
        """Read one whole request and remember it."""
        request = b""
        while b"\r\n\r\n" not in request:
            request += _some(connection)
        head, _, body = request.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
        )
        while len(body) < length:
            body += _some(connection)
        self.requests.append(head + b"\r\n\r\n" + body)
        return self.requests[-1]

    def stop(self) -> None:
        """Stop listening and end the thread."""
        self.stopping.set()
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(15)
        assert not self.thread.is_alive()


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the client closed")
    return data


@contextmanager
def raw_server(*scripts: Script, tls: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    """Run a :class:`RawServer` for the length of a block."""
    server = RawServer(*scripts, tls=tls)
    server.thread.start()
    try:
        yield server
    finally:
        server.stop()


def http_answer(status: int, body: bytes, *headers: str) -> bytes:
    """Write an answer with a right Content-Length."""
    lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answer(*answers: bytes) -> Script:
    """Answer the requests of one connection with these bytes in turn, then close it."""

    def script(server: RawServer, connection: socket.socket) -> None:
        for data in answers:
            server.take_request(connection)
            connection.sendall(data)

    return script


def close(server: RawServer, connection: socket.socket) -> None:
    """Close without reading."""


def reset(server: RawServer, connection: socket.socket) -> None:
    """Read the request, then reset the connection."""
    server.take_request(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silent(server: RawServer, connection: socket.socket) -> None:
    """Read the request and never answer."""
    server.take_request(connection)
    server.stopping.wait(60)


def drip(start: bytes, seconds: float) -> Script:
    """Read the request, send the start, then one byte every so many seconds for as long as somebody listens."""

    def script(server: RawServer, connection: socket.socket) -> None:
        server.take_request(connection)
        connection.sendall(start)
        while not server.stopping.wait(seconds):
            connection.sendall(b"x")

    return script
