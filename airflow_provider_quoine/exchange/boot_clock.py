"""The clock for what a process must not do too late."""

from __future__ import annotations

import time


def boot_time() -> float:
    """Seconds since boot, sleep of the machine and stops of the process included (Linux ``CLOCK_BOOTTIME``)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
