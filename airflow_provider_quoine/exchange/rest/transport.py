"""One request on one connection: it tells whether a byte left, never repeats, and ends in bounded time."""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Callable
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import PoolManager
from urllib3.exceptions import HTTPError

ANSWER_READ_TIMEOUTS = 4
"""An answer may take this many read time-outs in all, however it drips (decided: 120 s with the default)."""

SEND_SLICE_BYTES = 64 * 1024
"""What has to leave within one connect time-out while a request is being sent; large documents take many."""


class NotConnectedError(Exception):
    """No byte of the request left; the text says why. Raised below ``requests``, which lets it through."""


class _BoundedReader(io.RawIOBase):
    """Reads an answer: each read ends by the socket's time-out, all of them together by a deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        # Through makefile, because it keeps the socket alive after http.client has closed its end.
        self._raw = sock.makefile("rb", buffering=0)
        self._each = sock.gettimeout() or 0.0
        self._deadline = time.monotonic() + ANSWER_READ_TIMEOUTS * self._each

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"the answer took longer than {ANSWER_READ_TIMEOUTS * self._each:g} s in all")
        self._sock.settimeout(min(self._each, left))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_BoundedReader(sock))


class _TellingConnection(http.client.HTTPConnection):
    """
    Mixed into urllib3's connections: it alone knows whether a byte of the request left.

    urllib3's exception classes do not tell: a reset in the TLS handshake and one after the POST are the same
    ProtocolError, and a handshake that times out is a ReadTimeoutError (both seen, urllib3 2.8).
    """

    response_class = _BoundedResponse
    before_send: Callable[[], None] | None = None

    def connect(self) -> None:
        try:
            super().connect()
        except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            reason = NotConnectedError(f"{type(error).__name__}: {error}")
        else:
            return
        raise reason

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        if self.before_send is not None:
            self.before_send()
        super().request(*args, **kwargs)

    def send(self, data: Any) -> None:
        # One sendall of everything would have to end within one time-out, and documents are large. A kept
        # connection still has the time-out that was left to its last read.
        for start in range(0, len(data), SEND_SLICE_BYTES):
            self.sock.settimeout(self.timeout)
            super().send(data[start : start + SEND_SLICE_BYTES])


class Transport(HTTPAdapter):
    """
    The adapter below ``requests``: no retry of any kind, connections that tell, answers in bounded time.

    :param before_send: called when the connection stands, right before the first byte of each request; what it
        raises stops the request.
    """

    def __init__(self, *, before_send: Callable[[], None] | None = None) -> None:
        self._before_send = before_send
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._make_tell(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not known:
            self._make_tell(manager)
        return manager

    def close(self) -> None:
        # urllib3 leaves this to the garbage collector, which may take its time.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - it is no dict and cannot be iterated
                manager.pools[key].close()
        super().close()

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().cert_verify(*args, **kwargs)  # type: ignore[no-untyped-call]
        except OSError as error:
            # REQUESTS_CA_BUNDLE names a file that is not there.
            raise NotConnectedError(str(error)) from None

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().get_connection_with_tls_context(*args, **kwargs)
        except (requests.RequestException, HTTPError, ValueError, TypeError) as error:
            # Without its text, which may quote a proxy's address with its password.
            reason = NotConnectedError(
                f"{type(error).__name__}: the base URL or a proxy of the environment (HTTPS_PROXY, HTTP_PROXY, "
                "ALL_PROXY) is malformed or of an unknown kind"
            )
        raise reason

    def _make_tell(self, manager: PoolManager) -> None:
        manager.pool_classes_by_scheme = {
            scheme: _telling(pool, self._before_send) for scheme, pool in manager.pool_classes_by_scheme.items()
        }


def _telling(pool: Any, before_send: Callable[[], None] | None) -> type:
    members = {"before_send": before_send and staticmethod(before_send)}
    connection = type(pool.ConnectionCls.__name__, (_TellingConnection, pool.ConnectionCls), members)
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})
