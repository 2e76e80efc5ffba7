"""The analyst's page runs as it stands there, on what a capture of the sandbox has written."""

from __future__ import annotations

import asyncio
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.captures.capturing import start, summary_of, written

# A capture lasts some seconds of real time, and what a busy machine keeps it from taking is a gap.
pytestmark = pytest.mark.paced

PAGE = (Path(__file__).parents[2] / "docs" / "analysis.rst").read_text(encoding="utf-8")
PLACE = re.compile(r'^files = "(.*)"$', re.MULTILINE)


def code() -> str:
    """All code blocks of the page, one after another."""
    blocks = re.findall(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)", PAGE)
    assert len(blocks) == 6
    return "\n".join(map(textwrap.dedent, blocks))


async def test_the_page_loads_a_capture_and_plots_spread_and_gaps(
    market: SandboxServer, begin: Callable[..., CaptureSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    spec = begin(file_format="parquet", duration=4.0, depth=5)
    task = start(spec)
    await written(spec, 2)
    await asyncio.to_thread(market.control.fault, "close", "stream", abrupt=True)
    summary = await summary_of(task)
    assert summary["gaps"] > 1
    source, changed = PLACE.subn(f'files = "{summary["path"]}"', code())
    assert changed == 1
    found: dict[str, Any] = {}
    exec(compile(source, "analysis.rst", "exec"), found)
    assert len(found["books"]) == summary["rows"] > 0
    assert found["gaps"]["seconds"].sum() == pytest.approx(summary["gap_seconds"], abs=1e-4)
    assert found["gaps_of_the_day"]["seconds"].sum() == pytest.approx(summary["gap_seconds"], abs=1e-4)
    assert 0 < found["spread_by_minute"]["books"].sum() == len(found["good"])
    assert found["spread"]["median"].dropna().tolist() == pytest.approx(found["spread_by_minute"]["spread"].tolist())
    assert len(found["depth"]) == summary["rows"]
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("spread.png", "spread-duckdb.png"))
