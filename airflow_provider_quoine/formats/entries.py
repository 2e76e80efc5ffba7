"""
The entry of a part: a small JSON file beside its rows, which says what they are.

It has the rows' SHA-256, the gaps, and who listened when. A capture's manifest is made of the entries of its parts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from airflow_provider_quoine.formats.pieces import Gap, Span, Stretch, disjoint

SCHEMA_VERSION = 1
"""Raise it when a file of rows, an entry or a manifest changes its form."""

COUNTS = ("reconnects", "dropped", "skipped")


def entry_name(name: str) -> str:
    """Return the name of the file beside a part's; readers of whole folders leave out what begins like that."""
    return f"_{name}.json"


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(content).hexdigest()


class StoredPart(NamedTuple):
    """What one part says of itself."""

    rows: int
    gaps: list[Gap]
    stretches: list[Stretch]

    def sum_of(self, count: str) -> int:
        """Sum up one of :data:`COUNTS`."""
        return sum(getattr(stretch, count) for stretch in self.stretches)


def totals(parts: Collection[StoredPart]) -> dict[str, int | float]:
    """Sum up parts; gaps that go on from one part to the next count once."""
    gaps = disjoint(gap for part in parts for gap in part.gaps)
    return {
        "files": len(parts),
        "rows": sum(part.rows for part in parts),
        "gaps": len(gaps),
        "gap_seconds": round(sum(gap.seconds for gap in gaps), 6),
        **{count: sum(part.sum_of(count) for part in parts) for count in COUNTS},
    }


def entry_of(part: StoredPart, span: Span, *, period: int, name: str, content: bytes) -> dict[str, Any]:
    """
    Return a part's entry as JSON-able data.

    :param span: its time.
    :param period: the number of its period.
    :param content: its rows, as they stand in the file.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "sha256": digest_of(content),
        "bytes": len(content),
        "period": period,
        **times_of(span),
        "rows": part.rows,
        **{count: part.sum_of(count) for count in COUNTS},
        **gaps_of(part.gaps),
        "listened": [
            {
                **times_of(stretch),
                "life": stretch.life,
                "monotonic": round(stretch.monotonic, 6),
                **{count: getattr(stretch, count) for count in COUNTS},
            }
            for stretch in part.stretches
        ],
    }


def write_entry(entry: Mapping[str, Any]) -> bytes:
    """Write an entry."""
    return json.dumps(entry, indent=1, allow_nan=False).encode() + b"\n"


def read_entry(content: bytes) -> dict[str, Any]:
    """
    Read an entry.

    :raises ValueError: if it is none, or of another version.
    """
    entry = json.loads(content)
    if not isinstance(entry, dict) or entry.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"it is not of schema version {SCHEMA_VERSION}")
    return entry


def stored_part(entry: Mapping[str, Any]) -> StoredPart:
    """Read what a part says of itself."""
    return StoredPart(entry["rows"], gaps_from(entry), stretches_from(entry))


def gaps_from(entry: Mapping[str, Any]) -> list[Gap]:
    """Read the gaps of an entry."""
    return [Gap(*_read_times(gap), gap["reason"]) for gap in entry["gaps"]]


def stretches_from(entry: Mapping[str, Any]) -> list[Stretch]:
    """Read who listened from an entry."""
    return [
        Stretch(*_read_times(one), one["reconnects"], one["dropped"], one["skipped"], one["life"], one["monotonic"])
        for one in entry["listened"]
    ]


def span_from(entry: Mapping[str, Any]) -> Span:
    """Read the period of an entry."""
    return Span(*_read_times(entry))


def gaps_of(gaps: Iterable[Gap]) -> dict[str, Any]:
    """Return gaps and their sum as JSON-able data."""
    told = [{**times_of(gap), "seconds": gap.seconds, "reason": gap.reason} for gap in gaps]
    return {"gap_seconds": sum(gap["seconds"] for gap in told), "gaps": told}


def times_of(piece: Span | Gap | Stretch) -> dict[str, str]:
    """Return begin and end as JSON-able data."""
    return {"from": piece.since.isoformat(), "until": piece.until.isoformat()}


def _read_times(entry: Mapping[str, Any]) -> tuple[datetime, datetime]:
    return datetime.fromisoformat(entry["from"]), datetime.fromisoformat(entry["until"])
