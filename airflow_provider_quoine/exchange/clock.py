"""Where the time comes from. A simulation hands in clocks of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """
    The two clocks of a machine; both may be asked on any thread.

    :param monotonic: seconds since some moment. It never jumps, and it is the clock of the event loop.
    :param wall: Unix seconds. It is set to another time now and then, back too.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time

    def now(self) -> datetime:
        """Return the wall clock's time, in UTC."""
        return datetime.fromtimestamp(self.wall(), UTC)


CLOCK = Clock()
"""This machine's."""
