"""The machine that figures were measured on, and what else it did meanwhile."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import psutil


class Machine:
    """
    The machine, from when this is made on.

    :param packages: whose versions matter.
    """

    def __init__(self, *packages: str) -> None:
        self._packages = packages
        self._busy, self._all, self._own = self._times()

    def __str__(self) -> str:
        busy, whole, own = self._times()
        busy, whole, own = busy - self._busy, whole - self._all, own - self._own
        versions = [f"{package} {version(package)}" for package in self._packages]
        load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
        return (
            f"{psutil.cpu_count()} processors, Python {platform.python_version()}, {', '.join(versions)}.\n"
            f"Of the processors' time other programs took {100 * max(0.0, busy - own) / max(whole, 0.01):.0f} %, this "
            f"measurement {100 * own / max(whole, 0.01):.0f} %. Load averages at the end: {load}."
        )

    @staticmethod
    def _times() -> tuple[float, float, float]:
        """Return seconds of processors: busy ones, all, and those of this process and its ended children."""
        times = psutil.cpu_times()
        whole = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        own = os.times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        return whole - idle, whole, own.user + own.system + own.children_user + own.children_system
