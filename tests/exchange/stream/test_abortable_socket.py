"""The stream's socket: TLS, proxies, and abort in every phase of connecting."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import select
import socket
import ssl
import sys
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from airflow_provider_quoine.exchange.errors import QuoineStreamError
from airflow_provider_quoine.exchange.stream.abortable_socket import AbortableSocket, tls_context
from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint
from tests.exchange.stream.pusher_servers import (
    GREETING,
    KEY,
    accept_only,
    black_hole,
    confirm,
    greet_and_confirm,
    tcp_server,
    websocket_server,
)
from tests.support.streams import open_stream, ready, stream_threads, until


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_an_own_authority_is_trusted_when_named(tls: ssl.SSLContext, certificate: Path) -> None:
    pings = 0

    async def count_pings(connection: ServerConnection) -> None:
        nonlocal pings
        await connection.send(GREETING)
        await confirm(connection, "updates")
        async for message in connection:
            pings += "pusher:ping" in str(message)
            await connection.send('{"event": "pusher:pong"}')

    async with websocket_server(count_pings, tls=tls) as endpoint:
        async with open_stream(
            dataclasses.replace(endpoint, ca_path=str(certificate)), activity_timeout=0.05
        ) as stream:
            await until(lambda: pings >= 3)
            assert (stream.connections, stream.problem) == (1, None)
        assert stream_threads() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_certificate_of_an_unknown_authority_or_another_name_is_refused(
    tls: ssl.SSLContext, certificate: Path, host: str
) -> None:
    ca_path = str(certificate) if host == "localhost" else None

    async with websocket_server(greet_and_confirm, tls=tls) as endpoint:
        wrong = dataclasses.replace(endpoint, ca_path=ca_path, host=host)
        async with open_stream(wrong) as stream:
            await until(lambda: "CERTIFICATE_VERIFY_FAILED" in (stream.problem or ""))
            assert stream.connections == 0


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_ca_file_that_cannot_be_used_is_an_error_at_once(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)

    endpoint = PusherEndpoint(key=KEY, host="127.0.0.1", port=1, ca_path=str(path))
    with pytest.raises(QuoineStreamError, match=r"ca\.pem.*Correct its path"):
        async with open_stream(endpoint):
            pass
    await until(lambda: stream_threads() == [])


@pytest.mark.long
def test_a_thread_may_write_while_another_reads_over_tls(tls: ssl.SSLContext, certificate: Path) -> None:
    amount = 200_000_000
    near, far = socket.socketpair()
    counted = dict.fromkeys(("answered", "read"), 0)

    def answer() -> None:
        """Send and take at the same time, on one thread."""
        with tls.wrap_socket(far, server_side=True) as there:
            there.settimeout(0)
            while counted["answered"] < amount or counted["read"] < amount:
                select.select([there], [there], [], 10)
                for move in (lambda: there.send(b"x" * 16_000), lambda: take(there)):
                    with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                        move()

    def take(there: ssl.SSLSocket) -> None:
        counted["answered"] += len(there.recv(65_536))

    def read() -> None:
        while counted["read"] < amount:
            data = here.recv(20_000)
            assert data.count(b"x") == len(data) > 0
            counted["read"] += len(data)

    def write() -> None:
        while counted["answered"] < amount or counted["read"] < amount:
            here.send(b"y" * 3_000)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(3) as threads:
            answering = threads.submit(answer)
            here = tls_context(str(certificate)).wrap_socket(
                near, server_hostname="127.0.0.1", do_handshake_on_connect=False
            )
            with here:
                here.do_handshake()
                here.settimeout(0)
                wait([threads.submit(read), threads.submit(write), answering], 200, FIRST_EXCEPTION)
                here.shutdown(socket.SHUT_RDWR)
    finally:
        sys.setswitchinterval(interval)
    assert counted["read"] >= amount
    assert counted["answered"] >= amount


@pytest.mark.parametrize("phase", ["tcp", "tls", "proxy"])
async def test_every_phase_of_connecting_can_be_cut_off(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with black_hole() if phase == "tcp" else tcp_server(accept_only) as endpoint:
        if phase == "proxy":
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{endpoint.port}")
        hung = dataclasses.replace(endpoint, tls=phase == "tls")
        async with open_stream(hung, connect_timeout=0.2) as stream:
            await until(lambda: stream.problem == "the server did not greet in time")
            start = time.monotonic()
        assert time.monotonic() - start < 30
        assert stream_threads() == []


async def test_what_was_given_up_is_not_opened_any_more() -> None:
    async with tcp_server(accept_only) as endpoint:
        link = AbortableSocket(host=endpoint.host, port=endpoint.port, tls=None)
        link.abort()
        with pytest.raises(ConnectionAbortedError):
            await asyncio.to_thread(link.open)


def proxy(requests: list[str], answer: str = "HTTP/1.1 200 Connection established\r\n\r\n") -> Any:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        requests.append(request)
        writer.write(answer.encode())
        if " 200 " in answer:
            host, port = request.split(" ")[1].rsplit(":", 1)
            there, away = await asyncio.open_connection(host, int(port))
            await asyncio.gather(pump(reader, away), pump(there, writer), return_exceptions=True)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                sink.write(data)
        finally:
            sink.close()

    return serve


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_proxy_of_the_environment_is_used_with_its_credentials(
    encrypted: bool, tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[str] = []

    async with (
        tcp_server(proxy(requests)) as through,
        websocket_server(greet_and_confirm, tls=tls if encrypted else None) as endpoint,
    ):
        name = "https_proxy" if encrypted else "http_proxy"
        monkeypatch.setenv(name, f"http://user:p%40ss@127.0.0.1:{through.port}")
        async with open_stream(dataclasses.replace(endpoint, ca_path=str(certificate))) as stream:
            await ready(stream)
        assert requests[0].startswith(f"CONNECT 127.0.0.1:{endpoint.port} HTTP/1.1\r\n")
        assert "Proxy-Authorization: Basic dXNlcjpwQHNz\r\n" in requests[0]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with open_stream(dataclasses.replace(endpoint, ca_path=str(certificate))) as stream:
            await ready(stream)
        assert len(requests) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the proxy refused the stream: HTTP/1.1 407"),
        ("garbage", "no proper answer"),
    ],
)
async def test_a_proxy_that_refuses_is_named_as_the_cause(
    answer: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tcp_server(proxy([], answer)) as through:
        monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{through.port}")
        endpoint = PusherEndpoint(key=KEY, host="stream.invalid", port=80, tls=False)
        async with open_stream(endpoint) as stream:
            await until(lambda: words in (stream.problem or ""))
            assert "secret" not in (stream.problem or "")


def test_a_directory_of_certificates_may_be_trusted(tmp_path: Path) -> None:
    assert tls_context(str(tmp_path)).verify_mode is ssl.CERT_REQUIRED
    assert tls_context(str(tmp_path)).check_hostname
