"""The rows of a part as JSON Lines, plain or with gzip. What is no row stands in the part's entry."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from airflow_provider_quoine.formats.kinds import BY_TIME, placed_by
from airflow_provider_quoine.formats.pieces import Row


def line_of(row: Mapping[str, Any]) -> bytes:
    """Write a row; no float comes near a price, since those are strings by now."""
    return json.dumps(row, separators=(",", ":"), allow_nan=False).encode()


def row_of(line: bytes) -> Row:
    """
    Read a row's place in time.

    :raises ValueError: if it is no row.
    :raises LookupError: likewise.
    :raises TypeError: likewise.
    """
    row = json.loads(line)
    at = datetime.fromisoformat(row[placed_by(row["type"])])
    if row["type"] in BY_TIME:
        return Row(at, line)
    life, _, _ = row["connection"].rpartition("-")
    return Row(at, line, life, identity(row))


def identity(row: Mapping[str, Any]) -> int:
    """Return what is equal in two rows of the same event, in whatever format they were stored."""
    texts = (row.get(name) or "" for name in ("id", "unreadable", "channel", "event", "data"))
    return hash(tuple(text.encode(errors="backslashreplace") for text in texts))


def write_lines(rows: Iterable[Row]) -> bytes:
    """Write rows in their order."""
    return b"".join(row.line + b"\n" for row in rows)


def read_lines(content: bytes) -> list[Row]:
    """
    Read rows.

    :raises ValueError: as :func:`row_of`.
    :raises LookupError: likewise.
    :raises TypeError: likewise.
    """
    # Not splitlines: it would split at other signs too.
    return [row_of(line) for line in content.split(b"\n") if line]


def write_packed_lines(rows: Iterable[Row]) -> bytes:
    """Write rows with gzip; the same rows give the same bytes."""
    return gzip.compress(write_lines(rows), mtime=0)


def read_packed_lines(content: bytes) -> list[Row]:
    """
    Read what :func:`write_packed_lines` wrote.

    :raises ValueError: if it is none, or not whole; else as :func:`read_lines`.
    """
    try:
        return read_lines(gzip.decompress(content))
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(str(error)) from None
