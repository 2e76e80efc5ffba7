"""Gathers a capture's rows and brings its parts to the store while it goes on, however slow or broken that store is."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_quoine.captures.parts import Gap, Part, Row, Stretch, outside, within
from airflow_provider_quoine.captures.store import totals
from airflow_provider_quoine.exchange.back_off import back_off
from airflow_provider_quoine.exchange.errors import QuoineError, QuoineInputError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from airflow_provider_quoine.captures.parts import Periods
    from airflow_provider_quoine.captures.store import PartStore, StoredPart

log = logging.getLogger(__name__)

MAX_PENDING_BYTES = 64_000_000
"""Of rows that wait for the store; beyond it what comes is not taken, and stated as a gap."""

ROW_OVERHEAD = 150
"""Bytes that a row takes in memory beside its text."""

LATE_ROWS_DELAY = 0.5
"""Seconds in which what comes late for a period that was written is gathered."""

PARTIAL_PERIOD_DELAY = 1.0
"""
Seconds that a part waits whose period was listened to only partly.

A second copy that began in the middle of the period writes behind the one that has all of it, and so merges with what
that one wrote.
"""

FIRST_RETRY_DELAY, LONGEST_RETRY_DELAY = 1.0, 60.0
"""Seconds between two tries to write."""

FINAL_AFTER = 3
"""Refusals of a kind that mends itself rarely (:data:`REFUSALS`), in a row, until they are final."""

REFUSALS = (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""The errors of a store that was reached and refused."""

FINISH_TIMEOUT = 300.0
"""Seconds after the capture's end until what could not be written is given up."""

Result = TypeVar("Result")


class QuoineStorageError(QuoineError):
    """The store of a capture refuses, or does not answer."""


class CaptureWriter:
    """
    The parts of one capture on their way to the store.

    Rows, gaps and stretches are put into their periods on the event loop; one thread writes.
    """

    def __init__(self, *, store: PartStore, periods: Periods) -> None:
        self.stored: dict[int, StoredPart] = {}
        """By period."""
        self.problem = ""
        """Why the last try to write failed; empty if it did not."""
        self._store = store
        self._periods = periods
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, Part] = {}
        self._due: dict[int, tuple[float, datetime]] = {}
        """Periods to write: not before this time of the loop's clock, accounting for all time until then."""
        self._bytes = 0
        self._lost: Gap | None = None
        self._failures = self._refusals = 0
        self._stir = asyncio.Event()
        self._closed: set[int] = set()
        self._no_more = False
        self._thread = ThreadPoolExecutor(1, "quoine-capture")
        self._context = contextvars.copy_context()

    async def open(self) -> None:
        """
        See that the store can be written to, and read what is there.

        :raises QuoineInputError: if the path is none, or holds a file that is no part.
        :raises QuoineStorageError: if the store refuses.
        """
        while True:
            try:
                self.stored = await self._on_thread(self._store.open)
                break
            except QuoineInputError:
                raise
            except Exception as error:
                self._failures += 1
                if isinstance(error, REFUSALS) or self._failures >= FINAL_AFTER:
                    raise QuoineStorageError(
                        f"{self._store.folder!r} cannot be written to: {_words(error)}. Nothing was captured by this "
                        "try. Correct the path or the right to write there; a retry goes on."
                    ) from error
                await asyncio.sleep(FIRST_RETRY_DELAY * self._failures)
        self._failures = 0

    async def account(self, now: datetime) -> None:
        """
        State the time in which no capture listened, of all periods that are over.

        :param now: when this capture begins to listen.
        """
        over = self._periods.over(now)
        self._closed.update(range(over))
        for period in await self._on_thread(partial(self._unstated, over)):
            self._ask(period, self._periods.span(period).until)

    def _unstated(self, over: int) -> list[int]:
        """Return the periods that are over and say nothing of some of their time."""
        spans = [(period, self._periods.span(period), self.stored.get(period)) for period in range(over)]
        return [
            period
            for period, span, stored in spans
            if stored is None or outside([Gap(*span, "")], [*stored.stretches, *stored.gaps])
        ]

    def add_row(self, row: Row) -> None:
        """Take a row; one of a period that was written already is added to it."""
        if self._bytes > MAX_PENDING_BYTES:
            reason = f"there was no room for more rows while the store did not take them: {self.problem or 'too slow'}"
            self._lost = Gap(self._lost.since if self._lost else row.at, row.at, reason)
            return
        self._state_loss()
        self._part(self._periods.number_of(row.at)).rows.append(row)
        self._bytes += len(row.line) + ROW_OVERHEAD

    def add_gap(self, gap: Gap) -> None:
        """State a gap in the periods that it touches, those written already among them."""
        for period in range(self._periods.number_of(gap.since), self._periods.number_of(gap.until) + 1):
            pieces = within([gap], self._periods.span(period))
            if pieces:
                self._part(period).gaps.extend(pieces)

    def close(self, period: int, stretch: Stretch) -> None:
        """
        Let a period be written.

        :param stretch: the time of it that was listened to.
        """
        self._state_loss()
        span = self._periods.span(period)
        self._part(period).stretches.append(stretch)
        # By chance, so that two copies that both have a part of it only do not meet either.
        delay = PARTIAL_PERIOD_DELAY * random.uniform(1, 2) if stretch.since > span.since else 0  # noqa: S311 - no secret
        self._closed.add(period)
        self._due[period] = self._loop.time() + delay, span.until
        self._stir.set()

    async def finish(self, running: Awaitable[None]) -> None:
        """
        Wait until all is written.

        :param running: :meth:`run`.
        :raises QuoineInputError: if a file that is no part is in the way.
        :raises QuoineStorageError: if the store refuses for good, or still takes nothing long after the end.
        """
        self._no_more = True
        self._stir.set()
        try:
            async with asyncio.timeout(FINISH_TIMEOUT):
                await running
        except TimeoutError:
            rows = sum(len(part.rows) for part in self._pending.values())
            raise QuoineStorageError(
                f"{rows} rows could not be written within {FINISH_TIMEOUT:g} s after the capture's end: "
                f"{self.problem or 'the store does not answer'}."
            ) from None

    async def run(self) -> None:
        """
        Write what is due, until all is.

        :raises QuoineInputError: if a file that is no part is in the way.
        :raises QuoineStorageError: if the store refuses for good.
        """
        while self._due or not self._no_more:
            period = await self._next()
            if period is None:
                continue
            await self._write(period)
            if self.problem:
                await asyncio.sleep(back_off(self._failures, first=FIRST_RETRY_DELAY, longest=LONGEST_RETRY_DELAY))
        await self._on_thread(self._sweep)

    async def flush(self, period: int, stretch: Stretch) -> None:
        """
        Write all there is, once, and the unfinished period with it.

        :param period: the unfinished one.
        :param stretch: the time of it that was listened to.
        """
        if stretch.since < stretch.until:
            self.close(period, stretch)
            self._due[period] = 0.0, stretch.until
        for due in sorted(self._due):
            await self._write(due)
            if self.problem:
                rows = sum(len(part.rows) for part in self._pending.values())
                log.warning("The capture ends with %d rows that could not be written: %s.", rows, self.problem)
                return

    def stop(self) -> None:
        """Let go of the thread; a write that hangs is left to its end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def summary(self) -> dict[str, int | float]:
        """Sum up what is stored."""
        return totals(self.stored)

    def _part(self, period: int) -> Part:
        if period in self._closed and period not in self._due:
            self._ask(period, self._periods.span(period).since)
        return self._pending.setdefault(period, Part(period=period))

    def _ask(self, period: int, until: datetime) -> None:
        self._due[period] = self._loop.time() + LATE_ROWS_DELAY, until
        self._stir.set()

    def _state_loss(self) -> None:
        if self._lost is not None:
            lost, self._lost = self._lost, None
            log.warning("Rows of %.1f s were lost: %s.", lost.seconds, lost.reason)
            self.add_gap(lost)

    async def _next(self) -> int | None:
        """Wait until a period is due; return None if there may be news first."""
        now = self._loop.time()
        due = [period for period, (at, _) in self._due.items() if at <= now]
        if due:
            return min(due)
        self._stir.clear()
        try:
            async with asyncio.timeout_at(min((at for at, _ in self._due.values()), default=None)):
                await self._stir.wait()
        except TimeoutError:
            pass
        return None

    async def _write(self, period: int) -> None:
        _, until = self._due.pop(period)
        part = self._pending.pop(period, Part(period=period))
        try:
            self.stored[period] = await self._on_thread(partial(self._store.write, part, until=until))
        except QuoineInputError:
            raise
        except BaseException as error:
            later = self._pending.get(period, Part(period=period))
            self._pending[period] = Part(
                period=period,
                rows=part.rows + later.rows,
                gaps=part.gaps + later.gaps,
                stretches=part.stretches + later.stretches,
            )
            self._due[period] = self._loop.time(), max(until, self._due.get(period, (0.0, until))[1])
            if not isinstance(error, Exception):
                raise
            self._note_failure(error)
        else:
            self._bytes -= sum(len(row.line) + ROW_OVERHEAD for row in part.rows)
            if self.problem:
                log.info("The store takes parts again.")
            self.problem, self._failures, self._refusals = "", 0, 0

    def _note_failure(self, error: Exception) -> None:
        if not self.problem:
            log.warning("A part could not be written and is kept until it can: %s.", _words(error))
        self.problem = _words(error)
        self._failures += 1
        self._refusals = self._refusals + 1 if isinstance(error, REFUSALS) else 0
        if self._refusals >= FINAL_AFTER:
            raise QuoineStorageError(f"The store refuses for good: {self.problem}.") from error

    def _sweep(self) -> None:
        try:
            self._store.sweep()
        except Exception as error:  # noqa: BLE001 - what is left lying there harms nobody
            log.info("Temporary files may have stayed: %s.", _words(error))

    async def _on_thread(self, work: Callable[[], Result]) -> Result:
        return await self._loop.run_in_executor(self._thread, self._context.run, work)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
