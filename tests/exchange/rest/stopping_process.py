"""
A process that sends one write and stops itself in the middle of it.

Arguments: URL, CA file, what to send, and after how many writes to the socket to stop.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from airflow_provider_quoine.exchange.errors import QuoineAnswerLostError, QuoineConnectionError
from airflow_provider_quoine.exchange.models import Document, OnboardingUser
from airflow_provider_quoine.exchange.rest.auth import ApiAuth
from airflow_provider_quoine.exchange.rest.client import QuoineClient
from tests.exchange.rest.conftest import SECRET, order

CONNECT_TIMEOUT = 0.5
#: What is sent, and how large the document of a new user is.
SIZES = {"withdrawal": 0, "user": 12_000, "user with large documents": 256 * 1024}


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def stop_after(writes: int) -> None:
    """Have this process stop itself after so many writes to a socket."""
    done: list[str] = []

    def stopping(write: Callable[..., Any]) -> Callable[..., Any]:
        def write_and_stop(*args: Any) -> Any:
            result = write(*args)
            done.append("a write")
            if len(done) == writes:
                stop()
            return result

        return write_and_stop

    # What of TLS sends all, does so by "send".
    for kind, name in ((socket.socket, "send"), (socket.socket, "sendall"), (ssl.SSLSocket, "send")):
        setattr(kind, name, stopping(getattr(kind, name)))


def main(url: str, verify: str, what: str, writes: str) -> None:
    client = QuoineClient(
        base_url=url,
        auth=ApiAuth("25", SECRET),
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=1.0,
        verify=verify,
    )

    def before_send() -> None:
        stop_after(int(writes)) if int(writes) else stop()

    with suppress(QuoineConnectionError if writes == "0" else QuoineAnswerLostError):
        if what == "withdrawal":
            client.create_withdrawal(order=order(), auth_code="13332", before_send=before_send)
        else:
            document = Document(name="passport.pdf", content=b"x" * SIZES[what])
            client.create_onboarding_user(
                user=OnboardingUser(
                    first_name="a", last_name="b", phone="090123456", email="a@example.com", country="jp"
                ),
                password="Abcdefg1",
                id_document=document,
                proof_address=Document(name="bill.pdf", content=b"x"),
                bank_statement=Document(name="bank.pdf", content=b"x"),
                before_send=before_send,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
