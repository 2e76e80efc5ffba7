"""One run of a capture: from its beginning, or from where a stopped one ended, to its end or until it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.captures.lines import line_of
from airflow_provider_quoine.captures.parts import Gap, Row, Stretch
from airflow_provider_quoine.captures.spec import StreamKind
from airflow_provider_quoine.exchange.errors import QuoineStreamError
from airflow_provider_quoine.exchange.market.sampling import execution_row

if TYPE_CHECKING:
    from airflow_provider_quoine.captures.schedule import Schedule
    from airflow_provider_quoine.captures.spec import CaptureSpec
    from airflow_provider_quoine.captures.writer import CaptureWriter
    from airflow_provider_quoine.exchange.market.sampling import Sampler
    from airflow_provider_quoine.exchange.stream.pusher import PusherStream, StreamEvent

PERIOD_CLOSE_DELAY = 0.25
"""Seconds after a period's end until it is written: what is due or came at its end is on its way by then."""

LAST_WRITE_TIMEOUT = 6.0
"""Seconds that writing the unfinished part may take when the capture is stopped: Airflow kills a triggerer after 10."""

DRAIN_TIMEOUT = 0.05
"""Seconds for taking the events that have come and wait when the capture is stopped."""

HELD_UP = "the triggerer was held up"
UNREADABLE = "what was there could not be read"
STOPPED = "the capture was stopped before what was due could be taken"


class CaptureRun:
    """
    Brings rows, gaps and the time that was listened from a stream to a writer.

    :param since: when the stream was entered; the periods that were over then are accounted for.
    """

    def __init__(self, *, spec: CaptureSpec, stream: PusherStream, writer: CaptureWriter, since: datetime) -> None:
        self._spec = spec
        self._stream = stream
        self._periods = periods = spec.periods
        self._writer = writer
        self._since = since
        self._period = periods.over(since)
        self._gaps: list[Gap] = []
        """Those that are not the stream's."""
        self._stated: dict[tuple[str, int], datetime] = {}
        """Up to when a gap has been stated, by where it stands."""
        self._due_at: datetime | None = None
        """The moment of the snapshot that is taken next, or now."""
        self._skipped = 0
        self._counted = (0, 0, 0)

    async def run(self, listen: Callable[[], Awaitable[None]]) -> None:
        """
        Go on until the end of the capture and until everything is written.

        :param listen: takes what comes, and ends by itself soon after the capture's end.
        :raises QuoineError: if the stream or the store cannot go on; what was captured until then is written.
        """
        tasks = [asyncio.ensure_future(work) for work in (listen(), self._close_periods(), self._writer.run())]
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

    async def take_snapshots(self, sampler: Sampler, schedule: Schedule) -> None:
        """Take what is due."""
        await self._wait_for(sampler.pull_first(), f"there was no whole {sampler.subject} yet")
        for due_at in schedule.moments(self._gaps[0].until, on_missed=self._note_missed):
            self._due_at = due_at
            snapshot = await sampler.take(due_at)
            if snapshot is not None:
                self._add(due_at, snapshot.as_dict())
            elif sampler.problem:
                self._writer.add_gap(Gap(due_at, due_at, UNREADABLE))
            else:
                self._skipped += 1

    def _note_missed(self, first: datetime, last: datetime) -> None:
        self._writer.add_gap(Gap(first, last, HELD_UP))

    async def take_events(self) -> None:
        """Take every event."""
        await self._wait_for(self._confirmed(), "the channels were not subscribed yet")
        ends_at = self._periods.ends_at
        await self._take_until(ends_at, seconds=self._seconds_until(ends_at) + PERIOD_CLOSE_DELAY)

    async def _take_until(self, until: datetime, *, seconds: float) -> None:
        """Take for some seconds the events that have come until a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    event = await anext(self._stream)
                    if event.received_at <= until:
                        self._add(event.received_at, _row_of(self._spec, event))

    async def _confirmed(self) -> None:
        while not self._stream.confirmed:
            await self._stream.news()

    async def _wait_for(self, ready: Awaitable[None], reason: str) -> None:
        """Wait until there is something to see, to the end of the capture at most; until then there is a gap."""
        self._gaps.append(Gap(self._since, self._periods.ends_at, reason))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds_until(self._periods.ends_at)):
                await ready
            self._gaps[0] = self._gaps[0]._replace(until=datetime.now(UTC))

    def _add(self, at: datetime, row: dict[str, Any]) -> None:
        self._writer.add_row(Row(at, line_of({"type": self._spec.stream, **row})))

    async def _close_periods(self) -> None:
        for period in range(self._period, self._periods.count):
            until = self._periods.span(period).until
            await asyncio.sleep(self._seconds_until(until) + PERIOD_CLOSE_DELAY)
            self._state_gaps(until)
            self._writer.close(period, self._stretch(until))
            self._period = period + 1

    def _state_gaps(self, until: datetime) -> None:
        """
        State what of the gaps was not stated yet.

        A gap can become known long after it began: a connection that died in silence is missed only when a ping is
        not answered. So periods that are written already may get their piece of it.
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
        since = max(self._since, self._periods.span(self._periods.number_of(until)).since)
        before = self._counted
        self._counted = self._stream.reconnects, self._stream.dropped, self._skipped
        return Stretch(since, until, *(now - then for now, then in zip(self._counted, before, strict=True)))

    async def _stop(self, tasks: Collection[asyncio.Future[None]], writing: asyncio.Future[None]) -> None:
        """Write what there is, unless it is the store that refuses."""
        refused = writing.done() and not writing.cancelled() and writing.exception() is not None
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if refused or self._period >= self._periods.count:
            return
        now = min(datetime.now(UTC), self._periods.span(self._period).until)
        self._state_gaps(now)
        if self._spec.schedule is None:
            with suppress(QuoineStreamError):
                await self._take_until(now, seconds=DRAIN_TIMEOUT)
        if self._due_at is not None and self._due_at <= now:
            self._writer.add_gap(Gap(self._due_at, now, STOPPED))
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITE_TIMEOUT):
                await self._writer.flush(self._period, self._stretch(now))

    @staticmethod
    def _seconds_until(moment: datetime) -> float:
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _row_of(spec: CaptureSpec, event: StreamEvent) -> dict[str, Any]:
    """Return an event as JSON-able data."""
    if spec.stream is StreamKind.EXECUTION:
        return {"pair": spec.pair, **execution_row(event)}
    times = {"received_at": event.received_at.isoformat(), "connection": event.connection}
    return {**times, "channel": event.channel, "event": event.event, "data": event.data}
