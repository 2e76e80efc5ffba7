"""Each kind of damage to a capture is named, and nothing else is."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import sys
import tracemalloc
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]  # fsspec has no types

from airflow_provider_quoine.captures.parts import Part
from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.captures.store import PartStore
from airflow_provider_quoine.datasets.verification import MOST_ROWS, FaultKind, verify
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.formats.kinds import FileFormat
from airflow_provider_quoine.formats.lines import line_of, row_of
from airflow_provider_quoine.formats.manifest import as_bytes, manifest_name
from airflow_provider_quoine.formats.pieces import Gap, Row, Span, Stretch
from tests.datasets.stored import NOON, STEM, book, edit_manifest, make, manifest, part, seal_anew, spec_of

Damage = Callable[[Path], None]


def named(path: Path | str) -> list[tuple[str, str, str]]:
    """The faults: kind, the file's period and format, and words."""
    faults = [(str(fault.kind), fault.file, fault.what) for fault in verify(str(path)).faults]
    return [(kind, re.sub(rf"{STEM}_(\d+)_\d+_\w+-\d+", r"\1", file), what) for kind, file, what in faults]


def edit_lines(path: Path, edit: Callable[[list[bytes]], list[bytes]]) -> None:
    """Edit the lines of a file."""
    path.write_bytes(b"".join(edit(path.read_bytes().splitlines(keepends=True))))


def swapped(lines: list[bytes]) -> list[bytes]:
    """The tenth and the eleventh line swapped."""
    return [*lines[:9], lines[10], lines[9], *lines[11:]]


@pytest.mark.parametrize("file_format", FileFormat)
def test_a_clean_capture_has_no_fault(tmp_path: Path, file_format: str) -> None:
    make(tmp_path / "a", file_format)
    done = verify(str(tmp_path))
    assert done.faults == []
    assert done.as_dict() == {
        "captures": 1,
        "parts": 5,
        "rows": 289,
        "gap_seconds": 10.0,
        # Ten seconds of gaps are eleven snapshots, both ends included.
        "completeness": pytest.approx(289 / 300, abs=1e-6),
        "faults": 0,
    }


def test_captures_are_found_by_folder_summary_or_manifest_and_in_any_store(tmp_path: Path) -> None:
    attach("memory", fs=MemoryFileSystem())
    folder = f"memory://{uuid.uuid4().hex}/dag/run"
    for number in range(2):
        make(f"{folder}/{number}", "parquet")
    one = PartStore(spec_of(f"{folder}/1", "parquet"))
    for path in (one.pattern, f"{folder}/1", f"{folder}/1/_{STEM}.manifest.json"):
        assert verify(path).as_dict()["rows"] == 289
    assert (verify(folder).captures, verify(folder).faults) == (2, [])
    with pytest.raises(QuoineInputError, match="no capture in"):
        verify(str(tmp_path))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "airflow_provider_quoine.formats.parquet", raising=False)
    with pytest.raises(QuoineInputError, match=r"airflow-provider-quoine\[parquet\]"):
        verify(str(tmp_path))


@pytest.mark.parametrize("file_format", FileFormat)
def test_a_missing_part_is_named(tmp_path: Path, file_format: str) -> None:
    make(tmp_path, file_format)
    part(tmp_path, 1).unlink()
    assert named(tmp_path) == [("missing", f"000001.{file_format}", "it is not there")]


@pytest.mark.parametrize("file_format", FileFormat)
def test_a_part_that_cannot_be_read_is_named_and_the_others_are_verified(tmp_path: Path, file_format: str) -> None:
    make(tmp_path, file_format)
    part(tmp_path, 4).write_bytes(b"")
    path = part(tmp_path, 1)
    path.unlink()
    path.mkdir()
    (tmp_path / f"{STEM}_000005_000000_1234abcd-1.{file_format}").mkdir()
    pipe = part(tmp_path, 2)
    pipe.unlink()
    os.mkfifo(pipe)
    found = named(tmp_path)
    for number in (1, 2):
        assert ("changed", f"00000{number}.{file_format}", "it cannot be read: it is no file") in found
    assert ("unknown", f"000005.{file_format}") in [(kind, file) for kind, file, _ in found]
    assert "changed" in [kind for kind, file, _ in found if file == f"000004.{file_format}"]


def test_a_manifest_that_cannot_be_read_is_named_and_other_captures_are_verified(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        make(tmp_path / name)
    path = tmp_path / "one" / manifest_name(STEM)
    path.unlink()
    path.mkdir()
    part(tmp_path / "other", 3).unlink()
    assert [fault.kind for fault in verify(str(tmp_path)).faults] == ["manifest", "missing"]


def test_a_flipped_bit_is_named(tmp_path: Path) -> None:
    make(tmp_path)
    content = bytearray(part(tmp_path, 3).read_bytes())
    content[content.index(b"600.0305")] ^= 1
    part(tmp_path, 3).write_bytes(content)
    assert named(tmp_path) == [("changed", "000003.jsonl", "its SHA-256 is not the manifest's")]


@pytest.mark.parametrize("file_format", ["jsonl.gz", "parquet"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_flipped_byte_anywhere_in_a_packed_part_is_named_with_the_part(
    tmp_path: Path, file_format: str, share: float
) -> None:
    make(tmp_path, file_format)
    content = bytearray(part(tmp_path, 3).read_bytes())
    content[int(share * len(content))] ^= 0xFF
    part(tmp_path, 3).write_bytes(content)
    found = named(tmp_path)
    assert [kind for kind, _, _ in found].count("changed") == 1
    assert {file for _, file, _ in found} == {f"000003.{file_format}"}


def test_a_part_that_is_cut_short_is_named_once(tmp_path: Path) -> None:
    make(tmp_path)
    content = part(tmp_path, 3).read_bytes()
    part(tmp_path, 3).write_bytes(content[: len(content) // 2 + 7])
    ((kind, file, what),) = named(tmp_path)
    assert (kind, file) == ("changed", "000003.jsonl")
    assert "it cannot be read after row" in what


@pytest.mark.parametrize("file_format", FileFormat)
def test_a_part_in_the_place_of_another_and_a_copy_are_doubled(tmp_path: Path, file_format: str) -> None:
    make(tmp_path, file_format)
    shutil.copy(part(tmp_path, 0), part(tmp_path, 1))
    name = part(tmp_path, 0).name
    shutil.copy(part(tmp_path, 0), tmp_path / name.replace(f".{file_format}", f" (1).{file_format}"))
    assert named(tmp_path) == [
        ("doubled", f"000001.{file_format}", f"it has the rows of {name}"),
        ("doubled", f"000000 (1).{file_format}", f"it has the rows of {name} once more"),
    ]


def test_a_file_that_the_manifest_does_not_have_is_named(tmp_path: Path) -> None:
    make(tmp_path)
    edit_lines(part(tmp_path, 0), lambda lines: lines)
    (tmp_path / f"{STEM}_000005_000000_1234abcd-1.jsonl").write_bytes(book(NOON + timedelta(seconds=301)).line + b"\n")
    assert named(tmp_path) == [("unknown", "000005.jsonl", "the manifest does not have it")]


def test_swapped_rows_are_named_in_a_part_that_was_changed_and_in_one_that_was_written_so(tmp_path: Path) -> None:
    make(tmp_path)
    edit_lines(part(tmp_path, 4), swapped)
    late = ("order", "000004.jsonl", "row 11, of 2026-01-02T12:04:10+00:00, comes after a later one")
    assert named(tmp_path) == [late, ("changed", "000004.jsonl", "its SHA-256 is not the manifest's")]
    seal_anew(tmp_path, 4)
    assert named(tmp_path) == [late]


def test_a_doubled_row_and_rows_of_another_time_are_named(tmp_path: Path) -> None:
    make(tmp_path)
    foreign = part(tmp_path, 1).read_bytes().splitlines(keepends=True)[:2]
    odd = book(NOON + timedelta(seconds=5.5)).line + b"\n"
    edit_lines(part(tmp_path, 0), lambda lines: [*lines[:5], odd, *lines[5:9], lines[8], *foreign, *lines[9:]])
    seal_anew(tmp_path, 0)
    assert named(tmp_path) == [
        ("order", "000000.jsonl", "row 6, of 2026-01-02T12:00:05.500000+00:00, was not due"),
        ("order", "000000.jsonl", "row 11, of 2026-01-02T12:00:09+00:00, comes after one of the same time"),
        ("order", "000000.jsonl", "row 12, of 2026-01-02T12:01:01+00:00, is not of this part's time"),
        ("order", "000000.jsonl", "row 13, of 2026-01-02T12:01:02+00:00, is not of this part's time"),
        ("sums", "000000.jsonl", "it has 64 rows, and the manifest says 60"),
    ]


def test_a_snapshot_with_the_number_of_another_is_named(tmp_path: Path) -> None:
    make(tmp_path)
    path = part(tmp_path, 1)
    path.write_bytes(path.read_bytes().replace(b'"seq":75,', b'"seq":76,'))
    seal_anew(tmp_path, 1)
    what = "row 15, of 2026-01-02T12:01:15+00:00, has the number 76 instead of 75"
    assert named(tmp_path) == [("order", "000001.jsonl", what)]


def trade(second: float, seq: int, connection: str = "a-1") -> Row:
    """An execution."""
    at = (NOON + timedelta(seconds=second)).isoformat()
    told = {
        "type": "execution",
        "seq": seq,
        "pair": "btcjpy",
        "received_at": at,
        "connection": connection,
        "id": str(seq),
    }
    return row_of(line_of({**told, "price": "1", "quantity": "1", "taker_side": "buy", "created_at": at}))


def make_trades(folder: Path, *rows: Row, gap: tuple[float, float] | None = None) -> None:
    """Store a minute of executions, in the order given."""
    spec = CaptureSpec.of(**spec_of(folder).as_json() | {"stream": "execution", "interval": None, "duration": 60})
    store, until = PartStore(spec), NOON + timedelta(seconds=60)
    store.open()
    at = [NOON + timedelta(seconds=second) for second in gap or ()]
    gaps = [Gap(at[0], at[1], "cut", rows[0].life)] if gap else []
    stretches = [Stretch(NOON, until, life=life) for life in {row.life for row in rows}]
    store.write(Part(rows=list(rows), gaps=gaps, stretches=stretches), Span(NOON, until))
    store.write_manifest()
    # The store puts rows in order by itself.
    (path,) = folder.glob("execution_*.jsonl")
    path.write_bytes(b"".join(row.line + b"\n" for row in rows))
    (told,) = folder.glob("_*.manifest.json")
    content = json.loads(told.read_text())
    entry = content["parts"][0]
    content["bytes"] = entry["bytes"] = path.stat().st_size
    entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    del content["digest"]
    told.write_bytes(as_bytes(content))


def test_each_life_numbers_its_rows_without_a_hole(tmp_path: Path) -> None:
    make_trades(tmp_path / "whole", trade(5, 7), trade(6, 8), trade(6, 9), trade(50, 10, "a-2"))
    make_trades(tmp_path / "two lives", trade(5, 7), trade(6, 30, "b-1"), trade(7, 9), trade(8, 31, "b-1"))
    make_trades(tmp_path / "in a gap", trade(5, 7), trade(20, 90), gap=(10, 11))
    assert named(tmp_path) == []
    make_trades(tmp_path / "hole", trade(5, 7), trade(20, 10))
    make_trades(tmp_path / "late", trade(20, 8), trade(5, 7), trade(30, 9))
    make_trades(tmp_path / "number", trade(5, 7), trade(20, 7), trade(21, 8))
    assert [(kind, what) for kind, _, what in named(tmp_path)] == [
        ("sums", "2 numbers of rows are left out outside of the gaps"),
        ("order", "row 2, of 2026-01-02T12:00:05+00:00, comes after a later one"),
        ("order", "row 2, of 2026-01-02T12:00:20+00:00, has the number 7 after 7"),
    ]


def test_many_rows_out_of_order_are_counted(tmp_path: Path) -> None:
    make(tmp_path)
    edit_lines(part(tmp_path, 0), lambda lines: lines[::-1])
    seal_anew(tmp_path, 0)
    found = named(tmp_path)
    assert len(found) == MOST_ROWS + 1
    assert found[-1] == ("order", "000000.jsonl", "39 rows more are out of order")


def test_rows_that_are_missing_outside_of_the_gaps_are_named(tmp_path: Path) -> None:
    make(tmp_path)
    edit_lines(part(tmp_path, 2), lambda lines: [*lines[:5], *lines[8:]])
    seal_anew(tmp_path, 2)
    assert named(tmp_path) == [
        ("sums", "000002.jsonl", "it has 46 rows, and the manifest says 49"),
        (
            "sums",
            "000002.jsonl",
            "3 snapshots are missing outside of the gaps, the first one of 2026-01-02T12:02:06+00:00",
        ),
    ]


def test_an_edited_manifest_is_named_and_not_believed(tmp_path: Path) -> None:
    make(tmp_path)
    content = manifest(tmp_path).read_text()
    manifest(tmp_path).write_text(content.replace('"rows": 289', '"rows": 300'))
    assert named(tmp_path) == [("manifest", f"_{STEM}.manifest.json", "it was edited")]
    manifest(tmp_path).write_text(content.replace("\n ", "\n  "))
    assert named(tmp_path) == [("manifest", f"_{STEM}.manifest.json", "it was edited")]
    manifest(tmp_path).write_text("[]")
    assert named(tmp_path) == [("manifest", f"_{STEM}.manifest.json", "it is no manifest")]
    manifest(tmp_path).unlink()
    ((kind, _, what),) = named(tmp_path)
    assert kind == FaultKind.MANIFEST
    assert "has not ended" in what


def test_a_manifest_whose_gaps_do_not_add_up_is_named(tmp_path: Path) -> None:
    make(tmp_path)
    edit_manifest(tmp_path, gap_seconds=5.0)
    assert named(tmp_path) == [
        ("sums", f"_{STEM}.manifest.json", "gap_seconds is 5.0, and its parts give 10.0"),
    ]
    make(tmp_path)
    parts = json.loads(manifest(tmp_path).read_text())["parts"]
    parts[2]["gaps"], parts[2]["gap_seconds"] = [], 0.0
    edit_manifest(tmp_path, parts=parts, gaps=0, gap_seconds=0.0)
    assert named(tmp_path) == [
        ("sums", "000002.jsonl", "nobody listened for 10 s from 2026-01-02T12:02:20+00:00, and no gap states it"),
        (
            "sums",
            "000002.jsonl",
            "11 snapshots are missing outside of the gaps, the first one of 2026-01-02T12:02:20+00:00",
        ),
    ]
    make(tmp_path)
    parts[1]["listened"][0]["until"] = "2026-01-02T12:01:57+00:00"
    del parts[3]
    edit_manifest(tmp_path, parts=parts)
    what = [what for kind, _, what in named(tmp_path) if kind == "sums"]
    assert "no part is for the time from 2026-01-02T12:03:00+00:00 until 2026-01-02T12:04:00+00:00" in what
    assert "nobody listened for 3 s from 2026-01-02T12:01:57+00:00, and no gap states it" in what


def test_a_manifest_is_right_after_a_part_was_merged_with_a_late_one(tmp_path: Path) -> None:
    spec = make(tmp_path)
    before = manifest(tmp_path).read_bytes()
    store, since = PartStore(spec), NOON + timedelta(seconds=135)
    late = [book(NOON + timedelta(seconds=second)) for second in range(136, 156)]
    store.write(Part(rows=late, stretches=[Stretch(since, late[-1].at, life="late")]), spec.periods.span(2))
    assert named(tmp_path) == [("unknown", "000002.jsonl", "the manifest does not have it")]
    store.write_manifest()
    assert manifest(tmp_path).read_bytes() != before
    assert named(tmp_path) == []
    assert verify(str(tmp_path)).completeness == 1.0


def test_a_manifest_is_written_anew_if_a_part_changes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make(tmp_path)
    put, copies = PartStore._put, [PartStore(spec)]
    rows = [book(NOON + timedelta(seconds=second)) for second in range(140, 151)]
    late = Part(rows=rows, stretches=[Stretch(NOON + timedelta(seconds=139), rows[-1].at, life="late")])

    def put_late(self: PartStore, files: dict[str, bytes]) -> None:
        if copies and self is not copies[0]:
            copies.pop().write(late, spec.periods.span(2))
        put(self, files)

    monkeypatch.setattr(PartStore, "_put", put_late)
    assert PartStore(spec).write_manifest()["rows"] == 300
    assert named(tmp_path) == []


@pytest.mark.parametrize("file_format", FileFormat)
def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: str) -> None:
    make(tmp_path, file_format)
    opened, open_ = list[str](), ObjectStoragePath.open

    def count_and_open(self: ObjectStoragePath, *args: Any, **kwargs: Any) -> Any:
        opened.append(self.name)
        return open_(self, *args, **kwargs)  # type: ignore[no-untyped-call]  # Airflow's

    monkeypatch.setattr(ObjectStoragePath, "open", count_and_open)
    assert named(tmp_path) == []
    parts = [path.name for path in tmp_path.glob("[!_]*")]
    assert sorted(name for name in opened if name in parts) == sorted(parts)


@pytest.mark.long
def test_a_part_of_any_size_is_verified_in_bounded_memory(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "jsonl.gz")
    make(tmp_path, "jsonl.gz")
    big = b"".join(book(NOON, note="x" * 1000).line + b"\n" for _ in range(30_000))
    part(tmp_path, 0).write_bytes(gzip.compress(big, 1))
    del big
    tracemalloc.start()
    try:
        assert verify(PartStore(spec).pattern).faults
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
