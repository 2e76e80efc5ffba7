"""A process may be stopped or killed in the middle of a request: what has not left by then never arrives."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.exchange.rest.raw_server import RawServer, raw_server
from tests.exchange.rest.stopping_process import CONNECT_TIMEOUT, SIZES

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[3]
#: More than a request's slices may take in all: those of the largest document, one for the rest, and one to be sure.
LONG = CONNECT_TIMEOUT * (SIZES["user with large documents"] // (64 * 1024) + 2)


class Received:
    """What came on a connection."""

    def __init__(self) -> None:
        self.bytes = b""
        self.may_read = threading.Event()
        self.ended = threading.Event()

    def script(self, server: RawServer, connection: socket.socket) -> None:
        try:
            assert self.may_read.wait(100)
            while data := connection.recv(64 * 1024):
                self.bytes += data
        except ConnectionError:
            pass
        finally:
            self.ended.set()

    @property
    def is_whole(self) -> bool:
        head, separator, body = self.bytes.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        return bool(separator) and len(body) == int(lengths[0])


@contextmanager
def stopped(server: RawServer, certificate: Path, what: str, writes: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that sends, until it stops itself after so many writes."""
    module = "tests.exchange.rest.stopping_process"
    command = [sys.executable, "-m", module, server.url, str(certificate), what, str(writes)]
    # No proxy of this machine, and nonces that are nobody else's.
    with subprocess.Popen(command, cwd=ROOT, env={"TMPDIR": str(certificate.parent)}) as process:
        try:
            end = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            assert end is not None
            assert end.si_status == signal.SIGSTOP
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("scheme", "what", "writes", "left"),
    [
        ("http", "withdrawal", 0, "nothing"),
        ("http", "withdrawal", 1, "all"),
        ("https", "withdrawal", 1, "all"),
        ("http", "user", 1, "all"),
        ("http", "user with large documents", 0, "nothing"),
        ("http", "user with large documents", 1, "a part"),
        ("https", "user with large documents", 3, "a part"),
    ],
)
def test_a_process_that_wakes_up_late_sends_nothing_more(
    tls: ssl.SSLContext, certificate: Path, scheme: str, what: str, writes: int, left: str
) -> None:
    """Else the rest of a request arrives after a person has settled the matter."""
    received = Received()
    received.may_read.set()
    with raw_server(received.script, tls=tls if scheme == "https" else None) as server:
        with stopped(server, certificate, what, writes) as process:
            time.sleep(LONG)
            before, was_whole = received.bytes, received.is_whole
            process.send_signal(signal.SIGCONT)
            assert process.wait(100) == 0
        assert received.ended.wait(60)
    assert ("all" if was_whole else "a part" if before else "nothing") == left
    assert received.bytes == before


def let_it_be(process: subprocess.Popen[bytes]) -> None:
    """Leave the process stopped."""


@pytest.mark.parametrize("then", [let_it_be, subprocess.Popen.kill])
def test_what_a_stopped_or_killed_process_has_left_in_the_kernel_does_not_arrive_late(
    certificate: Path, then: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    """A server that does not read stands for a network that is cut."""
    received = Received()
    with raw_server(received.script) as server:
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with stopped(server, certificate, "user", 1) as process:
            then(process)
            time.sleep(LONG)
            received.may_read.set()
            assert received.ended.wait(60)
    assert not received.is_whole
