"""Which failure means that no byte left, which that it may have been carried out, and that each one ends in time."""

from __future__ import annotations

import gzip
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quoine.exchange.errors import (
    QuoineAnswerLostError,
    QuoineConnectionError,
    QuoineError,
    QuoineInputError,
    QuoineServerError,
    QuoineUnreadableAnswerError,
)
from airflow_provider_quoine.exchange.models import Document, OnboardingUser
from airflow_provider_quoine.exchange.rest import client as client_module
from airflow_provider_quoine.exchange.rest import sending
from airflow_provider_quoine.exchange.rest.client import QuoineClient
from airflow_provider_quoine.exchange.rest.sending import SEND_SLICE_BYTES
from airflow_provider_quoine.exchange.rest.transport import Transport
from tests.exchange.rest.conftest import Documents, MakeClient, order
from tests.exchange.rest.raw_server import (
    RawServer,
    Script,
    answer,
    close,
    drip,
    http_answer,
    raw_server,
    reset,
    silent,
)

WITHDRAWAL = b'{"id":20,"amount":0.5,"address":"1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj","state":"pending"}'
PASSWORD = "Abcdefg1"
OK = http_answer(200, WITHDRAWAL)


#: Seconds: far more than a busy machine needs for what ends by a time-out of a second, and less than what does not.
PATIENCE = 30.0


def withdraw(client: QuoineClient) -> None:
    client.create_withdrawal(order=order(), auth_code="13332")


def look_up(client: QuoineClient) -> None:
    client.get_withdrawal(withdrawal_id="20")


def failure(call: Callable[[QuoineClient], None], client: QuoineClient) -> QuoineError:
    with pytest.raises(QuoineError) as caught:
        call(client)
    # Nothing behind the error that holds the request with its signature and code.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "13332" not in str(caught.value)
    return caught.value


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_refused_connection_sent_nothing(make_client: MakeClient) -> None:
    error = failure(withdraw, make_client(f"http://127.0.0.1:{free_port()}"))

    assert type(error) is QuoineConnectionError
    assert not error.may_have_been_carried_out
    assert "refused" in str(error)
    assert "nothing was done at the exchange" in str(error)


def test_a_host_without_an_address_sent_nothing(make_client: MakeClient) -> None:
    error = failure(withdraw, make_client("https://exchange.invalid"))

    assert type(error) is QuoineConnectionError
    assert "exchange.invalid" in str(error)


def test_a_connect_time_out_sent_nothing(make_client: MakeClient) -> None:
    # A full backlog: Linux then leaves further SYNs unanswered.
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        client = make_client(f"http://127.0.0.1:{server.getsockname()[1]}", connect_timeout=0.3)
        begun = time.monotonic()
        error = failure(withdraw, client)
        for one in waiting:
            one.close()

    assert type(error) is QuoineConnectionError
    assert "timed out" in str(error)
    assert time.monotonic() - begun < PATIENCE


def test_tls_to_a_plain_port_sent_nothing(make_client: MakeClient) -> None:
    with raw_server(answer(http_answer(400, b"plain"))) as server:
        error = failure(withdraw, make_client(f"https://127.0.0.1:{server.port}", connect_timeout=1.0))

    assert type(error) is QuoineConnectionError
    assert server.requests == []


def test_a_reset_in_the_tls_handshake_sent_nothing(make_client: MakeClient) -> None:
    with raw_server(close) as server:
        error = failure(withdraw, make_client(f"https://127.0.0.1:{server.port}"))

    assert type(error) is QuoineConnectionError


def test_a_tls_handshake_that_hangs_sent_nothing_and_ends_by_the_connect_time_out(make_client: MakeClient) -> None:
    def hang(server: RawServer, connection: socket.socket) -> None:
        server.stopping.wait(2 * PATIENCE)

    with raw_server(hang) as server:
        begun = time.monotonic()
        error = failure(
            withdraw, make_client(f"https://127.0.0.1:{server.port}", connect_timeout=0.3, read_timeout=2 * PATIENCE)
        )

    assert type(error) is QuoineConnectionError
    assert time.monotonic() - begun < PATIENCE


def test_a_certificate_that_nobody_vouches_for_is_refused_before_anything_is_sent(
    make_client: MakeClient, tls: ssl.SSLContext
) -> None:
    with raw_server(answer(OK), tls=tls) as server:
        error = failure(withdraw, make_client(server.url))

    assert type(error) is QuoineConnectionError
    assert "certificate verify failed" in str(error)
    assert server.requests == []


def test_a_ca_of_ones_own_is_trusted_by_its_path(
    make_client: MakeClient, tls: ssl.SSLContext, certificate: Path
) -> None:
    with raw_server(answer(OK), tls=tls) as server:
        withdraw(make_client(server.url, verify=str(certificate)))

    assert len(server.requests) == 1


def test_a_ca_file_that_is_none_sent_nothing(make_client: MakeClient, tls: ssl.SSLContext, tmp_path: Path) -> None:
    rubbish = tmp_path / "ca.pem"
    rubbish.write_text("no certificate")
    with raw_server(answer(OK), tls=tls) as server:
        error = failure(withdraw, make_client(server.url, verify=str(rubbish)))

    assert type(error) is QuoineConnectionError


def test_a_ca_bundle_of_the_environment_that_is_gone_sent_nothing(
    make_client: MakeClient, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_server(answer(OK), tls=tls) as server:
        client = make_client(server.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
        error = failure(withdraw, client)

    assert type(error) is QuoineConnectionError
    assert "/nowhere/ca.pem" in str(error)


LOST: dict[str, Script] = {
    "reset before the answer": reset,
    "closed without an answer": answer(b""),
    "closed within the status line": answer(b"HTTP/1.1 20"),
    "body cut short": answer(OK[:-5]),
    "refusal cut short": answer(http_answer(422, b'{"message": "no"}')[:-3]),
    "chunks cut short": answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"),
    "no chunks at all": answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nrubbish\r\n"),
    "no HTTP": answer(b"\x00\xff rubbish\r\n\r\n"),
    "two lengths": answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}}"),
    "gzip that is none": answer(http_answer(200, b"rubbish", "Content-Encoding: gzip")),
    "endless headers": answer(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2000),
}


@pytest.mark.parametrize("script", LOST.values(), ids=LOST.keys())
def test_an_answer_that_cannot_be_read_may_have_been_carried_out_and_is_not_asked_for_again(
    make_client: MakeClient, script: Script
) -> None:
    with raw_server(script, answer(OK)) as server:
        error = failure(withdraw, make_client(server.url))

    assert type(error) is QuoineAnswerLostError
    assert error.may_have_been_carried_out
    assert "may have carried it out" in str(error)
    assert server.connections == 1


def test_the_same_after_a_tls_handshake(make_client: MakeClient, tls: ssl.SSLContext, certificate: Path) -> None:
    with raw_server(answer(b""), tls=tls) as server:
        error = failure(withdraw, make_client(server.url, verify=str(certificate)))

    assert type(error) is QuoineAnswerLostError
    assert len(server.requests) == 1


def test_a_lost_answer_to_a_read_is_said_to_be_harmless(make_client: MakeClient) -> None:
    with raw_server(reset) as server:
        error = failure(look_up, make_client(server.url))

    assert type(error) is QuoineAnswerLostError
    assert "only reads" in str(error)


def test_a_silent_server_ends_by_the_read_time_out(make_client: MakeClient) -> None:
    with raw_server(silent) as server:
        begun = time.monotonic()
        error = failure(withdraw, make_client(server.url, read_timeout=0.3))

    assert type(error) is QuoineAnswerLostError
    assert 0.3 <= time.monotonic() - begun < PATIENCE


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
    ids=["status line", "headers", "body", "body without a length"],
)
@pytest.mark.long
def test_a_server_that_drips_does_not_hold_a_worker(make_client: MakeClient, start: bytes) -> None:
    with raw_server(drip(start, 0.1)) as server:
        begun = time.monotonic()
        error = failure(withdraw, make_client(server.url, read_timeout=1.0))

    assert type(error) is QuoineAnswerLostError
    # Four read time-outs in all.
    assert 3.9 <= time.monotonic() - begun < PATIENCE


@pytest.mark.long
def test_a_server_that_drips_over_tls_does_not_either(
    make_client: MakeClient, tls: ssl.SSLContext, certificate: Path
) -> None:
    with raw_server(drip(b"HTTP/1.1 200 OK\r\n\r\n", 0.1), tls=tls) as server:
        begun = time.monotonic()
        error = failure(withdraw, make_client(server.url, read_timeout=1.0, verify=str(certificate)))

    assert type(error) is QuoineAnswerLostError
    assert 3.9 <= time.monotonic() - begun < PATIENCE


def test_a_server_that_does_not_take_the_documents_ends_by_the_connect_time_out(
    make_client: MakeClient, user: OnboardingUser, documents: Documents
) -> None:
    def take_nothing(server: RawServer, connection: socket.socket) -> None:
        server.stopping.wait(2 * PATIENCE)

    def onboard(client: QuoineClient) -> None:
        large = Document(name="large.pdf", content=b"x" * 20_000_000)
        client.create_onboarding_user(user=user, password=PASSWORD, **(documents | {"id_document": large}))

    with raw_server(take_nothing) as server:
        begun = time.monotonic()
        error = failure(onboard, make_client(server.url, connect_timeout=0.4, read_timeout=2 * PATIENCE))

    assert type(error) is QuoineAnswerLostError
    assert time.monotonic() - begun < PATIENCE


@pytest.mark.long
def test_large_documents_may_take_longer_than_one_time_out_in_all(
    make_client: MakeClient, user: OnboardingUser, documents: Documents
) -> None:
    def take_slowly(server: RawServer, connection: socket.socket) -> None:
        end = b""
        while not end.endswith(b"--\r\n"):
            end = (end + connection.recv(100_000))[-8:]
            server.stopping.wait(0.04)
        connection.sendall(http_answer(200, b'{"success":true,"user_id":25}'))

    large = Document(name="large.pdf", content=b"x" * 12_000_000)
    with raw_server(take_slowly) as server:
        begun = time.monotonic()
        client = make_client(server.url, connect_timeout=2.0)
        user_id = client.create_onboarding_user(user=user, password=PASSWORD, **(documents | {"id_document": large}))

    assert user_id == "25"
    assert time.monotonic() - begun > 2.0


class SmallBuffersTransport(Transport):
    """Its kernel takes little of a request before the server reads it."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, socket_options=[(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)], **kwargs)


def read_slowly(*, seconds_per_slice: float) -> Script:
    """Take a request's body at an even pace, then answer."""

    def script(server: RawServer, connection: socket.socket) -> None:
        head, _, body = connection.recv(16 * 1024).partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        read = len(body)
        while read < length and not server.stopping.wait(seconds_per_slice / 4):
            read += len(connection.recv(min(SEND_SLICE_BYTES // 4, length - read), socket.MSG_WAITALL))
        connection.sendall(http_answer(200, b'{"success":true,"user_id":25}'))

    return script


def onboard(client: QuoineClient, user: OnboardingUser, documents: Documents) -> float:
    """Return for how many seconds the request was in flight."""
    began: list[float] = []
    client.create_onboarding_user(
        user=user, password=PASSWORD, before_send=lambda: began.append(time.monotonic()), **documents
    )
    return time.monotonic() - began[0]


def stated(client: QuoineClient, documents: Documents) -> float:
    """Return the bound for a request with these documents."""
    return client.in_flight_seconds(documents["id_document"], documents["proof_address"], documents["bank_statement"])


@pytest.mark.long
def test_a_slow_upload_of_documents_is_in_flight_no_longer_than_stated(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, user: OnboardingUser, documents: Documents
) -> None:
    monkeypatch.setattr(client_module, "Transport", SmallBuffersTransport)
    documents["id_document"] = Document(name="large.pdf", content=b"x" * 56 * SEND_SLICE_BYTES)
    seconds = 0.75
    with raw_server(read_slowly(seconds_per_slice=0.1)) as server:
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        client = make_client(server.url, connect_timeout=seconds, read_timeout=seconds)
        in_flight = onboard(client, user, documents)

    # Three connect and four read time-outs, which were taken for the bound once, are too few.
    assert 3 * seconds + 4 * seconds < in_flight <= stated(client, documents)


def test_the_stated_time_in_flight_grants_a_connect_time_out_to_each_slice_that_is_sent(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, user: OnboardingUser, documents: Documents
) -> None:
    slices: list[int] = []
    send_slice = sending.send_slice

    def count(sock: socket.socket, data: memoryview, *, until: float) -> None:
        slices.append(len(data))
        send_slice(sock, data, until=until)

    monkeypatch.setattr(sending, "send_slice", count)
    with raw_server(*[answer(http_answer(200, b'{"success":true,"user_id":25}'))] * 4) as server:
        client = make_client(server.url, connect_timeout=3.0, read_timeout=5.0)
        for size in (1, SEND_SLICE_BYTES - 500, SEND_SLICE_BYTES, 5 * SEND_SLICE_BYTES + 1):
            documents["proof_address"] = Document(name="bill.pdf", content=b"x" * size)
            slices.clear()
            onboard(client, user, documents)
            assert max(slices) <= SEND_SLICE_BYTES
            needed = 3.0 * len(slices) + 4 * 5.0
            assert needed <= stated(client, documents) <= needed + 2 * 3.0


def test_over_tls_too_a_slice_has_one_connect_time_out(
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    user: OnboardingUser,
    documents: Documents,
    tls: ssl.SSLContext,
    certificate: Path,
) -> None:
    def take_little(server: RawServer, connection: socket.socket) -> None:
        while not server.stopping.wait(0.05):
            connection.recv(1024)

    monkeypatch.setattr(client_module, "Transport", SmallBuffersTransport)
    documents["id_document"] = Document(name="large.pdf", content=b"x" * 28 * SEND_SLICE_BYTES)
    with raw_server(take_little, tls=tls) as server:
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        client = make_client(server.url, verify=str(certificate), connect_timeout=0.5, read_timeout=2 * PATIENCE)
        began = time.monotonic()
        with pytest.raises(QuoineAnswerLostError):
            onboard(client, user, documents)

    # The second slice at the latest: the kernel may have taken the first. All 28 of them take the server 90 s.
    assert time.monotonic() - began < PATIENCE


def test_fields_beyond_the_stated_time_in_flight_are_not_sent(
    make_client: MakeClient, user: OnboardingUser, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_FIELDS_BYTES", 100)
    with raw_server() as server:
        client = make_client(server.url)
        with pytest.raises(QuoineInputError, match=r"longer than 100 bytes.*Nothing was sent"):
            onboard(client, user, documents)

    assert server.connections == 0


def test_headers_that_break_off_after_a_yes_may_have_been_carried_out(make_client: MakeClient) -> None:
    with raw_server(answer(b"HTTP/1.1 200 OK\r\nContent-Len")) as server:
        error = failure(withdraw, make_client(server.url))

    assert error.may_have_been_carried_out


def test_an_answer_without_end_is_cut_and_known_by_its_status(make_client: MakeClient) -> None:
    endless = b" " * (client_module.MAX_RESPONSE_BYTES + 100_000)
    with raw_server(*(answer(http_answer(status, endless)) for status in (200, 422, 500))) as server:
        client = make_client(server.url)
        errors = [failure(withdraw, client) for _ in range(3)]

    assert "longer than 65536 bytes" in str(errors[0])
    assert [type(error) for error in errors] == [QuoineUnreadableAnswerError, QuoineServerError, QuoineServerError]


def test_a_compressed_answer_without_end_is_cut_too(make_client: MakeClient) -> None:
    bomb = gzip.compress(b" " * 200_000_000, 1)
    with raw_server(answer(http_answer(200, bomb, "Content-Encoding: gzip"))) as server:
        error = failure(withdraw, make_client(server.url))

    assert type(error) is QuoineUnreadableAnswerError
    assert "longer than 65536 bytes" in str(error)


def test_a_redirect_is_not_followed_and_not_even_looked_at(make_client: MakeClient) -> None:
    with raw_server() as other:
        places = [other.url, "http://[broken", "no-scheme://\x80", ""]
        moved = [answer(http_answer(307, b"", f"Location: {place}")) for place in places]
        with raw_server(*moved) as server:
            client = make_client(server.url)
            kinds = [type(failure(withdraw, client)) for _ in places]

    assert kinds == [QuoineServerError] * len(places)
    assert other.connections == 0
    assert server.connections == len(places)


def test_reads_share_a_connection_and_each_write_opens_its_own(make_client: MakeClient) -> None:
    with raw_server(answer(OK, OK), answer(OK), answer(OK)) as server:
        client = make_client(server.url)
        look_up(client)
        look_up(client)
        assert server.connections == 1
        withdraw(client)
        withdraw(client)
        assert server.connections == 3


def test_a_kept_connection_that_the_server_closed_does_not_touch_a_write(make_client: MakeClient) -> None:
    closed = threading.Event()

    def answer_then_close(server: RawServer, connection: socket.socket) -> None:
        answer(OK)(server, connection)
        connection.close()
        closed.set()

    with raw_server(answer_then_close, answer(OK)) as server:
        client = make_client(server.url)
        look_up(client)
        assert closed.wait(PATIENCE)
        withdraw(client)

    assert [request.split()[0] for request in server.requests] == [b"GET", b"POST"]


def test_a_kept_connection_that_closes_on_the_next_read_is_not_read_from_twice(make_client: MakeClient) -> None:
    def answer_then_drop(server: RawServer, connection: socket.socket) -> None:
        answer(OK)(server, connection)
        server.take_request(connection)

    with raw_server(answer_then_drop, answer(OK)) as server:
        client = make_client(server.url)
        look_up(client)
        error = failure(look_up, client)
        assert type(error) is QuoineAnswerLostError
        assert len(server.requests) == 2
        look_up(client)

    assert len(server.requests) == 3


def test_before_send_runs_when_the_connection_stands_and_nothing_has_left(make_client: MakeClient) -> None:
    class TooLateError(QuoineError):
        pass

    seen: list[bytes] = []

    def see_what_left(server: RawServer, connection: socket.socket) -> None:
        accepted.set()
        seen.append(connection.recv(1000))

    def stop() -> None:
        assert accepted.wait(PATIENCE)
        raise TooLateError("too late")

    accepted = threading.Event()
    with raw_server(see_what_left) as server:
        client = make_client(server.url)
        with pytest.raises(TooLateError):
            client.create_withdrawal(order=order(), auth_code="13332", before_send=stop)

    assert seen == [b""]


def test_before_send_runs_after_a_proxys_tunnel_and_the_tls_handshake(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext, certificate: Path
) -> None:
    up = threading.Event()

    def tunnel(server: RawServer, connection: socket.socket) -> None:
        server.take_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with tls.wrap_socket(connection, server_side=True) as wrapped:
            up.set()
            answer(OK)(server, wrapped)

    with raw_server(tunnel) as proxy:
        client = make_client("https://127.0.0.1:9", verify=str(certificate))
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        client.create_withdrawal(order=order(), auth_code="13332", before_send=lambda: check(up.wait(PATIENCE)))

    assert [request.split()[0] for request in proxy.requests] == [b"CONNECT", b"POST"]


def check(holds: bool) -> None:
    assert holds


def test_before_send_is_not_called_where_there_is_no_connection(make_client: MakeClient) -> None:
    def never() -> None:
        raise AssertionError("called")

    with pytest.raises(QuoineConnectionError):
        make_client(f"http://127.0.0.1:{free_port()}").create_withdrawal(
            order=order(), auth_code="13332", before_send=never
        )


def test_what_has_not_arrived_when_the_client_gives_up_never_arrives(
    make_client: MakeClient, user: OnboardingUser, documents: Documents
) -> None:
    """
    The kernel goes on to send what is in its buffer, for 100 s and more, longer than a request counts as under way.

    A slow server stands for a network that is cut: with 1 s for both time-outs, a withdrawal arrived 13 s later, after
    a person had recorded that it does not exist.
    """
    given_up = threading.Event()

    def late(server: RawServer, connection: socket.socket) -> None:
        assert given_up.wait(20)
        server.take_request(connection)

    with raw_server(late) as server:
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client = make_client(server.url, connect_timeout=1.0, read_timeout=1.0)
        documents["id_document"] = Document(name="passport.pdf", content=b"%PDF" * 3000)
        with pytest.raises(QuoineAnswerLostError):
            client.create_onboarding_user(user=user, password=PASSWORD, **documents)
        given_up.set()
    assert server.requests == []


CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n57\r\n%b\r\n" % WITHDRAWAL
ENDS = {
    "a length": (OK, "an end"),
    "chunks": (CHUNKS + b"0\r\n\r\n", "an end"),
    "a refusal": (http_answer(422, b'{"message": "no"}', "Content-Type: application/json"), "an end"),
    "nothing": (b"", "a reset"),
    "a head cut short": (b"HTTP/1.1 200 OK\r\nX: ", "a reset"),
    "a body cut short": (OK[:-1], "a reset"),
    "chunks cut short": (CHUNKS, "a reset"),
    "too long a body": (http_answer(422, b" " * (2 * client_module.MAX_RESPONSE_BYTES + 1)), "a reset"),
}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("given", "ends_by"), ENDS.values(), ids=ENDS)
def test_a_connection_ends_by_a_reset_unless_the_answer_was_read_whole(
    make_client: MakeClient, tls: ssl.SSLContext, certificate: Path, scheme: str, given: bytes, ends_by: str
) -> None:
    ends: list[str] = []

    def see_the_end(server: RawServer, connection: socket.socket) -> None:
        server.take_request(connection)
        # Below TLS, whose reader takes a reset for an end.
        with socket.socket(fileno=os.dup(connection.fileno())) as below:
            below.settimeout(PATIENCE)
            try:
                connection.sendall(given)
                ends.append("more" if below.recv(1) else "an end")
            except ConnectionError:
                ends.append("a reset")

    with raw_server(see_the_end, tls=tls if scheme == "https" else None) as server:
        # A whole answer is waited for, as long as the server may need for it.
        patience = 0.5 if ends_by == "a reset" else PATIENCE
        client = make_client(server.url, read_timeout=patience, verify=str(certificate))
        with suppress(QuoineError):
            withdraw(client)
    assert ends == [ends_by]


def after(early: threading.Event) -> Callable[[], None]:
    """Have a client wait for what a server does early, and as long as bytes of this machine may take to arrive."""

    def wait() -> None:
        assert early.wait(PATIENCE)
        time.sleep(0.3)

    return wait


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_answer_that_was_there_before_the_request_is_none_to_it(
    make_client: MakeClient, tls: ssl.SSLContext, certificate: Path, scheme: str
) -> None:
    """Such as a 408 to a connection on which nothing came for long, or the answer to somebody else's request."""

    early = threading.Event()

    def answer_early(server: RawServer, connection: socket.socket) -> None:
        connection.sendall(http_answer(422, b'{"message": "no"}', "Content-Type: application/json"))
        early.set()
        server.take_request(connection)
        connection.sendall(OK)

    with raw_server(answer_early, tls=tls if scheme == "https" else None) as server:
        client = make_client(server.url, verify=str(certificate))
        with pytest.raises(QuoineConnectionError, match="before the request was sent") as caught:
            client.create_withdrawal(order=order(), auth_code="13332", before_send=after(early))
    assert server.requests == []
    assert not caught.value.may_have_been_carried_out


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_connection_that_was_closed_before_the_request_sent_nothing(
    make_client: MakeClient, tls: ssl.SSLContext, certificate: Path, scheme: str
) -> None:
    early = threading.Event()

    def close_early(server: RawServer, connection: socket.socket) -> None:
        connection.close()
        early.set()

    with raw_server(close_early, tls=tls if scheme == "https" else None) as server:
        client = make_client(server.url, verify=str(certificate))
        with pytest.raises(QuoineConnectionError) as caught:
            client.create_withdrawal(order=order(), auth_code="13332", before_send=after(early))
    assert not caught.value.may_have_been_carried_out


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_session_tickets_of_tls_are_no_answer(
    make_client: MakeClient, tls: ssl.SSLContext, certificate: Path, version: ssl.TLSVersion
) -> None:
    tls.minimum_version = tls.maximum_version = version
    shaken = threading.Event()

    def answer_later(server: RawServer, connection: socket.socket) -> None:
        shaken.set()
        answer(OK)(server, connection)

    with raw_server(answer_later, tls=tls) as server:
        client = make_client(server.url, verify=str(certificate))
        client.create_withdrawal(order=order(), auth_code="13332", before_send=after(shaken))
    assert len(server.requests) == 1
