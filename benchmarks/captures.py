"""
A capture over a bad network and through a triggerer that is killed: do its files hold what they promise?

One order book is captured every second while its connection is cut every 20 s, in all the ways that the notes on Pusher
name in turn, and the process that captures is killed twice and started again. Then all files are read. Every snapshot
that was due must be there, once, or lie in a stated gap; gaps must not overlap and must add up; no line may be torn;
and outside the gaps no row may be old without being marked as stale.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tools.capture_check import check_capture
from tools.capture_faults import capture_under_faults

#: A silent connection is missed after ten seconds, so that the next cut finds a live one.
TIMING = {"activity_timeout": 2.0, "pong_timeout": 8.0}


def main() -> None:
    """Capture, check the files, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--cut-every", type=float, default=20.0, help="seconds")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two snapshots")
    parser.add_argument("--part-seconds", type=float, default=60.0)
    given = parser.parse_args()
    seconds = 60 * given.minutes
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        arguments, summary, cuts = capture_under_faults(
            folder=folder / "capture",
            home=folder / "airflow",
            duration=seconds,
            interval=given.interval,
            part_seconds=given.part_seconds,
            cut_every=given.cut_every,
            kill_at=[seconds / 3, 2 * seconds / 3],
            timing=TIMING,
        )
        check = check_capture(folder / "capture", arguments, summary)
    print(f"{given.minutes:g} minutes, a snapshot every {given.interval:g} s, {cuts} cuts, 2 kills")
    print(f"{'snapshots due':36}{check.due:12}")
    print(f"{'rows':36}{check.rows:12}")
    print(f"{'  of them marked as stale':36}{check.stale:12}")
    print(f"{'missing, all in stated gaps':36}{check.missing:12}")
    print(f"{'reconnects':36}{summary['reconnects']:12}")
    print(f"{'pieces of gaps':36}{check.gaps:12}")
    print(f"{'seconds of gaps':36}{check.gap_seconds:12.1f}")
    print("\n".join(["The files hold what they promise." if not check.wrong else "BROKEN:", *check.wrong]))
    sys.exit(bool(check.wrong))


if __name__ == "__main__":
    main()
