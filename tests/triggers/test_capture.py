"""The capture trigger: what its event says of each end. The captures themselves are tested in tests/captures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from glob import glob
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from airflow_provider_quoine.triggers.capture import QuoineCaptureTrigger
from airflow_provider_quoine.triggers.events import Outcome, Status, read_event


@pytest.fixture
def market(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    """A lively market that ``quoine_default`` connects to."""
    with SandboxServer(SandboxSettings(market_rate=20)) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", sandbox.airflow_connection())
        yield sandbox


def given_for(place: Path, **changes: Any) -> dict[str, Any]:
    return {
        "stream": "order_book",
        "folder": str(place / "capture"),
        "file_format": "jsonl",
        "began_at": datetime.now(UTC).isoformat(),
        "duration": 1.0,
        "part_seconds": 0.5,
        "pair": "btcjpy",
        "interval": 0.05,
        **changes,
    }


async def outcome_of(spec: dict[str, Any], *, quoine_conn_id: str = "quoine_default") -> Outcome:
    """Make a trigger as the triggerer does, from what it serialized, and run it."""
    given = {"quoine_conn_id": quoine_conn_id, "spec": spec}
    path, arguments = QuoineCaptureTrigger(quoine_conn_id=quoine_conn_id, spec=spec).serialize()
    assert path == "airflow_provider_quoine.triggers.capture.QuoineCaptureTrigger"
    assert arguments == given
    trigger = QuoineCaptureTrigger(**json.loads(json.dumps(arguments)))
    assert trigger.serialize() == (path, arguments)
    (event,) = [event async for event in trigger.run()]
    return read_event(json.loads(json.dumps(event.payload, allow_nan=False)), sender="The trigger")


@pytest.mark.long
async def test_a_capture_that_has_rows_succeeds_with_its_summary(market: SandboxServer, tmp_path: Path) -> None:
    given = given_for(tmp_path, duration=5.0, part_seconds=2.5)
    outcome = await outcome_of(given)
    assert (outcome.status, outcome.message) == (Status.SUCCESS, "")
    assert outcome.result["path"].startswith(f"{given['folder']}/order_book_btcjpy_")
    assert outcome.result["files"] == len(glob(f"{given['folder']}/[!_]*")) == 2
    assert outcome.result["rows"] > 0


@pytest.mark.long
async def test_a_capture_of_a_silent_pair_is_empty_with_its_summary(market: SandboxServer, tmp_path: Path) -> None:
    outcome = await outcome_of(given_for(tmp_path, pair="btcjpn"))
    assert (outcome.status, outcome.result["rows"]) == (Status.EMPTY, 0)
    assert "misspelt" in outcome.message


async def test_a_folder_that_cannot_be_written_is_an_error(market: SandboxServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    outcome = await outcome_of(given_for(tmp_path / "file"))
    assert (outcome.status, outcome.result) == (Status.ERROR, {})
    assert "cannot be written to" in outcome.message


async def test_a_connection_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    outcome = await outcome_of(given_for(tmp_path), quoine_conn_id="nowhere")
    assert outcome.status is Status.ERROR
    assert "nowhere" in outcome.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"pair": "BTC/JPY"}, "no currency pair"), ({"folder": "nowhere://x"}, "cannot write to")],
)
async def test_wrong_input_is_refused_in_words_before_anything_is_captured(
    market: SandboxServer, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    outcome = await outcome_of(given_for(tmp_path, **changes))
    assert outcome.status is Status.REFUSED
    assert words in outcome.message
    assert market.control.state()["stream"]["connections_total"] == 0
