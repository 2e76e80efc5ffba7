"""The stream's socket: one thread connects and reads; any other may abort it, during TCP, proxy and TLS set-up too."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

STALL_SECONDS = 10.0
"""Time-out of one step: a TCP connect, a write into a full buffer."""

_PROXY_ANSWER_BYTES = 65_536

_Result = TypeVar("_Result", bytes, int)


class _SharedTlsSocket(ssl.SSLSocket):
    """
    A TLS socket that one thread may read while another writes.

    Before 3.13 CPython does not lock OpenSSL's state: a ping sent during a read can crash the process. The lock
    is never held while waiting for the network. Works on a socket that is set non-blocking.
    """

    _lock: threading.Lock

    def __new__(cls, *args: Any, **kwargs: Any) -> _SharedTlsSocket:
        self = super().__new__(cls, *args, **kwargs)
        self._lock = threading.Lock()
        return self

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        # Without a time-out: a key update brings no data, and the heartbeat finds a dead peer.
        return self._locked(lambda: super(_SharedTlsSocket, self).recv(buflen, flags), None)

    def send(self, data: Any, flags: int = 0) -> int:
        return self._locked(lambda: super(_SharedTlsSocket, self).send(data, flags), STALL_SECONDS)

    def _locked(self, call: Callable[[], _Result], limit: float | None) -> _Result:
        while True:
            try:
                with self._lock:
                    return call()
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            except ssl.SSLWantWriteError:
                wanted = select.POLLOUT
            poller = select.poll()
            poller.register(self, wanted)
            if not poller.poll(None if limit is None else limit * 1000):
                raise TimeoutError("the network took nothing for too long")


def tls_context(ca_path: str | None) -> ssl.SSLContext:
    """Return a verifying TLS context; reads files. OSError if ``ca_path`` cannot be read or holds no certificate."""
    is_directory = ca_path is not None and Path(ca_path).is_dir()
    context = ssl.create_default_context(
        cafile=None if is_directory else ca_path, capath=ca_path if is_directory else None
    )
    context.sslsocket_class = _SharedTlsSocket
    return context


@dataclass(kw_only=True, eq=False)
class AbortableSocket:
    """One attempt at a connection, which can be ended, except during name resolution. websocket-client hands out its
    socket only once it is connected (pusher, Defects of pysher)."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    _socket: socket.socket | None = None
    _aborted: bool = False

    def open(self) -> socket.socket:
        """Connect, by the environment's proxy if there is one, and do the TLS handshake. Blocks; raises OSError."""
        proxy = _proxy(self.host, encrypted=self.tls is not None)
        raw = self._dial(proxy.hostname or "", proxy.port or 80) if proxy else self._dial(self.host, self.port)
        if proxy:
            _tunnel(raw, f"{self.host}:{self.port}", proxy.username, proxy.password)
        if self.tls is None:
            return raw
        encrypted = self.tls.wrap_socket(raw, server_hostname=self.host, do_handshake_on_connect=False)
        self._hold(encrypted)
        encrypted.do_handshake()
        encrypted.settimeout(0)
        return encrypted

    def abort(self) -> None:
        """End the attempt or the connection, from any thread, without blocking. Repeat until its thread has ended."""
        self._aborted = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket.shutdown: that takes the TLS state away from under the reader.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the descriptor; only on the thread that reads, else another socket may get its number meanwhile."""
        if self._socket is not None:
            self._socket.close()

    def _dial(self, host: str, port: int) -> socket.socket:
        failure = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            raw = socket.socket(family, kind, protocol)
            self._hold(raw)
            raw.settimeout(STALL_SECONDS)
            try:
                raw.connect(address)
            except OSError as error:
                raw.close()
                failure = error
            else:
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return raw
        raise failure

    def _hold(self, raw: socket.socket) -> None:
        self._socket = raw
        if self._aborted:
            raw.close()
            raise ConnectionAbortedError("given up")


def _proxy(host: str, *, encrypted: bool) -> Any:
    """Return the parsed URL of the environment's proxy, chosen as by requests and stock pysher, or None."""
    url = urllib.request.getproxies().get("https" if encrypted else "http")
    if not url or urllib.request.proxy_bypass(host):
        return None
    return urlsplit(url if "://" in url else f"http://{url}")


def _tunnel(raw: socket.socket, target: str, user: str | None, password: str | None) -> None:
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if user:
        credentials = f"{unquote(user)}:{unquote(password or '')}".encode()
        request += f"Proxy-Authorization: Basic {base64.b64encode(credentials).decode()}\r\n"
    raw.sendall(f"{request}\r\n".encode())
    answer = b""
    # Byte by byte: the bytes after the header belong to the tunnel.
    while not answer.endswith(b"\r\n\r\n"):
        byte = raw.recv(1)
        answer += byte
        if not byte or len(answer) > _PROXY_ANSWER_BYTES:
            raise ConnectionError("the proxy gave no proper answer to CONNECT")
    status = answer.split(b"\r\n", 1)[0].decode("latin-1")
    if status.split(" ")[1:2] != ["200"]:
        raise ConnectionError(f"the proxy refused the stream: {status[:100]}")
