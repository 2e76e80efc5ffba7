"""Captures that are made in a moment, and damage to them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_quoine.captures.parts import Part
from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.captures.store import PartStore
from airflow_provider_quoine.formats.entries import StoredPart, entry_of
from airflow_provider_quoine.formats.lines import line_of, row_of
from airflow_provider_quoine.formats.manifest import as_bytes, manifest_name, manifest_of
from airflow_provider_quoine.formats.parquet import write_parquet
from airflow_provider_quoine.formats.pieces import Gap, Row, Span, Stretch

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
STEM = "order_book_btcjpy_20260102T120000Z"
"""What the names of its parts begin with."""


def book(due_at: datetime, *, bid: str = "600.5", ask: str = "601", **changes: Any) -> Row:
    """An order book of two levels on each side."""
    row = {
        "type": "order_book",
        "seq": (due_at - NOON) // timedelta(seconds=1),
        "pair": "btcjpy",
        "due_at": due_at.isoformat(),
        "taken_at": (due_at + timedelta(microseconds=300)).isoformat(),
        "bids": [[bid, "0.5"], ["0.1", "9" * 40]],
        "asks": [[ask, "0.00000001"], ["700.123456789", "2"]],
        "bids_received_at": (due_at - timedelta(milliseconds=20)).isoformat(),
        "asks_received_at": (due_at - timedelta(milliseconds=50)).isoformat(),
        "bids_age": 0.02,
        "asks_age": 0.05,
        "best_bid": bid,
        "best_ask": ask,
        "mid": "600.75",
        "spread": "0.5",
        "crossed": False,
        "stale": False,
    }
    return row_of(line_of({**row, **changes}))


def spec_of(folder: Path | str, file_format: str = "jsonl") -> CaptureSpec:
    """Five minutes of books, one each second, a part a minute."""
    return CaptureSpec.of(
        stream="order_book",
        folder=str(folder),
        file_format=file_format,
        began_at=NOON.isoformat(),
        part_seconds=60,
        interval=1,
        duration=300,
        pair="btcjpy",
        depth=2,
    )


def make(folder: Path | str, file_format: str = "jsonl") -> CaptureSpec:
    """Store a whole capture, in whose third minute ten seconds are missing."""
    spec = spec_of(folder, file_format)
    store = PartStore(spec)
    store.open()
    for period in range(5):
        since, until = spec.periods.span(period)
        lost = [Gap(since + timedelta(seconds=20), since + timedelta(seconds=30), "cut")] if period == 2 else []
        due = [since + timedelta(seconds=second) for second in range(1, 61)]
        # Not two parts are the same.
        rows = [book(at, bid=f"600.{at:%M%S}") for at in due if not any(gap.since <= at <= gap.until for gap in lost)]
        store.write(Part(rows=rows, gaps=lost, stretches=[Stretch(since, until)]), Span(since, until))
    store.write_manifest()
    return spec


def part(folder: Path, number: int) -> Path:
    """The file of a part."""
    (found,) = folder.glob(f"{STEM}_{number:06d}_*")
    return found


def manifest(folder: Path) -> Path:
    """The manifest."""
    return folder / manifest_name(STEM)


def edit_manifest(folder: Path, **changes: Any) -> None:
    """Edit a manifest so that nobody can see it from the manifest itself."""
    content = json.loads(manifest(folder).read_text()) | changes
    manifest(folder).write_bytes(as_bytes({name: value for name, value in content.items() if name != "digest"}))


def seal_anew(folder: Path, number: int) -> None:
    """Have the manifest say that a part is as it was written, whatever it is now."""
    parts, content = json.loads(manifest(folder).read_text())["parts"], part(folder, number).read_bytes()
    parts[number] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit_manifest(folder, parts=parts, bytes=sum(each["bytes"] for each in parts))


def make_day(folder: Path, file_format: str, *, parts: int = 288, seconds: int = 300) -> None:
    """Store a capture of a day, a book of 20 levels each second. It takes seconds: the books differ in time only."""
    folder.mkdir(parents=True, exist_ok=True)
    ladder = [[str(6_000_000 + level), "0.12345678"] for level in range(20)]
    span, length, second = spec_of(folder).periods.span(0), timedelta(seconds=seconds), timedelta(seconds=1)
    pattern = [book(NOON + number * second, bids=ladder, asks=ladder) for number in range(1, seconds + 1)]
    due, entries = b'"due_at":"%s"', []
    table = pq.read_table(io.BytesIO(write_parquet(pattern, stream="order_book", depth=20)))
    for period in range(parts):
        since, target = NOON + period * length, folder / f"{STEM}_{period:06d}_000000_1234abcd-{period}.{file_format}"
        if file_format == "parquet":
            moments = pa.array([row.at + period * length for row in pattern], table.schema.field("due_at").type)
            pq.write_table(table.set_column(table.schema.get_field_index("due_at"), "due_at", moments), target)
        else:
            moved = ((row.line, row.at.isoformat(), (row.at + period * length).isoformat()) for row in pattern)
            content = b"".join(line.replace(due % old.encode(), due % new.encode()) + b"\n" for line, old, new in moved)
            target.write_bytes(gzip.compress(content, 1) if file_format == "jsonl.gz" else content)
        told = StoredPart(seconds, [], [Stretch(since, since + length)])
        own = Span(since, since + length)
        entries.append(entry_of(told, own, part_from=since, name=target.name, content=target.read_bytes()))
    capture = spec_of(folder, file_format).as_json() | {"duration": float(parts * seconds), "depth": 20}
    manifest(folder).write_bytes(as_bytes(manifest_of(capture, span._replace(until=NOON + parts * length), entries)))
