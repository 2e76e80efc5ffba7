"""Sends one request on one connection: never again by itself, in bounded time, and it tells whether a byte left."""

from __future__ import annotations

import http.client
import io
import math
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.exceptions import HTTPError

from airflow_provider_quoine.exchange.boot_clock import boot_time
from airflow_provider_quoine.exchange.rest.sending import NotConnectedError, send_in_time, slices_of

RESPONSE_READ_TIMEOUTS = 4
"""
A response may take this many read time-outs in all, however slowly it drips (decisions, Requests: 120 s with the
default).
"""


def in_flight_seconds(body_bytes: int, *, connect_timeout: float, read_timeout: float) -> float:
    """
    Bound the time from the first byte of a request to the end of its response.

    Each slice has one connect time-out to leave (:mod:`~airflow_provider_quoine.exchange.rest.sending`), by a clock
    that goes on while the process is stopped. One slice more is for the head. The kernel gives up what the server does
    not acknowledge for one connect time-out, which falls into the time for the response. The bound holds over TLS and
    through a proxy, but not where a proxy itself is spoken to by TLS.

    It does not cover the steps before the first byte: looking up the name (bounded by the system's resolver only),
    connecting (one connect time-out for each of the name's addresses), the TLS handshake, and a proxy's CONNECT.
    :class:`Transport` calls ``before_send`` after these steps: there, a caller can stop a request that took too long
    to connect. Nor does it cover a machine that sleeps while its kernel has bytes to deliver.

    :param body_bytes: size of the request's body.
    :param connect_timeout: seconds, as the request is sent with.
    :param read_timeout: seconds, as the request is sent with.
    :return: seconds.
    """
    return (1 + slices_of(body_bytes)) * connect_timeout + RESPONSE_READ_TIMEOUTS * read_timeout


_RESET, _FINISH = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)
"""How the kernel ends a connection that is closed: at once, or after what is in its buffer has been delivered."""


class _BoundedReader(io.RawIOBase):
    """Reads a response: each read ends by the socket's time-out, all of them together by a deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        # Through makefile, because it keeps the socket alive after http.client has closed its end.
        self._raw = sock.makefile("rb", buffering=0)
        self._each = sock.gettimeout() or 0.0
        self._deadline = time.monotonic() + RESPONSE_READ_TIMEOUTS * self._each

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"the response took longer than {RESPONSE_READ_TIMEOUTS * self._each:g} s in all")
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


class _TrackedConnection(http.client.HTTPConnection):
    """
    Mixed into urllib3's connections: raises :class:`NotConnectedError` where no byte of the request left.

    urllib3's exception classes do not tell that apart: a reset in the TLS handshake and one after the POST are the same
    ProtocolError, and a handshake that times out is a ReadTimeoutError (both seen, urllib3 2.8).
    """

    response_class = _BoundedResponse
    before_send: Callable[[], None] | None = None
    _parts: list[bytes] | None = None

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
        # Head and body are collected, because they have to leave together.
        self._parts = []
        super().request(*args, **kwargs)
        request, self._parts = b"".join(self._parts), None
        began, slice_seconds = boot_time(), self.timeout or 0.0
        if self.before_send is not None:
            self.before_send()
        self._expect_silence()
        # From the first byte on, so that it holds for a process that is killed or stopped as well.
        self.end_by(_RESET)
        self._tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, math.ceil(slice_seconds * 1000))
        send_in_time(self.sock, request, slice_seconds=slice_seconds, began=began)

    def send(self, data: Any) -> None:
        if self._parts is None:
            # A proxy's CONNECT.
            super().send(data)
        else:
            self._parts.append(data)

    @property
    def _tcp(self) -> socket.socket:
        # urllib3's TLS inside of TLS is no socket, but has one.
        tcp: socket.socket = getattr(self.sock, "socket", self.sock)
        return tcp

    def _expect_silence(self) -> None:
        # What can be read now would be taken for the answer to a request that is yet to be sent.
        self.sock.settimeout(0)
        try:
            early = self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            # TLS has taken its session tickets out by now.
            return
        except OSError as error:
            reason = NotConnectedError(f"{type(error).__name__}: {error}")
        else:
            reason = NotConnectedError(
                "bytes came before the request was sent, which answer something else"
                if early
                else "the server closed the connection before the request was sent"
            )
        raise reason

    def end_by(self, linger: bytes) -> None:
        """
        Say how the kernel ends the connection when it is closed.

        :param linger: :data:`_RESET` as long as the request may have left in part, or its answer was not read whole:
            what has not arrived when the client gives up must not arrive later, when a person has settled the matter.
        """
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


class _TrackedPool(HTTPConnectionPool):
    """Mixed into urllib3's pools."""

    def _put_conn(self, conn: Any) -> None:
        # A connection comes back, and is still open, only after its answer was read whole.
        if conn is not None and conn.sock is not None:
            conn.end_by(_FINISH)
        super()._put_conn(conn)


class Transport(HTTPAdapter):
    """
    The adapter below ``requests``: no retry of any kind, tracked connections, responses in bounded time.

    :param before_send: called when the connection is up, right before the first byte of each request; an exception
        that it raises stops the request.
    """

    def __init__(self, *, before_send: Callable[[], None] | None = None) -> None:
        self._before_send = before_send
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._track_connections(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not known:
            self._track_connections(manager)
        return manager

    def close(self) -> None:
        # urllib3 leaves this to the garbage collector.
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

    def _track_connections(self, manager: PoolManager) -> None:
        manager.pool_classes_by_scheme = {
            scheme: _tracked(pool, self._before_send) for scheme, pool in manager.pool_classes_by_scheme.items()
        }


def _tracked(pool: Any, before_send: Callable[[], None] | None) -> type:
    members = {"before_send": before_send and staticmethod(before_send)}
    connection = type(pool.ConnectionCls.__name__, (_TrackedConnection, pool.ConnectionCls), members)
    return type(pool.__name__, (_TrackedPool, pool), {"ConnectionCls": connection})
