"""Gathers a capture's rows and brings its parts to the store while it goes on, however slow or broken that store is."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from bisect import bisect_left
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_quoine.captures.parts import SECOND, Part, PartKey
from airflow_provider_quoine.exchange.back_off import back_off
from airflow_provider_quoine.exchange.errors import QuoineError, QuoineInputError
from airflow_provider_quoine.formats.pieces import Gap, outside, within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from airflow_provider_quoine.captures.parts import Periods
    from airflow_provider_quoine.captures.store import PartStore
    from airflow_provider_quoine.formats.entries import StoredPart
    from airflow_provider_quoine.formats.pieces import Row, Stretch

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
        self._opening: asyncio.Task[None] | None = None
        self._found: list[PartKey] = []
        """Parts that were there and have not been read yet."""
        self._over = 0
        """Periods that were over before this life listened."""
        self._pending: dict[PartKey, Part] = {}
        self._cuts: defaultdict[int, list[int]] = defaultdict(lambda: [0])
        """Where this life's parts begin, by period."""
        self._due: dict[PartKey, tuple[float, datetime]] = {}
        """Parts to write: not before this time of the loop's clock, accounting for all time until then."""
        self._bytes = 0
        self._bytes_of: defaultdict[PartKey, int] = defaultdict(int)
        self._lost: Gap | None = None
        self._failures = self._refusals = 0
        self._stir = asyncio.Event()
        self._closed: set[PartKey] = set()
        self._no_more = False
        self._thread = ThreadPoolExecutor(1, "quoine-capture")
        self._context = contextvars.copy_context()

    async def open(self, *, patience: float | None) -> None:
        """
        See that the store can be written to, and list what is there.

        :param patience: seconds; a store that takes longer is waited for by :meth:`run`. None waits here.
        :raises QuoineInputError: if the path is of no store.
        :raises QuoineStorageError: if the store refuses.
        """
        self._opening = asyncio.create_task(self._open())
        done, _ = await asyncio.wait({self._opening}, timeout=patience)
        for task in done:
            task.result()

    async def _open(self) -> None:
        while True:
            try:
                self._found = await self._on_thread(self._store.open)
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

    @property
    def files(self) -> int:
        """How many parts are there."""
        return len({*self.stored, *self._found})

    def begin(self, now: datetime) -> None:
        """
        Let all time until now be accounted for: nobody knows yet who listened.

        :param now: when this life begins to listen.
        """
        self._over = self._periods.over(now)
        self._closed.update(PartKey(period) for period in range(self._over))

    def add_row(self, row: Row) -> None:
        """Take a row; one of a part that was written already is added to it."""
        if self._bytes > MAX_PENDING_BYTES:
            reason = f"there was no room for more rows while the store did not take them: {self.problem or 'too slow'}"
            # A second copy may have had the first and the last of them a moment earlier or later.
            self._lost = Gap(self._lost.since if self._lost else row.at - LOSS_EDGE, row.at + LOSS_EDGE, reason)
            return
        self._state_loss()
        period = self._periods.number_of(row.at)
        begin, cuts = self._periods.span(period).since, self._cuts[period]
        passed = -((begin - row.at) // SECOND)
        key = PartKey(period, cuts[bisect_left(cuts, passed, 1) - 1])
        self._part(key).rows.append(row)
        size = len(row.line) + ROW_OVERHEAD
        self._bytes += size
        self._bytes_of[key] += size
        large = self._bytes_of[key] >= PART_BYTES and key not in self._closed
        if large and passed > cuts[-1] and begin + passed * SECOND < self._periods.span(period).until:
            # The rest of this second is of this part yet: a second copy most likely cuts at the same one.
            cuts.append(passed)

    def add_gap(self, gap: Gap) -> None:
        """State a gap in the parts that it touches, those written already among them."""
        for period in range(self._periods.number_of(gap.since), self._periods.number_of(gap.until) + 1):
            keys = [PartKey(period, cut) for cut in self._cuts.get(period, [0])]
            for key, span in self._periods.spans(keys).items():
                pieces = within([gap], span)
                if pieces:
                    self._part(key).gaps.extend(pieces)

    def change_rows(self, gap: Gap, change: Callable[[Row], Row | None]) -> None:
        """Change rows that came in a gap and are not written yet; None is no row."""
        for part in self._pending.values():
            if any(gap.since <= row.at <= gap.until for row in part.rows):
                changed = [change(row) if gap.since <= row.at <= gap.until else row for row in part.rows]
                part.rows = [row for row in changed if row is not None]

    def key_at(self, moment: datetime) -> PartKey | None:
        """Return the part that is open right after a moment; None after the end."""
        period = self._periods.over(moment)
        if period >= self._periods.count:
            return None
        passed = (moment - self._periods.span(period).since) // SECOND
        return PartKey(period, max(cut for cut in self._cuts[period] if cut <= passed))

    def end_of(self, key: PartKey) -> datetime:
        """Return where a part ends: at the next cut, or with its period."""
        return self._periods.spans(PartKey(key.period, cut) for cut in self._cuts[key.period])[key].until

    def close(self, key: PartKey, stretches: list[Stretch], *, until: datetime) -> None:
        """
        Let a part be written.

        :param stretches: the time of it that was listened to.
        :param until: its end, or that of the capture's run.
        """
        self._state_loss()
        self._part(key).stretches.extend(stretches)
        begin = self._periods.spans([key])[key].since
        # By chance, so that two copies that both have a part of it only do not meet either.
        partial = not stretches or stretches[0].since > begin
        delay = PARTIAL_PERIOD_DELAY * random.uniform(1, 2) if partial else 0  # noqa: S311 - no secret
        self._closed.add(key)
        self._due[key] = self._loop.time() + delay, until
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
        Write what is due, until all is, and read what was there when nothing is due.

        :raises QuoineInputError: if a file that is no part is in the way.
        :raises QuoineStorageError: if the store refuses for good.
        """
        if self._opening is not None:
            await self._opening
        for period in {*range(self._over)} - {key.period for key in self._found}:
            self._ask(PartKey(period))
        while self._due or self._found or not self._no_more:
            key = self._next()
            if key is not None:
                await self._write(key)
            elif self._found:
                await self._try(self._read_newest)
            else:
                await self._wait()
            if self.problem:
                await asyncio.sleep(back_off(self._failures, first=FIRST_RETRY_DELAY, longest=LONGEST_RETRY_DELAY))
        await self._on_thread(self._sweep)

    async def flush(self) -> None:
        """Write what was closed, once, most rows first; what only states a silence is left to the next life."""
        due = [key for key in self._pending if key in self._due]
        for key in sorted(due, key=lambda one: self._bytes_of.get(one, 0), reverse=True):
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
                    await self._try(self._read_newest)

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
        if self._opening is not None:
            self._opening.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _part(self, key: PartKey) -> Part:
        if key in self._closed and key not in self._due:
            self._ask(key)
        return self._pending.setdefault(key, self._empty(key))

    def _empty(self, key: PartKey) -> Part:
        return Part(period=key.period, cut=key.cut, life=self.life)

    def _ask(self, key: PartKey) -> None:
        self._due[key] = self._loop.time() + LATE_ROWS_DELAY, self.end_of(key)
        self._stir.set()

    def _state_loss(self) -> None:
        if self._lost is not None:
            lost, self._lost = self._lost, None
            log.warning("Rows of %.1f s were lost: %s.", lost.seconds, lost.reason)
            self.add_gap(lost)

    def _next(self) -> PartKey | None:
        """Return the part to write now: the one with the most rows."""
        now = self._loop.time()
        due = [key for key, (at, _) in self._due.items() if at <= now]
        return max(due, key=lambda key: self._bytes_of.get(key, 0), default=None)

    async def _wait(self) -> None:
        self._stir.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min((at for at, _ in self._due.values()), default=None)):
                await self._stir.wait()

    async def _read_newest(self) -> None:
        """Read the newest part that was there. If nobody says who listened in its period, that is stated."""
        key = self._found[-1]
        if key not in self.stored:
            with suppress(FileNotFoundError):
                stored = await self._on_thread(partial(self._store.sums, key))
                self.stored.setdefault(key, stored)
        self._found.pop()
        if key.period < self._over and not (self._found and self._found[-1].period == key.period):
            parts = [part for one, part in self.stored.items() if one.period == key.period]
            silent = [Gap(*self._periods.span(key.period), "")]
            for part in parts:
                silent = outside(outside(silent, part.stretches), part.gaps)
            if silent:
                self._ask(PartKey(key.period))

    async def _write(self, key: PartKey) -> None:
        _, until = self._due.pop(key)
        part, size = self._pending.pop(key, self._empty(key)), self._bytes_of.pop(key, 0)
        written = False
        try:
            written = await self._try(partial(self._store_part, part, until))
        finally:
            if written:
                self._bytes -= size
            else:
                self._pending[key] = part + self._pending.get(key, self._empty(key))
                self._bytes_of[key] += size
                self._due[key] = self._loop.time(), max(until, self._due.get(key, (0.0, until))[1])

    async def _store_part(self, part: Part, until: datetime) -> None:
        self.stored.update(await self._on_thread(partial(self._store.write, part, until=until)))

    async def _try(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Return whether the store did it."""
        try:
            await work()
        except QuoineInputError:
            raise
        except Exception as error:  # noqa: BLE001 - stores have errors of their own
            self._note_failure(error)
            return False
        if self.problem:
            log.info("The store takes parts again.")
        self.problem, self._failures, self._refusals = "", 0, 0
        return True

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
