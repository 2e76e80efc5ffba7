"""Replays of raw captures, tested with a third-party client."""

from __future__ import annotations

import gzip
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from airflow_provider_quoine.sandbox.stream.replay import read_capture
from tests.support.pusher_clients import BUY, SELL, connect, receive, subscribe, wait_until

TRADES = "executions_cash_btcjpy"
LONG = 3600.0  # a delay that no test waits for


def row(second: float, channel: str, data: str, **changes: Any) -> dict[str, Any]:
    given = {
        "type": "event",
        "received_at": f"2026-03-01T23:59:{second:09.6f}+00:00",
        "connection": 1,
        "channel": channel,
        "event": "updated",
        "data": data,
    }
    return {**given, **changes}


#: With what a capture holds besides events, data of every kind, and a clock that was once set back.
ROWS = [
    row(0.0, BUY, '[["600.0", "0.20"]]'),
    row(0.0, SELL, "[]"),
    row(0.01, TRADES, '{"id": 90001, "price": 600.10}', event="created"),
    {"type": "gap", "from": "2026-03-01T23:59:01Z", "until": "2026-03-01T23:59:02Z", "seconds": "1", "reason": "cut"},
    row(0.05, BUY, "ü, and no JSON", connection=2),
    row(0.02, BUY, '{"z": 1,  "a": "\\u00e9"}', connection=2),
    row(0.06, SELL, "", connection=2),
    {"type": "part", "rows": 6},
]
EVENTS = [each for each in ROWS if each["type"] == "event"]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@contextmanager
def replaying(*paths: Path, delay: float = LONG, speed: float = 1.0) -> Iterator[SandboxServer]:
    settings = SandboxSettings(replay=paths, replay_delay=delay, replay_speed=speed, market_rate=100)
    with SandboxServer(settings) as sandbox:
        yield sandbox


@contextmanager
def subscribed(sandbox: SandboxServer, *channels: str) -> Iterator[ClientConnection]:
    with connect(sandbox) as client:
        receive(client)
        for channel in channels:
            subscribe(client, channel)
        yield client


def silent(client: ClientConnection) -> bool:
    with pytest.raises(TimeoutError):
        client.recv(timeout=0.3)
    return True


def by_channel(messages: Sequence[dict[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    found: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for message in messages:
        found[message["channel"]].append((message["event"], message["data"]))
    return dict(found)


def replay_of(sandbox: SandboxServer) -> dict[str, Any]:
    figures: dict[str, Any] = sandbox.control.state()["stream"]["replay"]
    return figures


@pytest.mark.parametrize("name", ["raw.jsonl", "raw.jsonl.gz"])
def test_a_capture_is_replayed_unchanged(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, ROWS)
    with replaying(path) as sandbox, subscribed(sandbox, BUY, SELL, TRADES) as client:
        assert sandbox.control.start_replay() == len(EVENTS)
        heard = [receive(client) for _ in EVENTS]
        assert silent(client)  # no event of the market, and no second replay
        assert replay_of(sandbox) == {"events": len(EVENTS), "played": len(EVENTS), "playing": False}
    assert by_channel(heard) == by_channel(EVENTS)


def test_several_files_are_merged_by_time(tmp_path: Path) -> None:
    odd = write(tmp_path / "odd.jsonl", [row(number / 100, BUY, str(9 - number)) for number in (1, 3, 5)])
    even = write(tmp_path / "even.jsonl.gz", [row(number / 100, BUY, str(9 - number)) for number in (2, 4, 6)])
    with replaying(odd, even) as sandbox, subscribed(sandbox, BUY) as client:
        sandbox.control.start_replay()
        assert [receive(client)["data"] for _ in range(6)] == list("876543")


def test_the_first_subscription_to_one_of_its_channels_starts_it_once(tmp_path: Path) -> None:
    path = write(tmp_path / "raw.jsonl", [row(0, BUY, "1"), row(0.01, BUY, "2")])
    with replaying(path, delay=0.1) as sandbox:
        with subscribed(sandbox, SELL) as client:
            assert silent(client)
            assert replay_of(sandbox)["played"] == 0
        with subscribed(sandbox, BUY) as client:
            assert [receive(client)["data"] for _ in range(2)] == ["1", "2"]
        with subscribed(sandbox, BUY) as client:
            assert silent(client)
            assert sandbox.control.start_replay() == 2
            assert [receive(client)["data"] for _ in range(2)] == ["1", "2"]
        sandbox.control.reset()
        with subscribed(sandbox, BUY) as client:
            assert [receive(client)["data"] for _ in range(2)] == ["1", "2"]


def test_intervals_are_kept_and_divided_by_the_speed(tmp_path: Path) -> None:
    path = write(tmp_path / "raw.jsonl", [row(0, BUY, "1"), row(0.5, BUY, "2"), row(59, BUY, "3")])
    with replaying(path) as sandbox, subscribed(sandbox, BUY) as client:
        started_at = time.monotonic()
        sandbox.control.start_replay()
        receive(client)
        assert receive(client)["data"] == "2"
        assert time.monotonic() - started_at >= 0.5
        assert replay_of(sandbox) == {"events": 3, "played": 2, "playing": True}
        sandbox.control.start_replay(speed=1000)
        assert [receive(client)["data"] for _ in range(3)] == ["1", "2", "3"]


def test_the_speed_of_the_settings_is_the_default(tmp_path: Path) -> None:
    path = write(tmp_path / "raw.jsonl", [row(0, BUY, "1"), row(59, BUY, "2")])
    with replaying(path, speed=1000) as sandbox, subscribed(sandbox, BUY) as client:
        sandbox.control.start_replay()
        assert [receive(client)["data"] for _ in range(2)] == ["1", "2"]


def test_a_replay_under_way_does_not_keep_the_server_from_stopping(tmp_path: Path) -> None:
    path = write(tmp_path / "raw.jsonl", [row(0, BUY, "1"), row(59, BUY, "2")])
    with replaying(path) as sandbox, subscribed(sandbox, BUY) as client:
        sandbox.control.start_replay()
        receive(client)


def test_a_file_that_is_damaged_later_ends_the_replay_with_a_log_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "raw.jsonl", [row(0, BUY, "1")])
    with replaying(path) as sandbox:
        path.write_text("{")
        sandbox.control.start_replay()
        wait_until(lambda: not replay_of(sandbox)["playing"])
    assert f"{path}, line 1" in caplog.text


def test_without_a_capture_there_is_nothing_to_replay(quiet: SandboxServer) -> None:
    with pytest.raises(RuntimeError, match=r"409.*--replay FILE"):
        quiet.control.start_replay()
    assert quiet.control.state()["stream"]["replay"] is None


GOOD = json.dumps(row(0, BUY, "1"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        (GOOD[:-10], "not JSON"),
        ("", "not JSON"),
        ("[]", "expected a JSON object with a type"),
        ('{"channel": "x"}', "expected a JSON object with a type"),
        (json.dumps(row(0, BUY, "1") | {"data": None}), "data must be present, as a string"),
        (json.dumps({"type": "event"}), "received_at, channel, event, data must be present"),
        (json.dumps(row(0, "a b", "1")), "channel is not a valid channel name"),
        (json.dumps(row(0, BUY, "1", received_at="yesterday")), "yesterday"),
        (json.dumps(row(0, BUY, "1", received_at="2026-03-01T00:00:00")), "received_at has no time zone"),
    ],
)
def test_a_line_that_is_not_a_row_is_named_at_start(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "raw.jsonl"
    path.write_text(f"{GOOD}\n{line}\n{GOOD}\n")
    with pytest.raises(ValueError, match=words) as caught:
        SandboxServer(SandboxSettings(replay=(path,)))
    assert str(caught.value).startswith(f"{path}, line 2: ")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.jsonl", None, "No such file"),
        ("raw.jsonl", b"", "no event to replay"),
        ("raw.jsonl", b'{"type": "part"}\n', "no event to replay"),
        ("raw.jsonl", b'\xff\xfe{"type"', "line 1: .*utf-8"),
        ("raw.jsonl.gz", GOOD.encode(), "damaged"),
        ("raw.jsonl.gz", gzip.compress(GOOD.encode() * 99, mtime=0)[:-9], "damaged"),
    ],
)
def test_a_file_that_is_not_a_capture_is_named_at_start(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        SandboxServer(SandboxSettings(replay=(path,)))
    assert str(path) in str(caught.value)


def test_z_and_offsets_are_the_same_moment(tmp_path: Path) -> None:
    times = ("2026-03-01T00:00:01Z", "2026-03-01T00:00:01+00:00", "2026-03-01T09:00:01+09:00")
    path = write(tmp_path / "raw.jsonl", [row(0, BUY, "", received_at=each) for each in times])
    assert len({event.received_at for event in read_capture(path)}) == 1
