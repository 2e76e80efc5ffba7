"""Whether the files of an order-book capture hold what they promise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

SLOP = 1e-6 * 1.5
"""Seconds by which sums of microseconds may differ."""


@dataclass(kw_only=True)
class CaptureCheck:
    """
    What was found in the files.

    :param wrong: every broken promise, in words; empty if all is well.
    """

    due: int
    rows: int = 0
    missing: int = 0
    stale: int = 0
    gaps: int = 0
    gap_seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def check_capture(
    folder: Path, arguments: Mapping[str, Any], summary: Mapping[str, Any], *, oldest: float = 5.0
) -> CaptureCheck:
    """
    Read all files of a capture that has ended.

    :param folder: where they are.
    :param arguments: the trigger's.
    :param summary: the capture's.
    :param oldest: seconds of age that a side may have at most, outside the gaps, in a market that never rests.
    """
    began_at, interval = datetime.fromisoformat(arguments["began_at"]), timedelta(seconds=arguments["interval"])
    part = timedelta(seconds=arguments["part_seconds"])
    ends_at = began_at + timedelta(seconds=arguments["duration"])
    due = [began_at + number * interval for number in range(1, (ends_at - began_at) // interval + 1)]
    check = CaptureCheck(due=len(due))
    wrong = check.wrong
    periods = -((began_at - ends_at) // part)
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("_"))
    stem = summary["path"].rpartition("/")[2]
    expected = [stem.replace("*", f"{period:06d}") for period in range(periods)]
    if names != expected:
        wrong.append(f"the files are {names}, not {expected}")
    rows: list[dict[str, Any]] = []
    gaps: list[tuple[datetime, datetime]] = []
    counts = {"rows": 0, "gap_seconds": 0.0, "reconnects": 0, "dropped": 0, "skipped": 0}
    for period, name in enumerate(names):
        _read(
            folder / name,
            period,
            (began_at + period * part, min(began_at + (period + 1) * part, ends_at)),
            rows,
            gaps,
            counts,
            wrong,
        )
    moments = [datetime.fromisoformat(row["due_at"]) for row in rows]
    if moments != sorted(set(moments)):
        wrong.append("rows are doubled or out of order")
    if set(moments) - set(due):
        wrong.append(f"rows at moments that were not due: {sorted(set(moments) - set(due))[:3]}")
    gaps.sort()
    for before, after in pairwise(gaps):
        if after[0] < before[1]:
            wrong.append(f"gaps overlap: {before} and {after}")
    missing = [moment for moment in due if moment not in set(moments)]
    unstated = [moment for moment in missing if not _in_gap(moment, gaps)]
    if unstated:
        wrong.append(f"{len(unstated)} snapshots are missing outside the stated gaps: {unstated[:3]}")
    for row, moment in zip(rows, moments, strict=True):
        old = max(row["bids_age"], row["asks_age"])
        if not row["stale"] and old > oldest and not _in_gap(moment, gaps):
            wrong.append(f"the row due at {moment} is {old} s old, and neither stale nor in a gap")
    check.rows, check.missing, check.gaps = len(rows), len(missing), len(gaps)
    check.stale = sum(row["stale"] for row in rows)
    check.gap_seconds = sum((until - since).total_seconds() for since, until in gaps)
    for name, found in {**counts, "files": len(names)}.items():
        if abs(found - summary[name]) > SLOP * max(1, len(gaps)):
            wrong.append(f"{name} are {found} in the files and {summary[name]} in the summary")
    return check


def _read(
    path: Path,
    period: int,
    span: tuple[datetime, datetime],
    rows: list[dict[str, Any]],
    gaps: list[tuple[datetime, datetime]],
    counts: dict[str, Any],
    wrong: list[str],
) -> None:
    try:
        own_rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        told = json.loads((path.parent / f"_{path.name}.json").read_text(encoding="utf-8"))
    except (ValueError, FileNotFoundError) as error:
        wrong.append(f"{path.name} is torn: {error}")
        return
    own_gaps = told["gaps"]
    if not (b"\n" + path.read_bytes()).endswith(b"\n") or told["period"] != period or len(own_rows) != told["rows"]:
        wrong.append(f"{path.name} holds other than it says")
    if told["sha256"] != hashlib.sha256(path.read_bytes()).hexdigest():
        wrong.append(f"{path.name} has not the rows of its entry")
    if not all(span[0] < datetime.fromisoformat(row["due_at"]) <= span[1] for row in own_rows):
        wrong.append(f"{path.name} holds a row of another period")
    for gap in own_gaps:
        since, until = datetime.fromisoformat(gap["from"]), datetime.fromisoformat(gap["until"])
        if not span[0] <= since <= until <= span[1]:
            wrong.append(f"{path.name} states a gap of another period: {since} to {until}")
        if abs((until - since).total_seconds() - gap["seconds"]) > SLOP:
            wrong.append(f"{path.name} states a gap of the wrong length")
        gaps.append((since, until))
    rows.extend(own_rows)
    for name in counts:
        counts[name] += told[name]


def _in_gap(moment: datetime, gaps: list[tuple[datetime, datetime]]) -> bool:
    return any(since <= moment <= until for since, until in gaps)
