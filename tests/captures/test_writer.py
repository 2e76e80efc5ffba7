"""A capture whose store is slow, fails for a while, or refuses."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quoine.captures import writer as capture_writer
from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.captures.store import PartStore
from airflow_provider_quoine.captures.writer import QuoineStorageError
from airflow_provider_quoine.datasets.verification import verify
from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.captures.capturing import check, files, lines, run, start, summary_of, written
from tests.support.streams import LIMIT, until

# A capture lasts some seconds of real time, and what a busy machine keeps it from taking is a gap.
pytestmark = pytest.mark.paced

Begin = Callable[..., CaptureSpec]


async def test_a_folder_that_cannot_be_written_fails_at_once(
    market: SandboxServer, begin: Begin, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(QuoineStorageError, match="cannot be written to"):
        await run(begin(folder=str(tmp_path / "file" / "x"), duration=3600.0))
    assert market.control.state()["stream"]["connections_total"] == 0


async def test_a_slow_store_holds_up_neither_the_loop_nor_the_capture(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, gate, write = begin(duration=3.0), threading.Event(), PartStore.write

    def wait_and_write(*args: Any, **kwargs: Any) -> Any:
        assert gate.wait(LIMIT)
        return write(*args, **kwargs)

    monkeypatch.setattr(PartStore, "write", wait_and_write)
    task = start(spec)
    await until(lambda: market.control.state()["stream"]["events"] > 60)
    assert files(spec) == []
    gate.set()
    check(spec, await summary_of(task))


async def test_a_store_that_fails_for_a_while_costs_no_row(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(capture_writer, "FIRST_RETRY_DELAY", 0.05)
    spec, failures, write = begin(duration=3.0), iter(range(5)), PartStore.write

    def fail_and_write(*args: Any, **kwargs: Any) -> Any:
        if next(failures, None) is not None:
            raise OSError(28, "No space left on device")
        return write(*args, **kwargs)

    monkeypatch.setattr(PartStore, "write", fail_and_write)
    with caplog.at_level(logging.INFO, "airflow_provider_quoine"):
        summary = await summary_of(start(spec))
    check(spec, summary)
    said = [record.getMessage() for record in caplog.records if record.name == capture_writer.__name__]
    assert ["could not be written" in words for words in said] == [True, False]


@pytest.mark.parametrize("seconds", [3, 6])
async def test_a_store_that_is_gone_for_longer_than_there_is_room_is_a_stated_gap(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(capture_writer, "FIRST_RETRY_DELAY", 0.05)
    monkeypatch.setattr(capture_writer, "MAX_PENDING_BYTES", 20_000)
    spec, gone, write = begin(duration=5.0, depth=2), threading.Event(), PartStore.write

    def fail_or_write(*args: Any, **kwargs: Any) -> Any:
        if gone.is_set():
            raise OSError("unreachable")
        return write(*args, **kwargs)

    monkeypatch.setattr(PartStore, "write", fail_or_write)
    task = start(spec)
    await written(spec, 1)
    gone.set()
    began_at = datetime.now(UTC)
    await until(lambda: datetime.now(UTC) > began_at + timedelta(seconds=seconds))
    gone.clear()
    check(spec, await summary_of(task))
    (lost,) = {gap["reason"] for gap in lines(spec, "gap") if "no room" in gap["reason"]}
    assert "unreachable" in lost


async def test_a_store_that_refuses_for_good_fails_with_what_was_kept_where(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_writer, "FIRST_RETRY_DELAY", 0.05)
    spec, gone, write = begin(duration=600.0), threading.Event(), PartStore.write

    def refuse_or_write(*args: Any, **kwargs: Any) -> Any:
        if gone.is_set():
            raise PermissionError("Access denied")
        return write(*args, **kwargs)

    monkeypatch.setattr(PartStore, "write", refuse_or_write)
    task = start(spec)
    await written(spec, 2)
    gone.set()
    with pytest.raises(QuoineStorageError, match="refuses for good: PermissionError: Access denied") as caught:
        await task
    assert f"{len(lines(spec, 'order_book'))} rows in {len(files(spec))} files were kept" in str(caught.value)


async def test_a_store_that_does_not_answer_ends_the_capture_after_a_last_patience(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_writer, "FINISH_TIMEOUT", 0.5)
    spec, gate = begin(duration=1.0), threading.Event()
    monkeypatch.setattr(PartStore, "write", lambda *args, **kwargs: gate.wait(LIMIT))
    with pytest.raises(QuoineStorageError, match="does not answer"):
        await run(spec)
    gate.set()


async def test_a_manifest_that_cannot_be_written_fails_the_capture_and_a_retry_writes_it(
    market: SandboxServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, put = begin(duration=1.0), PartStore._put

    def refuse(self: PartStore, files: dict[str, bytes]) -> None:
        if any(name.endswith(".manifest.json") for name in files):
            raise PermissionError("Access denied")
        put(self, files)

    with monkeypatch.context() as refusing:
        refusing.setattr(PartStore, "_put", refuse)
        with pytest.raises(QuoineStorageError, match=r"manifest of the capture could not be written.* were kept"):
            await run(spec)
    assert verify(spec.folder).faults[0].kind == "manifest"
    check(spec, (await run(spec)).summary)
