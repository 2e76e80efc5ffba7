"""What the tests of captures share: a lively market, and specs of captures that begin now."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.exchange.stream import pusher
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings


@pytest.fixture
def market(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    """A lively market that ``quoine_default`` connects to, over streams that reconnect at once."""
    timing = pusher.StreamTiming(first_wait=0.01, longest_wait=0.1, steady=0.0, activity_timeout=0.2, pong_timeout=1.5)
    monkeypatch.setattr(pusher, "StreamTiming", lambda **_: timing)
    with SandboxServer(SandboxSettings(market_rate=20)) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", sandbox.airflow_connection())
        yield sandbox


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., CaptureSpec]:
    """Make specs as the triggerer does, from plain JSON: captures that begin now."""

    def make(stream: str = "order_book", **changes: Any) -> CaptureSpec:
        given = {
            "stream": stream,
            "folder": str(tmp_path / "capture"),
            "file_format": "jsonl",
            "began_at": datetime.now(UTC).isoformat(),
            "duration": 2.0,
            "part_seconds": 0.5,
            "pair": None if stream == "event" else "btcjpy",
            "interval": 0.05 if stream in ("order_book", "product") else None,
            **changes,
        }
        spec = CaptureSpec.of(**given)
        assert spec.as_json().items() >= given.items()
        again = CaptureSpec.of(**json.loads(json.dumps(spec.as_json())))
        assert again == spec
        return again

    return make
