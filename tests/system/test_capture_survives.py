"""A capture whose process is killed and whose connection is cut in every way holds what it promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.captured import check_captured
from tests.system.capture_faults import CUTS, capture_under_faults

#: A dead connection is missed within a second, and all else is mended faster.
IMPATIENT = {
    "connect_timeout": 1.0,
    "subscribe_timeout": 1.0,
    "activity_timeout": 0.5,
    "pong_timeout": 0.5,
    "first_wait": 0.05,
    "longest_wait": 0.3,
    "steady": 0.5,
}


@pytest.mark.timeout(600)
def test_every_snapshot_outside_the_stated_gaps_is_there_after_two_kills_and_all_kinds_of_cuts(tmp_path: Path) -> None:
    cuts = capture_under_faults(
        folder=tmp_path / "capture",
        home=tmp_path / "airflow",
        duration=36.0,
        interval=0.1,
        part_seconds=4.0,
        cut_every=1.5,
        kill_at=[11.0, 22.0],
        timing=IMPATIENT,
    )
    manifest = check_captured(str(tmp_path / "capture"))
    # It was made hard, and still there is much to be right about.
    assert cuts > len(CUTS)
    assert manifest["reconnects"] > 3
    assert manifest["rows"] > 100
    assert len({one["life"] for part in manifest["parts"] for one in part["listened"]}) == 3
