"""Running a capture in a test, and reading its files."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quoine.captures.capture import SUMMARY, CaptureResult, capture
from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.captures.store import PartStore
from airflow_provider_quoine.formats.entries import entry_name
from tests.support.captured import check_captured
from tests.support.streams import LIMIT, until


async def run(spec: CaptureSpec) -> CaptureResult:
    """Capture to the end."""
    async with asyncio.timeout(4 * LIMIT):
        result = await capture(spec, quoine_conn_id="quoine_default")
    json.dumps(result.summary, allow_nan=False)
    return result


def start(spec: CaptureSpec) -> asyncio.Task[CaptureResult]:
    """Capture beside the test."""
    return asyncio.create_task(run(spec))


async def summary_of(task: asyncio.Task[CaptureResult]) -> dict[str, Any]:
    """Wait for the summary of a capture that is not empty."""
    result = await task
    assert result.empty == ""
    return result.summary


async def stop(task: asyncio.Task[CaptureResult]) -> None:
    """Cancel a capture, as a triggerer does that stops."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def written(spec: CaptureSpec, parts: int) -> None:
    """Wait until so many parts are there."""
    folder = Path(spec.folder)
    await until(lambda: folder.is_dir() and len(list(folder.glob("[!._]*"))) >= parts)


def files(spec: CaptureSpec) -> list[Path]:
    """All files of a capture that have rows."""
    return sorted(Path(spec.folder).glob("[!._]*"))


def lines(spec: CaptureSpec, kind: str) -> list[dict[str, Any]]:
    """All rows of one type, or what the parts say of themselves (``part``), or their gaps (``gap``)."""
    if kind in ("part", "gap"):
        parts = [json.loads((path.parent / entry_name(path.name)).read_text()) for path in files(spec)]
        return parts if kind == "part" else [gap for part in parts for gap in part["gaps"]]
    read = {".gz": lambda path: gzip.decompress(path.read_bytes()).decode(), ".jsonl": Path.read_text}
    every = [json.loads(line) for path in files(spec) for line in read[path.suffix](path).splitlines()]
    assert {line["type"] for line in every} <= {kind}
    return every


def check(spec: CaptureSpec, summary: dict[str, Any]) -> None:
    """See that an order-book capture holds what it promises, and that its summary says what is in the files."""
    manifest = check_captured(spec.folder)
    assert summary == {"path": PartStore(spec).pattern, **{name: manifest[name] for name in SUMMARY}}
