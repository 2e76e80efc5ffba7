"""Gathers a capture's rows and brings its parts to the store while it goes on, however slow or broken that store is."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from bisect import bisect_left, bisect_right
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_quoine.captures.parts import SECOND, Part, Periods
from airflow_provider_quoine.exchange.back_off import back_off
from airflow_provider_quoine.exchange.errors import QuoineError, QuoineInputError
from airflow_provider_quoine.formats.pieces import Gap, Row, Span, Stretch, within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from airflow_provider_quoine.captures.store import PartStore
    from airflow_provider_quoine.formats.entries import StoredPart

log = logging.getLogger(__name__)

MAX_PENDING_BYTES = 64_000_000
"""Of rows that wait for the store; beyond it what comes is not taken, and stated as a gap."""

PART_BYTES = 16_000_000
"""Of rows; a part that has as many is written early, at the end of the second."""

OPEN_PATIENCE = 0.5
"""Seconds that a store has to open before the capture listens anyway."""

STORED_TIMEOUT = 5.0
"""Seconds for reading what is there, for the message of a capture that fails."""

ROW_OVERHEAD = 300
"""Bytes that a row takes in memory beside its text."""

LOSS_EDGE = timedelta(seconds=0.1)
"""How much longer than the rows that were not taken their gap is, at both ends."""

LOOK_INTERVAL = 0.25
"""Seconds between two looks for parts to write. What comes late for one that was written is gathered meanwhile."""

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

    Rows, gaps and stretches are put into their parts on the event loop; one thread writes.
    """

    def __init__(self, *, store: PartStore, periods: Periods) -> None:
        self.life = store.life
        self.files = 0
        """How many were there at the beginning."""
        self.problem = ""
        """Why the last try to write failed; empty if it did not."""
        self._store = store
        self._periods = periods
        self._loop = asyncio.get_running_loop()
        self.closed_until = periods.began_at
        """Up to then this life has closed its parts; of the time before it listened it says nothing."""
        self._begins = [*(periods.span(number).since for number in range(periods.count)), periods.ends_at]
        """When each of this life's parts begins; after them, when the last one ends."""
        self._pending: defaultdict[datetime, Part] = defaultdict(Part)
        """What is gathered of each part, by its beginning."""
        self._due: list[tuple[Part, Span]] = []
        """What is to be written. What comes later for the same part is another file."""
        self._untidy: set[Span] = set()
        """Times that were written and may have to be merged."""
        self._bytes = 0
        """Of the rows that are pending or being written."""
        self._lost: Gap | None = None
        self._no_more = False
        self._thread = ThreadPoolExecutor(1, "quoine-capture")
        self._context = contextvars.copy_context()
        refused = (
            f"{store.folder!r} cannot be written to. Nothing was captured by this try. Correct the path or the right "
            "to write there; a retry goes on. What the store says"
        )
        self._opening = asyncio.create_task(self._do(store.open, refused, tries=FINAL_AFTER, refusals=1))

    async def open(self, *, patience: float | None) -> None:
        """
        See that the store can be written to, and list what is there.

        :param patience: seconds; a store that takes longer is waited for by :meth:`run`. None waits here.
        :raises QuoineInputError: if the path is of no store.
        :raises QuoineStorageError: if the store refuses.
        """
        done, _ = await asyncio.wait({self._opening}, timeout=patience)
        for task in done:
            self.files = task.result()

    def add_row(self, row: Row) -> None:
        """Take a row; one of a part that was written already is added to it."""
        if self._bytes > MAX_PENDING_BYTES:
            reason = f"there was no room for more rows while the store did not take them: {self.problem or 'too slow'}"
            # A second copy may have had the first and the last of them a moment earlier or later.
            self._lost = Gap(self._lost.since if self._lost else row.at - LOSS_EDGE, row.at + LOSS_EDGE, reason)
            return
        self._state_loss()
        since, until = self._span(index := self._index(row.at))
        part = self._pending[since]
        part.rows.append(row)
        size = len(row.line) + ROW_OVERHEAD
        part.bytes += size
        self._bytes += size
        cut = since - (since - row.at) // SECOND * SECOND
        if part.bytes >= PART_BYTES and since < cut < until and self.closed_until < until:
            # The rest of this second is of this part yet: a second copy most likely cuts at the same one.
            self._begins.insert(index + 1, cut)

    def add_gap(self, gap: Gap) -> None:
        """State a gap in the parts that it touches, those written already among them."""
        own = gap._replace(life=self.life)
        for index in range(self._index(gap.since), self._index(gap.until) + 1):
            if pieces := within([own], self._span(index)):
                self._pending[self._begins[index]].gaps.extend(pieces)

    def change_rows(self, gap: Gap, change: Callable[[Row], Row | None]) -> None:
        """Change rows that came in a gap and are not written yet; None is no row."""
        for part in (*self._pending.values(), *(part for part, _ in self._due)):
            changed = [change(row) if gap.since <= row.at <= gap.until else row for row in part.rows]
            part.rows = [row for row in changed if row is not None]

    def open_until(self) -> datetime | None:
        """Return where the first part ends that is not closed: at the next cut, or with its period; None after all."""
        index = bisect_right(self._begins, self.closed_until)
        return self._begins[index] if index < len(self._begins) else None

    def close(self, stretches: list[Stretch], *, until: datetime) -> None:
        """
        Let that part be written.

        :param stretches: the time of it that was listened to.
        :param until: its end, or that of the capture's run.
        """
        self._state_loss()
        self._pending[self._begins[bisect_right(self._begins, self.closed_until) - 1]].stretches.extend(stretches)
        self.closed_until = until

    async def finish(self, running: Awaitable[None]) -> None:
        """
        Wait until all is written.

        :param running: :meth:`run`.
        :raises QuoineInputError: if a file that is no part is in the way.
        :raises QuoineStorageError: if the store refuses for good, or still takes nothing long after the end.
        """
        self._no_more = True
        try:
            async with asyncio.timeout(FINISH_TIMEOUT):
                await running
        except TimeoutError:
            raise QuoineStorageError(
                f"{self._unwritten()} rows could not be written within {FINISH_TIMEOUT:g} s after the capture's end: "
                f"{self.problem or 'the store does not answer'}."
            ) from None

    async def run(self) -> None:
        """
        Write what is due, until all is, and merge it with what else is there when nothing is due.

        :raises QuoineInputError: if a file that is no part is in the way.
        :raises QuoineStorageError: if the store refuses for good.
        """
        await self._opening
        while self._gathered() or not self._no_more:
            if self._due:
                await self._write(self._due[0])
            elif self._untidy:
                span = min(self._untidy)
                await self._do(partial(self._store.tidy, span))
                self._untidy.remove(span)
            else:
                await asyncio.sleep(LOOK_INTERVAL)

    async def flush(self) -> None:
        """Write what was closed, once, most rows first; to merge it is left to the next life."""
        try:
            for each in self._gathered():
                await self._write(each, tries=1)
        except QuoineStorageError:
            log.warning("The capture ends with %d rows that could not be written: %s.", self._unwritten(), self.problem)

    async def stored(self) -> list[StoredPart]:
        """Return what the files say of themselves; nothing if the store does not say it in time."""
        # Stores have errors of their own, and this is for a message about another one.
        with suppress(Exception):
            async with asyncio.timeout(STORED_TIMEOUT):
                return await self._on_thread(self._store.parts)
        return []

    async def seal(self) -> dict[str, Any]:
        """
        Write the manifest of all that is stored, and return it.

        :raises QuoineInputError: if a file that is no part is in the way.
        :raises QuoineStorageError: if the store refuses.
        """
        refused = "The manifest of the capture could not be written"
        return await self._do(self._store.write_manifest, refused, tries=FINAL_AFTER, refusals=1)

    def stop(self) -> None:
        """Let go of the thread; a write that hangs is left to its end."""
        self._opening.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _index(self, moment: datetime) -> int:
        """Return which part a moment is in; one before the beginning or after the end is in the nearest."""
        return min(max(0, bisect_left(self._begins, moment) - 1), len(self._begins) - 2)

    def _span(self, index: int) -> Span:
        return Span(*self._begins[index : index + 2])

    def _state_loss(self) -> None:
        if self._lost is not None:
            lost, self._lost = self._lost, None
            log.warning("Rows of %.1f s were lost: %s.", lost.seconds, lost.reason)
            self.add_gap(lost)

    def _gathered(self) -> list[tuple[Part, Span]]:
        """Return what is to be written, that with the most rows first."""
        for since, part in [*self._pending.items()]:
            until = self._begins[bisect_right(self._begins, since)]
            # The last one of a life that is stopped is closed before its end.
            if until <= self.closed_until or part.stretches:
                self._due.append((self._pending.pop(since), Span(since, min(until, self.closed_until))))
        self._due.sort(key=lambda each: each[0].bytes, reverse=True)
        return [*self._due]

    def _unwritten(self) -> int:
        return sum(len(part.rows) for part in (*self._pending.values(), *(part for part, _ in self._due)))

    async def _write(self, due: tuple[Part, Span], *, tries: float = inf) -> None:
        part, span = due
        await self._do(partial(self._store.write, part, span), tries=tries)
        self._due.remove(due)
        self._bytes -= part.bytes
        self._untidy.add(span)

    async def _do(
        self,
        work: Callable[[], Result],
        refused: str = "The store refuses for good",
        *,
        tries: float = inf,
        refusals: int = FINAL_AFTER,
    ) -> Result:
        """
        Do something at the store, again and again while that fails.

        :param refused: what to say when it is given up.
        :param tries: so many at most.
        :param refusals: after so many of :data:`REFUSALS` in a row it is given up, too.
        """
        in_a_row = 0
        for failures in count(1):
            try:
                result = await self._on_thread(work)
            except QuoineInputError:
                raise
            except Exception as error:
                # Stores have errors of their own.
                words = f"{type(error).__name__}: {error}"[:300]
                if not self.problem:
                    log.warning("A part could not be written and is kept until it can: %s.", words)
                self.problem = words
                in_a_row = in_a_row + 1 if isinstance(error, REFUSALS) else 0
                if failures >= tries or in_a_row >= refusals:
                    raise QuoineStorageError(f"{refused}: {words}.") from error
                await asyncio.sleep(back_off(failures, first=FIRST_RETRY_DELAY, longest=LONGEST_RETRY_DELAY))
            else:
                if self.problem:
                    log.info("The store takes parts again.")
                self.problem = ""
                break
        return result

    async def _on_thread(self, work: Callable[[], Result]) -> Result:
        return await self._loop.run_in_executor(self._thread, self._context.run, work)
