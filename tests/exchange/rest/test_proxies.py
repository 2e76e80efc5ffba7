"""Proxies are those of the environment, as requests knows them, and .netrc has no say."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from airflow_provider_quoine.exchange.errors import QuoineConnectionError
from tests.exchange.rest.conftest import MakeClient, order
from tests.exchange.rest.raw_server import RawServer, answer, http_answer, raw_server

OK = http_answer(200, b'{"id":20,"amount":0.5,"address":"1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj","state":"pending"}')


def test_a_proxy_of_the_environment_carries_the_request(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_server(answer(OK)) as proxy:
        client = make_client("http://127.0.0.1:1/api")
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        client.get_withdrawal(withdrawal_id="20")

    assert proxy.requests[0].startswith(b"GET http://127.0.0.1:1/api/btc_withdrawals/20 HTTP/1.1\r\n")


def test_no_proxy_is_respected(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server() as proxy, raw_server(answer(OK)) as server:
        client = make_client(server.url)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        client.get_withdrawal(withdrawal_id="20")

    assert proxy.connections == 0


def test_a_proxy_that_refuses_the_tunnel_sent_nothing(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def refuse(server: RawServer, connection: socket.socket) -> None:
        seen.append(server.take_request(connection))
        connection.sendall(http_answer(407, b"", "Proxy-Authenticate: Basic"))

    with raw_server(refuse) as proxy:
        client = make_client("https://exchange.invalid")
        monkeypatch.setenv("HTTPS_PROXY", f"http://partner:pr0xy-secret@127.0.0.1:{proxy.port}")
        with pytest.raises(QuoineConnectionError, match="407") as caught:
            client.get_withdrawal(withdrawal_id="20")

    assert seen[0].startswith(b"CONNECT exchange.invalid:443 ")
    assert b"APIAuth" not in seen[0]
    assert "pr0xy-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "http://partner:pr0xy-secret@127.0.0.1:1",
        "http://partner:pr0xy-secret@",
        "http://partner:pr0xy-secret@127.0.0.1:port",
        "gopher://partner:pr0xy-secret@127.0.0.1:1",
        "http://partner:pr0xy-secret@[::1",
    ],
)
def test_a_proxy_that_cannot_be_used_sent_nothing_and_its_password_stays_hidden(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    client = make_client("https://exchange.invalid")
    monkeypatch.setenv("HTTPS_PROXY", address)
    with pytest.raises(QuoineConnectionError) as caught:
        client.get_withdrawal(withdrawal_id="20")

    assert "pr0xy-secret" not in str(caught.value)


def test_netrc_neither_adds_nor_replaces_credentials(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\ndefault login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with raw_server(answer(OK)) as server:
        make_client(server.url).get_withdrawal(withdrawal_id="20")

    assert b"\r\nAuthorization: APIAuth 25:" in server.requests[0]
    assert b"Basic" not in server.requests[0]


def test_a_proxy_that_is_spoken_to_by_tls_carries_tls(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext, certificate: Path
) -> None:
    def pass_on(server: RawServer, connection: socket.socket) -> None:
        server.take_request(connection)
        with socket.create_connection(("127.0.0.1", exchange.port)) as onward:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=copy, args=(onward, connection))
            back.start()
            copy(connection, onward)
            back.join(10)

    with raw_server(answer(OK), tls=tls) as exchange, raw_server(pass_on, tls=tls) as proxy:
        client = make_client(exchange.url, verify=str(certificate))
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        created = client.create_withdrawal(order=order(), auth_code="13332")

    assert created.id == "20"
    assert [request.split()[0] for request in exchange.requests] == [b"POST"]


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
