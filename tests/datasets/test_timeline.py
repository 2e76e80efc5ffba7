"""The time line of a capture: what is drawn of it, what it costs, and captures that are none."""

from __future__ import annotations

import gzip
import json
import threading
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from time import process_time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]  # fsspec has no types
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]  # likewise

from airflow_provider_quoine.datasets import timeline
from airflow_provider_quoine.datasets.reading import StoredCapture
from airflow_provider_quoine.datasets.timeline import (
    Timeline,
    TimelineError,
    longest,
    read_timeline,
    stored_manifest,
)
from airflow_provider_quoine.formats.lines import write_lines, write_packed_lines
from airflow_provider_quoine.formats.parquet import write_parquet
from airflow_provider_quoine.formats.pieces import Gap, Row
from tests.datasets.stored import NOON, STEM, book, edit_manifest, make, make_day, manifest, part

FORMATS = ("jsonl", "jsonl.gz", "parquet")
GAP = (NOON + timedelta(seconds=140), NOON + timedelta(seconds=150))
PATIENT = 60.0
"""Seconds: what is tested here is not the time."""


def stored(folder: Path) -> StoredCapture:
    """The capture in a folder."""
    return StoredCapture(root=ObjectStoragePath(str(folder)), stem=STEM)


def drawn(folder: Path) -> Timeline:
    """What is drawn of the capture in a folder, however long that takes."""
    return read_timeline(stored(folder), seconds=PATIENT)


@pytest.mark.parametrize("file_format", FORMATS)
def test_of_a_short_capture_every_row_is_drawn(tmp_path: Path, file_format: str) -> None:
    make(tmp_path, file_format)
    rows = [*stored(tmp_path).rows()]
    line = drawn(tmp_path)
    assert [(each.at, each.mid, each.spread) for each in line.points] == [
        (datetime.fromisoformat(row["due_at"]), row["mid"], row["spread"]) for row in rows
    ]
    assert (line.parts, line.parts_read, line.parts_failed) == (5, 5, 0)
    assert (line.since, line.until) == (NOON, NOON + timedelta(minutes=5))
    assert [(gap.since, gap.until, gap.reason) for gap in line.gaps] == [(*GAP, "cut")]


@pytest.mark.parametrize("file_format", FORMATS)
def test_of_a_large_capture_some_rows_of_some_parts_are_drawn(
    tmp_path: Path, file_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, file_format)
    monkeypatch.setattr(timeline, "MOST_PARTS", 2)
    monkeypatch.setattr(timeline, "POINTS", 6)
    line = drawn(tmp_path)
    known = {datetime.fromisoformat(row["due_at"]) for row in stored(tmp_path).rows()}
    moments = [each.at for each in line.points]
    assert (line.parts_read, len(moments)) == (2, 6)
    assert set(moments) <= known
    assert moments[0] < NOON + timedelta(minutes=1) < NOON + timedelta(minutes=4) < moments[-1]


@pytest.mark.long
def test_rows_of_a_large_file_are_found_without_reading_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MOST_PARTS", 1)
    monkeypatch.setattr(timeline, "POINTS", 10)
    make_day(tmp_path, "jsonl", parts=1, seconds=3600)
    reads = counting(monkeypatch)
    line = drawn(tmp_path)
    assert 9 <= len(line.points) <= 10
    assert sum(reads) < part(tmp_path, 0).stat().st_size / 10
    assert line.points[-1].at - line.points[0].at > timedelta(minutes=50)


def test_no_line_is_drawn_over_a_gap(tmp_path: Path) -> None:
    make(tmp_path)
    chart = json.loads(json.dumps(drawn(tmp_path).as_chart(), allow_nan=False))
    assert chart["gaps"] == [[moment.timestamp() for moment in GAP]]
    (number,) = (number for number, mid in enumerate(chart["mid"]) if mid is None)
    assert chart["at"][number] == GAP[0].timestamp()
    assert chart["at"][number - 1] < GAP[0].timestamp() < GAP[1].timestamp() < chart["at"][number + 1]
    assert chart["at"] == sorted(chart["at"])
    assert {len(chart[name]) for name in ("at", "mid", "spread", "crossed")} == {290}


def test_a_gap_shorter_than_the_time_between_two_points_ends_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    monkeypatch.setattr(timeline, "POINTS", 10)
    chart = drawn(tmp_path).as_chart()
    assert (len(chart["at"]), chart["mid"].count(None), len(chart["gaps"])) == (10, 0, 1)


@pytest.mark.parametrize("file_format", FORMATS)
def test_stale_books_are_left_out_and_crossed_ones_are_marked(tmp_path: Path, file_format: str) -> None:
    crossed = {"bid": "601", "ask": "600", "mid": "600.5", "spread": "-1", "crossed": True}
    write(tmp_path, file_format, [{}, {"stale": True}, crossed, {"mid": None, "spread": None, "crossed": None}])
    line = drawn(tmp_path)
    assert [(each.stale, each.crossed, each.mid) for each in line.points] == [
        (False, False, "600.75"),
        (True, False, None),
        (False, True, "600.5"),
        (False, False, None),
    ]
    assert line.as_chart()["crossed"] == [None, None, "600.5", None]


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_part_that_is_damaged_or_gone_is_counted_and_the_others_are_drawn(tmp_path: Path, file_format: str) -> None:
    make(tmp_path, file_format)
    part(tmp_path, 1).write_bytes(b"\0" * 20_000)
    part(tmp_path, 3).unlink()
    line = drawn(tmp_path)
    assert (line.parts, line.parts_read, line.parts_failed) == (5, 3, 2)
    assert len(line.points) == 169


@pytest.mark.parametrize(
    "changes",
    [
        {"mid": "<script>"},
        {"mid": 600.75},
        {"mid": "NaN"},
        {"mid": "1e99"},
        {"spread": ["1"]},
        {"mid": "9" * 10_000},
        {"due_at": "2026-01-02T12:00:01"},
        {"due_at": 5},
    ],
)
def test_a_row_that_is_no_book_is_not_drawn(tmp_path: Path, changes: dict[str, Any]) -> None:
    write(tmp_path, "jsonl", [{}])
    content = json.loads(part(tmp_path, 0).read_text()) | changes
    part(tmp_path, 0).write_text(json.dumps(content) + "\n")
    edit_entry(tmp_path, 0, bytes=part(tmp_path, 0).stat().st_size)
    assert (drawn(tmp_path).points, drawn(tmp_path).parts_failed) == ([], 1)


def test_a_row_of_another_time_is_not_drawn(tmp_path: Path) -> None:
    make(tmp_path)
    edit_manifest(tmp_path, **{"from": (NOON + timedelta(minutes=1)).isoformat()})
    assert drawn(tmp_path).points[0].at == NOON + timedelta(minutes=1)


def test_a_packed_part_is_unpacked_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "jsonl.gz")
    lines = gzip.decompress(part(tmp_path, 0).read_bytes()).split(b"\n")
    part(tmp_path, 0).write_bytes(gzip.compress(b"\n".join([*lines[:3], b"0" * 100_000_000, b""])))
    monkeypatch.setattr(timeline, "MOST_BYTES", 500_000)
    line = drawn(tmp_path)
    assert line.parts_failed == 0
    assert [each.at for each in line.points if each.at <= NOON + timedelta(minutes=1)] == [
        NOON + timedelta(seconds=second) for second in (1, 2, 3)
    ]


def test_a_parquet_file_of_other_rows_is_not_read(tmp_path: Path) -> None:
    make(tmp_path, "parquet")
    table = pq.read_table(part(tmp_path, 2))
    pq.write_table(pa.concat_tables([table] * 50), part(tmp_path, 2))
    assert drawn(tmp_path).parts_failed == 1


def test_a_parquet_file_of_other_columns_is_not_read(tmp_path: Path) -> None:
    make(tmp_path, "parquet")
    table = pq.read_table(part(tmp_path, 2))
    lists = pa.array([["600"] * 1000] * len(table))
    pq.write_table(table.set_column(table.schema.get_field_index("mid_text"), "mid_text", lists), part(tmp_path, 2))
    pq.write_table(table.drop_columns(["crossed"]), part(tmp_path, 3))
    assert drawn(tmp_path).parts_failed == 2


def test_a_capture_of_something_else_has_gaps_and_no_points(tmp_path: Path) -> None:
    make(tmp_path)
    edit_manifest(tmp_path, capture=json.loads(manifest(tmp_path).read_text())["capture"] | {"stream": "execution"})
    line = drawn(tmp_path)
    assert (line.points, line.parts_read, len(line.gaps), line.told["stream"]) == ([], 0, 1, "execution")


def test_the_longest_gaps_stay_in_order() -> None:
    gaps = [Gap(NOON + timedelta(hours=n), NOON + timedelta(hours=n, seconds=n % 5), "x") for n in range(1, 20)]
    assert [gap.seconds for gap in longest(gaps, 3)] == [4, 4, 4]
    assert longest(gaps, 3) == sorted(longest(gaps, 3))
    assert longest(gaps, 100) == gaps


@pytest.mark.parametrize(
    "name", ["../secret.jsonl", "/etc/passwd", f"{STEM}_1_0_a-1.jsonl/../../x", f"{STEM}_000000_000000_a-1.txt", 5]
)
def test_a_part_that_is_somewhere_else_is_not_read(tmp_path: Path, name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    edit_entry(tmp_path, 1, name=name)
    monkeypatch.setattr(timeline, "_read", None)
    with pytest.raises(TimelineError, match="damaged"):
        drawn(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"from": "2026-01-02T12:00:00"},
        {"from": "2026-01-03T12:00:00+00:00"},
        {"from": 5},
        {"from": "x" * 500_000},
        {"parts": [{"name": f"{STEM}_000000_000000_1234abcd-1.jsonl", "rows": 1, "bytes": -5, "gaps": []}]},
        {"parts": [{"name": f"{STEM}_000000_000000_1234abcd-1.jsonl", "rows": -1, "bytes": 5, "gaps": []}]},
        {"until": None},
        {"completeness": "all"},
        {"rows": 10**400},
        {"capture": []},
        {"parts": None},
        {"parts": [5]},
        {"parts": [{"name": f"{STEM}_000000_000000_1234abcd-1.jsonl", "rows": "many", "bytes": 1, "gaps": []}]},
        {"parts": [{"name": f"{STEM}_000000_000000_1234abcd-1.jsonl", "rows": 1, "bytes": 1, "gaps": [{"from": "x"}]}]},
        {
            "parts": [
                {
                    "name": f"{STEM}_000000_000000_1234abcd-1.jsonl",
                    "rows": 1,
                    "bytes": 1,
                    "gaps": [{"from": "2026-01-02T12:00:00", "until": "2026-01-02T12:00:01", "reason": ""}],
                }
            ]
        },
    ],
)
def test_a_manifest_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    make(tmp_path)
    edit_manifest(tmp_path, **changes)
    with pytest.raises(TimelineError, match="damaged") as caught:
        drawn(tmp_path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b'{"schema_version": 1, "digest": NaN}', b"\xff"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    make(tmp_path)
    manifest(tmp_path).write_bytes(content)
    with pytest.raises(TimelineError, match="not as a capture wrote it"):
        drawn(tmp_path)


def test_a_manifest_that_was_edited_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    manifest(tmp_path).write_text(manifest(tmp_path).read_text().replace("289", "300"))
    with pytest.raises(TimelineError, match="it was edited"):
        drawn(tmp_path)


def test_a_manifest_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    monkeypatch.setattr(timeline, "LARGEST_MANIFEST", 1000)
    reads = counting(monkeypatch)
    with pytest.raises(TimelineError, match="larger than"):
        drawn(tmp_path)
    assert reads == [1001]


def test_files_that_are_not_here_are_said_to_be_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(TimelineError, match=r"cannot read .* \(FileNotFoundError\)"):
        drawn(tmp_path)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a store that hangs waits for."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_capture_in_any_store_is_drawn(file_format: str) -> None:
    attach("memory", fs=MemoryFileSystem())
    folder = f"memory://{uuid.uuid4().hex}/dag/run"
    make(folder, file_format)
    line = read_timeline(StoredCapture(root=ObjectStoragePath(folder), stem=STEM), seconds=PATIENT)
    assert (len(line.points), line.parts_failed) == (289, 0)


def test_a_store_that_hangs_costs_the_time_for_rows_and_no_more(
    tmp_path: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    monkeypatch.setattr(timeline, "_points", lambda *_: gate.wait(60))
    line = read_timeline(stored(tmp_path), seconds=0.01)
    assert (line.parts, line.parts_read, line.points, len(line.gaps)) == (5, 0, [], 1)


def test_a_store_that_does_not_give_the_manifest_is_named(
    tmp_path: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "PATIENCE", 0.01)
    monkeypatch.setattr(LocalFileSystem, "cat_file", lambda *_: gate.wait(60))
    with pytest.raises(TimelineError, match="did not give"):
        stored_manifest(stored(tmp_path))


@pytest.mark.long
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_day_is_read_within_its_bounds(tmp_path: Path, file_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_day(tmp_path, file_format, parts=288, seconds=300)
    drawn(tmp_path)
    reads, began = counting(monkeypatch), process_time()
    line = drawn(tmp_path)
    # Seconds of processor, which a busy machine does not change much; the time itself ends the reading.
    assert process_time() - began < 3
    assert (line.numbers["rows"], line.parts, line.parts_read) == (86_400, 288, timeline.MOST_PARTS)
    assert 0.9 * timeline.POINTS <= len(line.points) <= timeline.POINTS
    assert sum(reads) < line.numbers["bytes"] / 2
    distances = [after.at - before.at for before, after in zip(line.points, line.points[1:], strict=False)]
    assert max(distances) < timedelta(minutes=15)


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the bytes of each piece of a file that is read from now on."""
    reads: list[int] = []
    original = LocalFileSystem.cat_file

    def cat_file(self: Any, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        content: bytes = original(self, path, start, end, **options)
        reads.append(len(content))
        return content

    monkeypatch.setattr(LocalFileSystem, "cat_file", cat_file)
    return reads


def edit_entry(folder: Path, number: int, **changes: Any) -> None:
    """Edit the entry of a part in the manifest."""
    parts = json.loads(manifest(folder).read_text())["parts"]
    parts[number] |= changes
    edit_manifest(folder, parts=parts)


def write(folder: Path, file_format: str, rows: list[dict[str, Any]]) -> None:
    """Store a capture of which there are these rows."""
    make(folder, file_format)
    since = NOON
    told = [book(since + timedelta(seconds=number), **changes) for number, changes in enumerate(rows, 1)]
    write = {"jsonl": write_lines, "jsonl.gz": write_packed_lines}.get(file_format, in_columns)
    part(folder, 0).write_bytes(write(told))
    entry = {"name": part(folder, 0).name, "rows": len(rows), "bytes": part(folder, 0).stat().st_size, "gaps": []}
    edit_manifest(folder, parts=[entry])


def in_columns(rows: Iterable[Row]) -> bytes:
    """Write rows as Parquet."""
    return write_parquet(rows, stream="order_book", depth=2)
