"""One life of a capture: from where it begins, or goes on, to its end or until it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.captures.lines import line_of
from airflow_provider_quoine.captures.parts import Gap, Row, Stretch
from airflow_provider_quoine.exchange.errors import QuoineStreamError

if TYPE_CHECKING:
    from airflow_provider_quoine.captures.parts import Windows
    from airflow_provider_quoine.captures.schedule import Schedule
    from airflow_provider_quoine.captures.writer import CaptureWriter
    from airflow_provider_quoine.exchange.market.sampling import Sampler
    from airflow_provider_quoine.exchange.stream.pusher import PusherStream, StreamEvent

GRACE = 0.25
"""Seconds after a window's end until it is written: what is due or came at its end is on its way by then."""

GOODBYE = 6.0
"""Seconds that writing the unfinished part may take when the capture is stopped: Airflow kills a triggerer after 10."""

STRAGGLERS = 0.05
"""Seconds in which what has come, and was not taken when the capture is stopped, still is."""

HELD_UP = "the triggerer was held up"
UNREADABLE = "what was there could not be read"
STOPPED = "the capture was stopped before what was due could be taken"


class CaptureRun:
    """
    Brings rows, gaps and the time that was listened from a stream to a writer.

    :param kind: type of the rows.
    :param stream: entered already.
    :param windows: of the capture.
    :param writer: open already.
    :param since: when the stream was entered; the windows that were over then are accounted for.
    """

    def __init__(
        self, *, kind: str, stream: PusherStream, windows: Windows, writer: CaptureWriter, since: datetime
    ) -> None:
        self._kind = kind
        self._stream = stream
        self._windows = windows
        self._writer = writer
        self._since = since
        self._window = windows.over(since)
        self._gaps: list[Gap] = []
        """Those that are not the stream's."""
        self._stated: dict[tuple[str, int], datetime] = {}
        """Up to when a gap has been stated, by where it stands."""
        self._due_at: datetime | None = None
        """What is to be taken next, or is being taken."""
        self._row_of: Callable[[StreamEvent], dict[str, Any]] | None = None
        """Writes an event, where every one is taken."""
        self._skipped = 0
        self._counted = (0, 0, 0)

    async def run(self, listen: Callable[[], Awaitable[None]]) -> None:
        """
        Go on until the end of the capture and until everything is written.

        :param listen: takes what comes, and ends by itself soon after the capture's end.
        :raises QuoineError: if the stream or the store cannot go on; what was captured until then is written.
        """
        tasks = [asyncio.ensure_future(work) for work in (listen(), self._close_windows(), self._writer.run())]
        listening, closing, writing = tasks
        try:
            first, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in first:
                task.result()
            await listening
            await closing
            await self._writer.finish(writing)
        except BaseException:
            await self._stop(tasks, writing)
            raise
        finally:
            for task in tasks:
                task.cancel()

    async def by_time(self, sampler: Sampler, schedule: Schedule) -> None:
        """Take what is due."""
        await self._open_eyes(sampler.pull_first(), f"there was no whole {sampler.subject.what} yet")
        number, last = schedule.next_after(self._gaps[0].until), schedule.next_after(self._windows.ends_at) - 1
        while number <= last:
            due_at = self._due_at = schedule.due_at(number)
            fresh = await sampler.pull_at(due_at)
            snapshot = await sampler.parse(due_at=due_at, fresh=fresh)
            if snapshot is not None:
                self._add(due_at, snapshot.as_dict())
            elif sampler.problem:
                self._writer.add_gap(Gap(due_at, due_at, UNREADABLE))
            else:
                self._skipped += 1
            # What fell due meanwhile is over: what would be taken for it now is not what was then.
            missed = min(schedule.next_after(datetime.now(UTC)) - 1, last)
            if missed > number:
                self._writer.add_gap(Gap(schedule.due_at(number + 1), schedule.due_at(missed), HELD_UP))
            number = max(number, missed) + 1

    async def every(self, row_of: Callable[[StreamEvent], dict[str, Any]]) -> None:
        """Take whatever comes."""
        self._row_of = row_of
        await self._open_eyes(self._confirmed(), "the channels were not subscribed yet")
        ends_at = self._windows.ends_at
        await self._take(row_of, until=ends_at, seconds=self._seconds_until(ends_at) + GRACE)

    async def _take(self, row_of: Callable[[StreamEvent], dict[str, Any]], *, until: datetime, seconds: float) -> None:
        """Take for some seconds what has come until a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    event = await anext(self._stream)
                    if event.received_at <= until:
                        self._add(event.received_at, row_of(event))

    async def _confirmed(self) -> None:
        while not self._stream.confirmed:
            await self._stream.news()

    async def _open_eyes(self, ready: Awaitable[None], reason: str) -> None:
        """Wait until there is something to see, to the end of the capture at most; until then there is a gap."""
        self._gaps.append(Gap(self._since, self._windows.ends_at, reason))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds_until(self._windows.ends_at)):
                await ready
            self._gaps[0] = self._gaps[0]._replace(until=datetime.now(UTC))

    def _add(self, at: datetime, row: dict[str, Any]) -> None:
        self._writer.add_row(Row(at, line_of({"type": self._kind, **row})))

    async def _close_windows(self) -> None:
        for window in range(self._window, self._windows.count):
            until = self._windows.span(window).until
            await asyncio.sleep(self._seconds_until(until) + GRACE)
            self._state_gaps(until)
            self._writer.close(window, self._stretch(until))
            self._window = window + 1

    def _state_gaps(self, until: datetime) -> None:
        """
        State what of the gaps was not stated yet.

        A gap can become known long after it began: a connection that died in silence is missed only when a ping is
        not answered. So windows that are written already may get their piece of it.
        """
        known = [("own", number, gap) for number, gap in enumerate(self._gaps)]
        known += [
            ("stream", number, Gap(gap.since, gap.until or until, gap.reason))
            for number, gap in enumerate(self._stream.gaps)
        ]
        for of, number, gap in known:
            since = max(self._since, gap.since, self._stated.get((of, number), gap.since))
            end = min(gap.until, until)
            if since < end:
                self._stated[of, number] = end
                self._writer.add_gap(Gap(since, end, gap.reason))

    def _stretch(self, until: datetime) -> Stretch:
        since = max(self._since, self._windows.span(self._windows.number_of(until)).since)
        before = self._counted
        self._counted = self._stream.reconnects, self._stream.dropped, self._skipped
        return Stretch(since, until, *(now - then for now, then in zip(self._counted, before, strict=True)))

    async def _stop(self, tasks: Collection[asyncio.Future[None]], writing: asyncio.Future[None]) -> None:
        """Write what there is, unless it is the store that refuses."""
        refused = writing.done() and not writing.cancelled() and writing.exception() is not None
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if refused or self._window >= self._windows.count:
            return
        now = min(datetime.now(UTC), self._windows.span(self._window).until)
        self._state_gaps(now)
        if self._row_of is not None:
            with suppress(QuoineStreamError):
                await self._take(self._row_of, until=now, seconds=STRAGGLERS)
        if self._due_at is not None and self._due_at <= now:
            self._writer.add_gap(Gap(self._due_at, now, STOPPED))
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                await self._writer.flush(self._window, self._stretch(now))

    @staticmethod
    def _seconds_until(moment: datetime) -> float:
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
