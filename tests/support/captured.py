"""Whether an order-book capture that has ended holds what it promises."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from airflow_provider_quoine.datasets.reading import one_capture
from airflow_provider_quoine.datasets.verification import verify
from airflow_provider_quoine.formats.entries import FOR_MERGING, entry_name, gaps_from

OLDEST = 5.0
"""Seconds of age that a side may have at most, outside the gaps, in a market that never rests."""


def check_captured(folder: str) -> dict[str, Any]:
    """
    See that its verification finds nothing wrong, that the parts' own entries say the same as the manifest, and that
    no old book is shown as a fresh one.

    :return: the manifest.
    """
    faults = verify(folder).faults
    assert not faults, faults
    capture = one_capture(folder)
    parts = capture.manifest["parts"]
    for part in parts:
        entry = json.loads((capture.root / entry_name(part["name"])).read_text())
        assert {of: value for of, value in entry.items() if of not in FOR_MERGING} == part
    gaps = [gap for part in parts for gap in gaps_from(part)]
    old = [row for row in capture.rows() if not row["stale"] and max(row["bids_age"], row["asks_age"]) > OLDEST]
    moments = [datetime.fromisoformat(row["due_at"]) for row in old]
    assert [at for at in moments if not any(gap.since <= at <= gap.until for gap in gaps)] == []
    return capture.manifest
