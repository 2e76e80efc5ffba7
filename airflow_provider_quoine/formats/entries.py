"""
The entry of a part: a small JSON file beside its rows, which says what they are.

It has the rows' SHA-256, the gaps, who listened when, and of which files it takes the place. A capture's manifest is
made of the entries of its parts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from airflow_provider_quoine.formats.lines import row_of
from airflow_provider_quoine.formats.pieces import Gap, Row, Span, Stretch, disjoint

SCHEMA_VERSION = 2
"""Raise it when a file of rows, an entry or a manifest changes its form."""

COUNTS = ("reconnects", "dropped", "skipped")

FOR_MERGING = ("part_from", "missed", "repeats", "replaces", "after")
"""What an entry says for those who merge its file with others. It is not in the manifest."""


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


def entry_of(
    part: StoredPart,
    span: Span,
    *,
    part_from: datetime,
    name: str,
    content: bytes,
    missed: Iterable[Gap] = (),
    repeats: Iterable[Row] = (),
    replaces: Sequence[str] = (),
    after: Sequence[str] = (),
) -> dict[str, Any]:
    """
    Return a part's entry as JSON-able data.

    :param span: its time.
    :param part_from: when the part begins that it is of.
    :param content: its rows, as they stand in the file.
    :param missed: the gaps of single lives.
    :param repeats: rows of its time that are left out of the file, since the one before has their events.
    :param replaces: the names of the files of whose rows it was made: it takes their place in its time.
    :param after: the names of the files before it, in which repeats were looked for.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "sha256": digest_of(content),
        "bytes": len(content),
        "part_from": part_from.isoformat(),
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
        "missed": [{**times_of(gap), "life": gap.life, "reason": gap.reason} for gap in missed],
        "repeats": [row.line.decode() for row in repeats],
        "replaces": list(replaces),
        "after": list(after),
    }


def write_entry(entry: Mapping[str, Any]) -> bytes:
    """Write an entry."""
    return json.dumps(entry, indent=1, allow_nan=False).encode() + b"\n"


def read_entry(content: bytes) -> dict[str, Any]:
    """
    Read an entry.

    :raises ValueError: if it is none, or of another version.
    :raises LookupError: likewise.
    :raises TypeError: likewise.
    """
    if not content:
        raise ValueError("its entry is not there")
    entry = json.loads(content)
    if not isinstance(entry, dict) or entry.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"it is not of schema version {SCHEMA_VERSION}")
    # All that those need who merge is read, so that what is no entry is found here.
    stored_part(entry), missed_from(entry), repeats_from(entry), [entry[name] for name in FOR_MERGING]
    return entry


def stored_part(entry: Mapping[str, Any]) -> StoredPart:
    """Read what a part says of itself."""
    return StoredPart(entry["rows"], gaps_from(entry), stretches_from(entry))


def gaps_from(entry: Mapping[str, Any]) -> list[Gap]:
    """Read the gaps of an entry."""
    return [Gap(*_read_times(gap), gap["reason"]) for gap in entry["gaps"]]


def missed_from(entry: Mapping[str, Any]) -> list[Gap]:
    """Read the gaps of single lives from an entry."""
    return [Gap(*_read_times(gap), gap["reason"], gap["life"]) for gap in entry["missed"]]


def stretches_from(entry: Mapping[str, Any]) -> list[Stretch]:
    """Read who listened from an entry."""
    return [
        Stretch(*_read_times(one), one["reconnects"], one["dropped"], one["skipped"], one["life"], one["monotonic"])
        for one in entry["listened"]
    ]


def repeats_from(entry: Mapping[str, Any]) -> list[Row]:
    """Read the rows of an entry that are left out of its file."""
    return [row_of(line.encode()) for line in entry["repeats"]]


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
