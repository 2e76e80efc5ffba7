"""The quoine-sandbox command: its start, its output, its end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pusher import Pusher

from airflow_provider_quoine.sandbox.control import SandboxControl

#: Each starts a process or more.
pytestmark = pytest.mark.long

PROGRAM = [sys.executable, "-W", "error", "-m", "airflow_provider_quoine.sandbox"]
SECRET = "a secret of at least thirty-two bytes"


@contextmanager
def started(*arguments: str, secret: str | None = None) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Start the command, and read its output until it listens."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QUOINE_")}
    if secret:
        environment |= {f"QUOINE_SANDBOX_{whose}_SECRET": secret for whose in ("VENDOR", "PUSHER")}
    with subprocess.Popen(
        [*PROGRAM, "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4 if secret else 5)]
        try:
            yield process, lines
        finally:
            process.kill()


def url_in(lines: list[str]) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+", "".join(lines))
    assert found, lines
    return found.group()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_banner_serves_and_ends_cleanly(number: signal.Signals) -> None:
    with started("--manual", "--limit", "7", "--code-digits", "8") as (process, lines):
        assert lines[0] == "This is a sandbox, no exchange, no money.\n"
        state = SandboxControl(url_in(lines)).state()
        assert (state["pace"], state["rate_limit"]["limit"]) == (None, 7)
        process.send_signal(number)
        rest, errors = process.communicate(timeout=100)
    assert (process.returncode, rest, errors) == (0, "", "")


def test_it_prints_a_connection_to_paste_once() -> None:
    with started() as (_, lines):
        name, _, value = lines[4].strip().partition("=")
        connection = json.loads(value.strip("'"))
        assert name == "AIRFLOW_CONN_QUOINE_DEFAULT"
        assert connection["host"] == url_in(lines)
        assert len(connection["password"]) > 40


def test_it_prints_the_credentials_for_the_official_pusher_library() -> None:
    with started("--pusher-app-id", "42") as (_, lines):
        found = re.fullmatch(r"Pusher's libraries publish as app (\d+), key (\S+), secret (\S+)\n", lines[2])
        assert found, lines
        app_id, key, secret = found.groups()
        port = int(url_in(lines).rpartition(":")[2])
        pusher = Pusher(app_id=app_id, key=key, secret=secret, host="127.0.0.1", port=port, ssl=False)
        assert (app_id, pusher.trigger("news", "said", "hello")) == ("42", {})


def test_a_given_secret_is_never_printed() -> None:
    with started("--verbose", secret=SECRET) as (process, lines):
        SandboxControl(url_in(lines)).state()
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=100)
    assert SECRET not in "".join(lines) + rest + errors


def test_verbose_writes_a_line_per_request_without_its_query() -> None:
    import requests

    with started("--verbose") as (process, lines):
        requests.get(url_in(lines) + "/btc_withdrawals/1?token=mine", timeout=10)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=100)
    assert "GET /btc_withdrawals/1 401" in errors
    assert "mine" not in errors


def failed(*arguments: str, **environment: str) -> str:
    """Run a command that cannot start; return its one line of output."""
    result = subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=100, env=os.environ | environment
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_the_number_of_captured_events_is_printed_before_the_replay(tmp_path: Path) -> None:
    path = tmp_path / "raw.jsonl"
    event = {"type": "event", "received_at": "2026-03-01T00:00:00Z", "channel": "c", "event": "e", "data": ""}
    path.write_text(json.dumps(event))
    with started("--replay", str(path), str(path), "--replay-speed", "2") as (_, lines):
        assert lines[3] == "The first subscription starts the replay of 2 events.\n"
        assert SandboxControl(url_in(lines)).start_replay() == 2


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot listen: Address already in use" in failed("--port", str(taken.getsockname()[1]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--pace", "-1"), "pace"),
        (("--limit", "0"), "limit"),
        (("--port", "99999"), "port"),
        (("--code-digits", "1"), "4 to 12"),
        (("--pusher-app-id", "mine"), "app id must be a number"),
        (("--replay-speed", "0"), "speed must be more than 0"),
        (("--replay", "nowhere.jsonl"), "nowhere.jsonl: No such file or directory"),
    ],
)
def test_a_setting_out_of_range_is_one_clear_line(arguments: tuple[str, ...], words: str) -> None:
    assert words in failed(*arguments)


def test_a_secret_too_short_is_one_clear_line_without_it() -> None:
    line = failed(QUOINE_SANDBOX_VENDOR_SECRET="tiny")
    assert "32 bytes" in line
    assert "tiny" not in line


def test_a_missing_package_is_one_clear_line() -> None:
    script = textwrap.dedent(
        """
        import importlib.util, sys
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name: None if name == "websockets" else find(name)
        from airflow_provider_quoine.sandbox.__main__ import main
        sys.exit(main(["--port", "0"]))
        """
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert result.returncode == 1
    line = "quoine-sandbox: websockets not installed: pip install 'airflow-provider-quoine[sandbox]'\n"
    assert result.stderr == line
