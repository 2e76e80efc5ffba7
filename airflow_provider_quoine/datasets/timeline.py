"""
The time line of a capture's mid price and spread, read within bounds: of a large capture some rows only.

Parts are read from coarse to fine, so that whatever was read when the time is over is spread over the whole capture.
"""

from __future__ import annotations

import json
import logging
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime
from heapq import nlargest
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_quoine.exchange.errors import QuoineError
from airflow_provider_quoine.formats.entries import gaps_from, span_from
from airflow_provider_quoine.formats.kinds import FileFormat, StreamKind
from airflow_provider_quoine.formats.manifest import manifest_name, read_manifest
from airflow_provider_quoine.formats.pieces import Gap, disjoint

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_quoine.datasets.reading import StoredCapture

log = logging.getLogger(__name__)

MOST_PARTS = 120
"""Parts that are opened at most, evenly over the capture."""
POINTS = 480
"""Rows that are read at most."""
MOST_BYTES = 8 * 1024 * 1024
"""Of one part that are read at most, packed and unpacked; what is behind them is left out."""
LARGEST_MANIFEST = 4 * 1024 * 1024
"""Bytes; that of a day in parts of a minute has 900,000."""
MOST_GAPS = 1000
"""Gaps that are drawn at most."""
LONGEST_WORD = 200
"""Characters of what a manifest says in words."""
NUMBERS = ("completeness", "files", "rows", "bytes", "gaps", "gap_seconds", "reconnects", "dropped", "skipped")
SECONDS = 0.5
"""In which rows are read; then it is drawn from what is there."""
PATIENCE = 5.0
"""Seconds for the manifest."""

#: One pool for all, so that a store that hangs holds these threads and no others.
_READERS = ThreadPoolExecutor(max_workers=8, thread_name_prefix="quoine-timeline")
_PRICE = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,31})?")
_COLUMNS = {"due_at": "due_at", "mid": "mid_text", "spread": "spread_text", "crossed": "crossed", "stale": "stale"}
"""Columns of a Parquet file by the field of a row that each has."""

_Result = TypeVar("_Result")


class TimelineError(QuoineError):
    """A capture cannot be shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """
    What is drawn of a row.

    :param at: when the book was due.
    :param mid: plain digits; None if a side was empty, or the book stale.
    :param spread: likewise; negative in a crossed book.
    """

    at: datetime
    mid: str | None
    spread: str | None
    crossed: bool
    stale: bool


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """
    A capture for the eye.

    :param told: what was to be captured, by the names of the manifest's ``capture``, as texts.
    :param numbers: what :data:`NUMBERS` names.
    :param gaps: in order, none over another; of more than :data:`MOST_GAPS` the longest.
    :param points: in order; empty if the capture is not one of an order book.
    :param parts: how many the capture has.
    :param parts_read: how many of them points were read from.
    :param parts_failed: how many of them could not be read.
    """

    told: Mapping[str, str]
    numbers: Mapping[str, float]
    since: datetime
    until: datetime
    gaps: Sequence[Gap]
    points: Sequence[Point]
    parts: int
    parts_read: int
    parts_failed: int

    def as_chart(self) -> dict[str, Any]:
        """
        Return what is drawn as JSON-able data: columns of points, in seconds since 1970 and plain digits, and gaps.

        A point without values stands in each gap, so that no line is drawn over it; but not in one that is shorter
        than the time between two points, since the line passes over more than that everywhere.
        """
        step = (self.until - self.since) / max(1, len(self.points))
        breaks = [(gap.since, None, None, False) for gap in self.gaps if gap.until - gap.since >= step]
        points = [(point.at, point.mid, point.spread, point.crossed) for point in self.points]
        # Of one moment the row comes first: the gap ends the line behind it.
        rows = sorted([*points, *breaks], key=lambda row: (row[0], row[1] is None))
        return {
            "from": self.since.timestamp(),
            "until": self.until.timestamp(),
            "at": [at.timestamp() for at, *_ in rows],
            "mid": [mid for _, mid, _, _ in rows],
            "spread": [spread for _, _, spread, _ in rows],
            "crossed": [mid if crossed else None for _, mid, _, crossed in rows],
            "gaps": [[gap.since.timestamp(), gap.until.timestamp()] for gap in self.gaps],
        }


def longest(gaps: Iterable[Gap], most: int) -> list[Gap]:
    """Return the longest gaps, in order of time."""
    return sorted(nlargest(most, gaps, key=lambda gap: gap.seconds))


def stored_manifest(capture: StoredCapture) -> dict[str, Any]:
    """
    Read the manifest of a capture.

    :raises TimelineError: if there is none, it is none, or the store does not give it.
    """
    path = capture.root / manifest_name(capture.stem)
    task = _READERS.submit(lambda: bytes(path.fs.cat_file(path.path, 0, LARGEST_MANIFEST + 1)))
    if not wait([task], timeout=PATIENCE).done:
        task.cancel()
        raise TimelineError(f"The store did not give {path} within {PATIENCE:g} s. Try again later.")
    if (error := task.exception()) is not None:
        raise TimelineError(
            f"The API server cannot read {path} ({type(error).__name__}). Captures are shown where it can read the "
            "files that the triggerer has written."
        ) from error
    if len(task.result()) > LARGEST_MANIFEST:
        raise TimelineError(f"The manifest {path} is larger than {LARGEST_MANIFEST // 2**20} MiB. It was not read.")
    try:
        return read_manifest(task.result())
    except (ValueError, RecursionError) as error:
        raise TimelineError(f"{path} is not as a capture wrote it: {error}.") from None


def read_timeline(capture: StoredCapture, *, seconds: float | None = None) -> Timeline:
    """
    Read a capture for the eye.

    :param seconds: in which rows are read; :data:`SECONDS` by default.
    :raises TimelineError: if the manifest cannot be read, or is none of this capture.
    """
    manifest = stored_manifest(capture)
    try:
        since, until = span_from(manifest)
        told = {name: str(value)[:LONGEST_WORD] for name, value in manifest["capture"].items()}
        numbers = {name: float(manifest[name]) for name in NUMBERS}
        parts = _parts(capture, manifest)
        gaps = disjoint(gap for entry in manifest["parts"] for gap in gaps_from(entry))
        is_right = since < until and all(map(math.isfinite, numbers.values()))
        if not is_right or any(gap.since.tzinfo is None or gap.until.tzinfo is None for gap in gaps):
            raise ValueError("times or numbers that cannot be")
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        words = f"{type(error).__name__}: {error}"[:LONGEST_WORD]
        raise TimelineError(f"The manifest of {capture} is damaged ({words}).") from None
    is_book = told.get("stream") == StreamKind.ORDER_BOOK
    found, failed = _read(parts if is_book else [], SECONDS if seconds is None else seconds)
    points = {point.at: point for part in found for point in part if since <= point.at <= until}
    return Timeline(
        told=told,
        numbers=numbers,
        since=since,
        until=until,
        gaps=longest(gaps, MOST_GAPS),
        points=[points[at] for at in sorted(points)],
        parts=len(parts),
        parts_read=len(found),
        parts_failed=failed,
    )


@dataclass(frozen=True, kw_only=True)
class _StoredPart:
    path: ObjectStoragePath
    rows: int
    bytes: int


def _parts(capture: StoredCapture, manifest: Mapping[str, Any]) -> list[_StoredPart]:
    # Somebody may have written a manifest whose parts are files elsewhere.
    form = re.compile(
        rf"{re.escape(capture.stem)}_[0-9]+_[0-9]+_[0-9a-z]+-[0-9]+\.({'|'.join(map(re.escape, FileFormat))})"
    )
    parts = []
    for entry in manifest["parts"]:
        if not form.fullmatch(entry["name"]):
            raise ValueError("a part has a name that is none of this capture")
        part = _StoredPart(path=capture.root / entry["name"], rows=int(entry["rows"]), bytes=int(entry["bytes"]))
        if min(part.rows, part.bytes) < 0:
            raise ValueError("a part has less than nothing")
        if part.rows:
            parts.append(part)
    return parts


def _read(parts: Sequence[_StoredPart], seconds: float) -> tuple[list[list[Point]], int]:
    """Return the points of each part that was read in time, and how many could not be read."""
    chosen = list(_spread(parts, MOST_PARTS))
    each = max(1, POINTS // max(1, len(chosen)))
    # The digits of a number backwards: the first few are spread over the whole.
    order = sorted(range(len(chosen)), key=lambda number: f"{number:016b}"[::-1])
    tasks = [_READERS.submit(_points, chosen[number], each) for number in order]
    done, late = wait(tasks, timeout=seconds)
    for task in late:
        task.cancel()
    errors = [error for task in done if (error := task.exception()) is not None]
    if errors:
        log.warning("%d parts cannot be shown; the first: %r", len(errors), errors[0])
    return [task.result() for task in done if task.exception() is None], len(errors)


def _points(part: _StoredPart, most: int) -> list[Point]:
    read = next(reader for ending, reader in _READER_OF.items() if part.path.name.endswith(ending))
    points = [_point(row) for row in read(part, [*_spread(range(part.rows), most)])]
    if not points:
        raise ValueError("it has no row that can be read")
    return points


def _lines(part: _StoredPart, wanted: Sequence[int]) -> Iterator[Mapping[str, Any]]:
    """Find rows by their share of the file, so that the rest of it is not read; all of it is if that is no more."""
    size = part.bytes // part.rows
    window = min(4 * size + 4096, MOST_BYTES // len(wanted))
    if part.bytes <= window * len(wanted):
        lines = part.path.fs.cat_file(part.path.path, 0, part.bytes).split(b"\n")[:-1]
        yield from (json.loads(lines[number]) for number in wanted if number < len(lines))
        return
    for number in wanted:
        begin = max(0, number * size - 1)
        piece = part.path.fs.cat_file(part.path.path, begin, begin + window)
        # What stands before the first end of a line belongs to the row before.
        lines = (b"\n" + piece if number == 0 else piece).split(b"\n")[1:-1]
        if lines:
            yield json.loads(lines[0])


def _packed_lines(part: _StoredPart, wanted: Sequence[int]) -> Iterator[Mapping[str, Any]]:
    packed = part.path.fs.cat_file(part.path.path, 0, MOST_BYTES)
    lines = zlib.decompressobj(wbits=31).decompress(packed, MOST_BYTES).split(b"\n")[:-1]
    return (json.loads(lines[number]) for number in wanted if number < len(lines))


def _columns(part: _StoredPart, wanted: Sequence[int]) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [_COLUMNS["mid"], _COLUMNS["spread"]]
    with part.path.open("rb") as file:  # type: ignore[no-untyped-call]  # Airflow's
        # Texts as dictionaries: a small file can name one long text a million times.
        source = pq.ParquetFile(file, read_dictionary=texts)
        if source.metadata.num_rows != part.rows or part.rows * len(_COLUMNS) * 8 > MOST_BYTES:
            raise ValueError("it has another number of rows, or too many")
        if any(pa.types.is_nested(source.schema_arrow.field(column).type) for column in _COLUMNS.values()):
            raise ValueError("a column is none of a capture")
        rows = source.read(columns=[*_COLUMNS.values()]).take(wanted).to_pylist()
    return ({name: row[column] for name, column in _COLUMNS.items()} for row in rows)


_READER_OF: Mapping[str, Callable[[_StoredPart, Sequence[int]], Iterator[Mapping[str, Any]]]] = {
    f".{FileFormat.JSONL}": _lines,
    f".{FileFormat.JSONL_GZ}": _packed_lines,
    f".{FileFormat.PARQUET}": _columns,
}


def _point(row: Mapping[str, Any]) -> Point:
    at = row["due_at"] if isinstance(row["due_at"], datetime) else datetime.fromisoformat(row["due_at"])
    prices = {name: row[name] for name in ("mid", "spread")}
    if at.tzinfo is None or not all(text is None or _PRICE.fullmatch(text) for text in prices.values()):
        raise ValueError("a row is none of an order book")
    stale, crossed = row["stale"] is True, row["crossed"] is True
    return Point(at=at, **dict.fromkeys(prices) if stale else prices, crossed=crossed, stale=stale)


def _spread(items: Sequence[_Result], most: int) -> Iterator[_Result]:
    """Yield as many items, evenly from the first to the last."""
    count = min(most, len(items))
    return (items[number * (len(items) - 1) // max(1, count - 1)] for number in range(count))
