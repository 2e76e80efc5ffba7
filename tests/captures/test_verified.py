"""What captures write is verified without a fault, whoever stopped, went on or listened beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from airflow_provider_quoine.captures import writer as capture_writer
from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.captures.store import PartStore
from airflow_provider_quoine.datasets.reading import one_capture
from airflow_provider_quoine.datasets.verification import verify
from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.captures.capturing import start, stop, summary_of, written
from tests.captures.simulated import play

Begin = Callable[..., CaptureSpec]
CHANNELS = ["executions_cash_btcjpy", "price_ladders_cash_btcjpy_buy"]


# A capture lasts some seconds of real time, and what a busy machine keeps it from taking is a gap.
@pytest.mark.paced
@pytest.mark.parametrize(
    ("stream", "file_format"),
    [("event", "jsonl"), ("event", "parquet"), ("execution", "jsonl.gz"), ("product", "jsonl")],
)
async def test_two_copies_one_of_which_is_stopped_and_goes_on(
    market: SandboxServer, begin: Begin, stream: str, file_format: str
) -> None:
    channels = {"channels": CHANNELS} if stream == "event" else {}
    spec = begin(stream, file_format=file_format, duration=6.0, part_seconds=1.0, **channels)
    first = start(spec)
    await written(spec, 1)
    second = start(spec)
    await written(spec, 3)
    await stop(first)
    await asyncio.to_thread(market.control.fault, "close", "stream", abrupt=True)
    await written(spec, 4)
    again = start(spec)
    summaries = [await summary_of(task) for task in (again, second)]
    done = verify(spec.folder)
    assert done.faults == []
    assert done.parts == 6
    assert done.rows == len(list(one_capture(spec.folder).rows())) == max(each["rows"] for each in summaries) > 0
    lives = {one["life"] for part in one_capture(spec.folder).manifest["parts"] for one in part["listened"]}
    assert len(lives) == 3


@pytest.mark.paced
async def test_a_period_in_several_parts(market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_writer, "PART_BYTES", 10_000)
    await asyncio.to_thread(market.control.set_market_rate, 100)
    spec = begin("event", channels=CHANNELS, duration=5.0, part_seconds=5.0)
    summary = await summary_of(start(spec))
    done = verify(spec.folder)
    assert done.faults == []
    assert done.parts == summary["files"] > 2
    assert (done.rows, done.gap_seconds) == (summary["rows"], summary["gap_seconds"])


@pytest.mark.long
@pytest.mark.parametrize("seeds", [range(40), (373, 383), (5397, 5775)], ids=["many", "cut later", "gap at an end"])
def test_what_simulated_lives_leave_on_their_disk(tmp_path: Path, seeds: Iterable[int]) -> None:
    for seed in seeds:
        _, history = play(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        for name, content in history.disk.files.items():
            (folder / name).write_bytes(content)
        spec = CaptureSpec.of(**history.spec.as_json() | {"folder": str(folder)})
        PartStore(spec).write_manifest()
    assert [(fault.file, fault.what) for fault in verify(str(tmp_path)).faults] == []
