"""A measure of how long the event loop was held up, that a busy machine does not change."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

INTERVAL = 0.005
LEAST_HOLD = 0.05


class Heart:
    """Times at which the event loop had a turn, and at which a thread beside it had one."""

    def __init__(self) -> None:
        self._waited = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._loop, self._thread = [self._now()], [time.monotonic()]
        self._over = threading.Event()

    def _now(self) -> tuple[float, float]:
        """Return the time, and for how many seconds the loop's thread has waited for a processor so far."""
        return time.monotonic(), int(self._waited.read_text().split()[1]) / 1e9

    async def beat(self) -> None:
        """Beat on the event loop."""
        while True:
            await asyncio.sleep(INTERVAL)
            self._loop.append(self._now())

    def beat_beside(self) -> None:
        """Beat on a thread."""
        while not self._over.wait(INTERVAL):
            self._thread.append(time.monotonic())

    def stop(self) -> None:
        """Stop the thread; a beat that is due counts to now."""
        self._over.set()
        self._loop.append(self._now())
        self._thread.append(time.monotonic())

    @property
    def held_up(self) -> float:
        """
        The longest time for which only the event loop was held up, in seconds.

        What the machine is to blame for is taken off: the time for which the loop's thread waited for a processor, and
        the longest time for which the thread beside it had no turn. Holds of less than 50 ms are not told.
        """
        pauses = list(pairwise(self._thread))
        holds = [
            (began, ended, ended - began - (waited - waited_before))
            for (began, waited_before), (ended, waited) in pairwise(self._loop)
            if ended - began > LEAST_HOLD
        ]
        return max(
            (
                seconds - max(after - before for before, after in pauses if before < ended and after > began)
                for began, ended, seconds in holds
            ),
            default=0.0,
        )


@asynccontextmanager
async def heartbeat() -> AsyncIterator[Heart]:
    """Measure how long the event loop is held up within a block."""
    heart = Heart()
    thread = threading.Thread(target=heart.beat_beside)
    thread.start()
    beating = asyncio.create_task(heart.beat())
    try:
        yield heart
        # So that it sees the last hold.
        await asyncio.sleep(2 * INTERVAL)
    finally:
        beating.cancel()
        heart.stop()
        thread.join()
