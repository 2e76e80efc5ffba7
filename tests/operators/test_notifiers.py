"""The notifiers of Airflow's SMTP and Slack providers say that a person is needed, and that an outcome is unknown."""

from __future__ import annotations

import json
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import pytest

from airflow_provider_quoine.operators.notifying import notify
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.one_task import ADDRESS, OneTask, parsed

SUBJECT = "{{ task.subject }}"
DOUBT = "{{ exception }}"


@contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[int]:
    """Serve in a thread, and return the port."""
    with server:
        Thread(target=server.serve_forever).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


class Mail(socketserver.StreamRequestHandler):
    """As much of an SMTP server as a mail needs (RFC 5321)."""

    taken: list[bytes]

    def handle(self) -> None:
        """Take mails until the client quits."""
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            command = line[:4].upper()
            if command == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                self.taken.append(b"".join(iter(self.rfile.readline, b".\r\n")))
            self.wfile.write(b"221 bye\r\n" if command == b"QUIT" else b"250 fine\r\n")


class Slack(BaseHTTPRequestHandler):
    """As much of Slack's Web API as a message needs."""

    taken: list[dict[str, Any]]

    def do_POST(self) -> None:
        """Take a message."""
        said = self.rfile.read(int(self.headers["Content-Length"])).decode()
        is_json = said.startswith("{")
        self.taken.append(json.loads(said) if is_json else {key: value[0] for key, value in parse_qs(said).items()})
        answer = json.dumps({"ok": True, "ts": "1", "channel": "desk"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def asked_by(notifier: Any, doubt: Any, exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for a code, and lose the answer to the withdrawal."""
    task = parsed().dags["authorize_telling"].get_task("task")
    monkeypatch.setattr(task, "notifiers", [notifier])
    monkeypatch.setattr(task, "unknown_outcome_notifiers", [doubt])
    run = OneTask("authorize_telling", user_id=payer, amount="0.5", address=ADDRESS)
    assert run.step().state == "awaiting_input"
    exchange.fault("drop_after", "POST /btc_withdrawals/")
    assert run.answer("Send", exchange.latest_code(payer)).state == "failed"


def test_mails_go_out_by_the_smtp_notifier(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    smtp = pytest.importorskip("airflow.providers.smtp.notifications.smtp")
    taken: list[bytes] = []
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), type("Mail", (Mail,), {"taken": taken}))
    with serving(server) as port:
        connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": port} | {
            "extra": {"disable_ssl": True, "disable_tls": True}
        }
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
        to = {"from_email": "airflow@example.com", "to": "desk@example.com"}
        needed = smtp.SmtpNotifier(**to, subject=SUBJECT, html_content="<pre>{{ task.body }}</pre>")
        doubt = smtp.SmtpNotifier(**to, subject="Unknown outcome", html_content=f"<pre>{DOUBT}</pre>")
        asked_by(needed, doubt, exchange, payer, monkeypatch)
    first, second = (message_from_bytes(each) for each in taken)
    assert first["Subject"] == "Withdraw 0.5 BTC?"
    assert "0.5 BTC" in text_of(first)
    assert "The outcome of this payment is unknown." in text_of(second)
    assert f"address: {ADDRESS}" in text_of(second)


def test_messages_go_out_by_the_slack_notifier(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slack = pytest.importorskip("airflow.providers.slack.notifications.slack")
    taken: list[dict[str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Slack", (Slack,), {"taken": taken}))
    with serving(server) as port:
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_API_DEFAULT", json.dumps({"conn_type": "slack", "password": "xoxb-1"}))
        to = {"base_url": f"http://127.0.0.1:{port}/api/", "channel": "desk", "username": "Airflow"}
        asked_by(
            slack.SlackNotifier(**to, text=SUBJECT), slack.SlackNotifier(**to, text=DOUBT), exchange, payer, monkeypatch
        )
    assert [each["text"].splitlines()[0] for each in taken] == [
        "Withdraw 0.5 BTC?",
        "The outcome of this payment is unknown.",
    ]


def test_a_notifier_may_be_called_again() -> None:
    from tests.support.notifier import TOLD, Telling

    TOLD.clear()
    notifier = Telling("{{ exception }}")
    for words in ("one", "two"):
        notify([notifier], {"task": None}, exception=words)  # type: ignore[typeddict-item]  # a context as far as needed
    assert TOLD == ["one", "two"]


def text_of(mail: Any) -> str:
    """The text of a mail's parts."""
    return "".join(
        part.get_payload(decode=True).decode() for part in mail.walk() if part.get_content_maintype() == "text"
    )
