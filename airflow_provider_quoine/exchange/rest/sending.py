"""Hands a request to the kernel: a small one in one write, and nothing once its time is over."""

from __future__ import annotations

import math
import socket
import ssl
from typing import Any

from urllib3.util import wait_for_read, wait_for_write

from airflow_provider_quoine.exchange.boot_clock import boot_time

SEND_SLICE_BYTES = 64 * 1024
"""A request is sent in slices of this size; each has to leave within one connect time-out."""


class NotConnectedError(Exception):
    """No byte of the request left; the text says why. Raised below ``requests``, which lets it through."""


def slices_of(request_bytes: int) -> int:
    """Return in how many slices a request of this size is sent."""
    return math.ceil(request_bytes / SEND_SLICE_BYTES)


def send_in_time(sock: Any, request: bytes, *, slice_seconds: float, began: float) -> None:
    """
    Send a whole request, head and body.

    A process may be stopped at any moment, and wake up when a person has settled what became of the request. So the
    clock is read right before each write. A request of one slice leaves in one write (over TLS one per 16 KiB), if the
    kernel has room for it: then no stop can part it.

    :param sock: the connection; it is left in a mode without blocking.
    :param slice_seconds: how long each slice may take.
    :param began: of :func:`~airflow_provider_quoine.exchange.boot_clock.boot_time`. All slices together must have left
        by ``slice_seconds`` for each from here on.
    :raises NotConnectedError: it is too late already. No byte has left.
    :raises OSError: it may have left in part.
    """
    last, view = began + slices_of(len(request)) * slice_seconds, memoryview(request)
    if boot_time() > last:
        raise NotConnectedError("the last check before the first byte took too long, or the process was stopped in it")
    # urllib3's TLS inside of TLS is no socket, and loses bytes if it must not block.
    sock.settimeout(0 if isinstance(sock, socket.socket) else slice_seconds)
    for start in range(0, len(view), SEND_SLICE_BYTES):
        send_slice(sock, view[start : start + SEND_SLICE_BYTES], until=min(boot_time() + slice_seconds, last))


def send_slice(sock: Any, data: memoryview, *, until: float) -> None:
    """Send one slice, and nothing of it after a moment of the boot-time clock."""
    wait = wait_for_write
    while data:
        if not wait(sock, max(0.0, until - boot_time())) or boot_time() > until:
            raise TimeoutError("the request could not be sent in time, or the process was stopped meanwhile")
        try:
            data = data[sock.send(data) :]
            wait = wait_for_write
        except (BlockingIOError, ssl.SSLWantWriteError):
            wait = wait_for_write
        except ssl.SSLWantReadError:
            wait = wait_for_read
