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
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_quoine.captures.parts import SECOND, Part, PartKey, Periods, silence
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

READ_REST_TIMEOUT = 5.0
"""Seconds for reading what was there, for the message of a capture that fails."""

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
        self.stored: dict[PartKey, StoredPart] = {}
        """What is known to be there. A restarted capture reads it while it listens."""
        self.problem = ""
        """Why the last try to write failed; empty if it did not."""
        self._store = store
        self._periods = periods
        self._loop = asyncio.get_running_loop()
        self.closed_until = periods.began_at
        """Up to then this life has closed its parts."""
        self._found: list[PartKey] = []
        """Parts that were there and have not been read yet."""
        self._over = 0
        """Periods that were over before this life listened."""
        self._keys = [PartKey(number) for number in range(periods.count)]
        self._begins = [*(periods.span(key.period).since for key in self._keys), periods.ends_at]
        """This life's parts, and when each begins; after them, when the last one ends."""
        self._pending: defaultdict[PartKey, Part] = defaultdict(lambda: Part(life=self.life))
        self._due: set[PartKey] = set()
        """Parts to write."""
        self._bytes = 0
        """Of the rows that are pending or being written."""
        self._lost: Gap | None = None
        self._failures = self._refusals = 0
        self._no_more = False
        self._thread = ThreadPoolExecutor(1, "quoine-capture")
        self._context = contextvars.copy_context()
        self._opening = asyncio.create_task(self._open())

    async def open(self, *, patience: float | None) -> None:
        """
        See that the store can be written to, and list what is there.

        :param patience: seconds; a store that takes longer is waited for by :meth:`run`. None waits here.
        :raises QuoineInputError: if the path is of no store.
        :raises QuoineStorageError: if the store refuses.
        """
        done, _ = await asyncio.wait({self._opening}, timeout=patience)
        for task in done:
            task.result()

    async def _open(self) -> None:
        for failures in count(1):
            try:
                self._found = await self._on_thread(self._store.open)
                return
            except QuoineInputError:
                raise
            except Exception as error:
                if isinstance(error, REFUSALS) or failures >= FINAL_AFTER:
                    raise QuoineStorageError(
                        f"{self._store.folder!r} cannot be written to: {_words(error)}. Nothing was captured by this "
                        "try. Correct the path or the right to write there; a retry goes on."
                    ) from error
                await asyncio.sleep(FIRST_RETRY_DELAY * failures)

    @property
    def files(self) -> int:
        """How many parts are there."""
        return len({*self.stored, *self._found})

    def begin(self, now: datetime) -> None:
        """
        Let all time until now be accounted for: nobody knows yet who listened.

        :param now: when this life begins to listen.
        """
        self._over = max(0, bisect_right(self._begins, now) - 1)
        self.closed_until = now

    def add_row(self, row: Row) -> None:
        """Take a row; one of a part that was written already is added to it."""
        if self._bytes > MAX_PENDING_BYTES:
            reason = f"there was no room for more rows while the store did not take them: {self.problem or 'too slow'}"
            # A second copy may have had the first and the last of them a moment earlier or later.
            self._lost = Gap(self._lost.since if self._lost else row.at - LOSS_EDGE, row.at + LOSS_EDGE, reason)
            return
        self._state_loss()
        index = self._index(row.at)
        key, (since, until) = self._keys[index], self._span(index)
        part = self._part(key)
        part.rows.append(row)
        size = len(row.line) + ROW_OVERHEAD
        part.bytes += size
        self._bytes += size
        passed = -((since - row.at) // SECOND)
        cut = since + passed * SECOND
        if part.bytes >= PART_BYTES and since < cut < until and self.closed_until < until:
            # The rest of this second is of this part yet: a second copy most likely cuts at the same one.
            self._keys.insert(index + 1, key._replace(cut=key.cut + passed))
            self._begins.insert(index + 1, cut)

    def add_gap(self, gap: Gap) -> None:
        """State a gap in the parts that it touches, those written already among them."""
        for index in range(self._index(gap.since), self._index(gap.until) + 1):
            if pieces := within([gap], self._span(index)):
                self._part(self._keys[index]).gaps.extend(pieces)

    def change_rows(self, gap: Gap, change: Callable[[Row], Row | None]) -> None:
        """Change rows that came in a gap and are not written yet; None is no row."""
        for part in self._pending.values():
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
        key = self._keys[bisect_right(self._begins, self.closed_until) - 1]
        self._part(key).stretches.extend(stretches)
        self._due.add(key)
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
            rows = sum(len(part.rows) for part in self._pending.values())
            raise QuoineStorageError(
                f"{rows} rows could not be written within {FINISH_TIMEOUT:g} s after the capture's end: "
                f"{self.problem or 'the store does not answer'}."
            ) from None

    async def run(self) -> None:
        """
        Write what is due, until all is, and read what was there when nothing is due.

        :raises QuoineInputError: if a file that is no part is in the way.
        :raises QuoineStorageError: if the store refuses for good.
        """
        await self._opening
        self._due.update(map(PartKey, {*range(self._over)} - {key.period for key in self._found}))
        while self._due or self._found or not self._no_more:
            if self._due:
                await self._write(self._largest_first()[0])
            elif self._found:
                await self._read_newest()
            else:
                await asyncio.sleep(LOOK_INTERVAL)
            if self.problem:
                await asyncio.sleep(back_off(self._failures, first=FIRST_RETRY_DELAY, longest=LONGEST_RETRY_DELAY))
        await self._on_thread(self._store.sweep)

    async def flush(self) -> None:
        """Write what was closed, once, most rows first; what only states a silence is left to the next life."""
        for key in self._largest_first():
            if self._pending[key]:
                await self._write(key)
            if self.problem:
                rows = sum(len(part.rows) for part in self._pending.values())
                log.warning("The capture ends with %d rows that could not be written: %s.", rows, self.problem)
                return

    async def read_rest(self) -> None:
        """Read what was there and has not been read yet, as far as that goes."""
        with suppress(TimeoutError, QuoineError):
            async with asyncio.timeout(READ_REST_TIMEOUT):
                while self._found and not self.problem:
                    await self._read_newest()

    async def seal(self) -> dict[str, Any]:
        """
        Write the manifest of all that is stored, and return it.

        :raises QuoineStorageError: if the store refuses.
        """
        try:
            return await self._on_thread(self._store.write_manifest)
        except Exception as error:
            raise QuoineStorageError(f"The manifest of the capture could not be written: {_words(error)}.") from error

    def stop(self) -> None:
        """Let go of the thread; a write that hangs is left to its end."""
        self._opening.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _index(self, moment: datetime) -> int:
        """Return which part a moment is in; one before the beginning or after the end is in the nearest."""
        return min(max(0, bisect_left(self._begins, moment) - 1), len(self._keys) - 1)

    def _span(self, index: int) -> Span:
        return Span(*self._begins[index : index + 2])

    def _end_of(self, key: PartKey) -> datetime:
        return self._begins[bisect_left(self._keys, key) + 1]

    def _part(self, key: PartKey) -> Part:
        if self._end_of(key) <= self.closed_until:
            self._due.add(key)
        return self._pending[key]

    def _state_loss(self) -> None:
        if self._lost is not None:
            lost, self._lost = self._lost, None
            log.warning("Rows of %.1f s were lost: %s.", lost.seconds, lost.reason)
            self.add_gap(lost)

    def _largest_first(self) -> list[PartKey]:
        """Return the parts to write, those with the most rows first."""
        return sorted(sorted(self._due), key=lambda key: self._pending[key].bytes, reverse=True)

    def _sums(self, key: PartKey) -> dict[PartKey, StoredPart]:
        with suppress(FileNotFoundError):
            return {key: self._store.sums(key)}
        return {}

    async def _read_newest(self) -> None:
        """Read the newest part that was there. If nobody says who listened in its period, that is stated."""
        key = self._found[-1]
        if key not in self.stored and not await self._try(partial(self._sums, key)):
            return
        self._found.pop()
        if key.period < self._over and not (self._found and self._found[-1].period == key.period):
            parts = [part for one, part in self.stored.items() if one.period == key.period]
            if silence(self._periods.span(key.period), parts):
                self._due.add(PartKey(key.period))

    async def _write(self, key: PartKey) -> None:
        self._due.remove(key)
        part, until, written = self._pending.pop(key), min(self._end_of(key), self.closed_until), False
        try:
            written = await self._try(partial(self._store.write, key, part, until=until))
        finally:
            if written:
                self._bytes -= part.bytes
            else:
                part += self._pending[key]
                self._pending[key] = part
                self._due.add(key)

    async def _try(self, work: Callable[[], dict[PartKey, StoredPart]]) -> bool:
        """
        Do something at the store, and note which parts are there.

        :return: whether the store did it.
        """
        try:
            self.stored.update(await self._on_thread(work))
        except QuoineInputError:
            raise
        except Exception as error:
            # Stores have errors of their own.
            if not self.problem:
                log.warning("A part could not be written and is kept until it can: %s.", _words(error))
            self.problem = _words(error)
            self._failures += 1
            self._refusals = self._refusals + 1 if isinstance(error, REFUSALS) else 0
            if self._refusals >= FINAL_AFTER:
                raise QuoineStorageError(f"The store refuses for good: {self.problem}.") from error
            return False
        if self.problem:
            log.info("The store takes parts again.")
        self.problem, self._failures, self._refusals = "", 0, 0
        return True

    async def _on_thread(self, work: Callable[[], Result]) -> Result:
        return await self._loop.run_in_executor(self._thread, self._context.run, work)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
