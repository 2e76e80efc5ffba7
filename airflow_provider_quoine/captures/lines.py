"""A part of a capture as JSON Lines: its rows and gaps in the order of time, and a last line that sums it up."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow_provider_quoine.captures.parts import Gap, Part, Row, Span, Stretch

PLACED_BY = {"order_book": "due_at", "product": "due_at"}
"""Field that places a row in time by the row's type; every other has ``received_at``."""

COUNTS = ("reconnects", "dropped", "skipped")


def line_of(row: Mapping[str, Any]) -> bytes:
    """Write a row; no float comes near a price, since those are strings by now."""
    return json.dumps(row, separators=(",", ":"), allow_nan=False).encode()


def row_of(line: bytes) -> Row:
    """
    Read a row's place in time.

    :raises ValueError: if it is no row.
    :raises KeyError: if it is no row.
    """
    row = json.loads(line)
    return Row(datetime.fromisoformat(row[PLACED_BY.get(row["type"], "received_at")]), line)


def gap_entry(gap: Gap) -> dict[str, Any]:
    """Return a gap as JSON-able data."""
    times = {"from": gap.since.isoformat(), "until": gap.until.isoformat()}
    return {**times, "seconds": gap.seconds, "reason": gap.reason}


def summary_of(part: Part, span: Span) -> dict[str, Any]:
    """
    Return what a part says of itself as JSON-able data.

    :param span: its period.
    """
    return {
        "period": part.period,
        "from": span.since.isoformat(),
        "until": span.until.isoformat(),
        "rows": len(part.rows),
        "gaps": len(part.gaps),
        "gap_seconds": part.gap_seconds,
        **{name: sum(getattr(stretch, name) for stretch in part.stretches) for name in COUNTS},
        "listened": [_stretch_entry(stretch) for stretch in part.stretches],
    }


def _stretch_entry(stretch: Stretch) -> dict[str, Any]:
    times = {"from": stretch.since.isoformat(), "until": stretch.until.isoformat()}
    return {**times, **{name: getattr(stretch, name) for name in COUNTS}}


def gap_from(entry: Mapping[str, Any]) -> Gap:
    """Read what :func:`gap_entry` wrote."""
    return Gap(*_times(entry), entry["reason"])


def stretches_from(summary: Mapping[str, Any]) -> list[Stretch]:
    """Read who listened from what :func:`summary_of` wrote."""
    return [Stretch(*_times(entry), *(int(entry[name]) for name in COUNTS)) for entry in summary["listened"]]


def _times(entry: Mapping[str, Any]) -> tuple[datetime, datetime]:
    return datetime.fromisoformat(entry["from"]), datetime.fromisoformat(entry["until"])


def write_lines(part: Part, span: Span) -> bytes:
    """Write a part."""
    placed = [(gap.since, line_of({"type": "gap", **gap_entry(gap)})) for gap in part.gaps] + list(part.rows)
    placed.sort(key=lambda one: one[0])
    return b"\n".join([*(line for _, line in placed), line_of({"type": "part", **summary_of(part, span)}), b""])


def read_lines(content: bytes) -> Part:
    """
    Read a part.

    :raises ValueError: if it is none, or not whole.
    :raises LookupError: likewise.
    :raises TypeError: likewise.
    """
    *lines, last = content.splitlines()
    summary = json.loads(last)
    part = Part(period=summary["period"], stretches=stretches_from(summary))
    for line in lines:
        # Only a gap's line begins so: what it says inside strings is behind that.
        if line.startswith(b'{"type":"gap"'):
            part.gaps.append(gap_from(json.loads(line)))
        else:
            part.rows.append(row_of(line))
    return part


def write_packed_lines(part: Part, span: Span) -> bytes:
    """Write a part with gzip; the same part gives the same bytes."""
    return gzip.compress(write_lines(part, span), mtime=0)


def read_packed_lines(content: bytes) -> Part:
    """
    Read what :func:`write_packed_lines` wrote.

    :raises ValueError: if it is none, or not whole.
    """
    try:
        return read_lines(gzip.decompress(content))
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(str(error)) from None
