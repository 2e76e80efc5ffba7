"""One life of a capture: from its beginning, or from where a stopped one ended, until it ends or is stopped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.exchange.clock import CLOCK
from airflow_provider_quoine.exchange.errors import QuoineStreamError
from airflow_provider_quoine.exchange.market.sampling import OnDoubt, execution_row
from airflow_provider_quoine.formats.kinds import StreamKind
from airflow_provider_quoine.formats.lines import identity, line_of
from airflow_provider_quoine.formats.pieces import Gap, Row, Span, Stretch

if TYPE_CHECKING:
    from airflow_provider_quoine.captures.spec import CaptureSpec
    from airflow_provider_quoine.captures.writer import CaptureWriter
    from airflow_provider_quoine.exchange.clock import Clock
    from airflow_provider_quoine.exchange.market.sampling import Sampler
    from airflow_provider_quoine.exchange.market.schedule import Schedule
    from airflow_provider_quoine.exchange.stream.pusher import PusherStream, StreamEvent, StreamGap

CLOSE_DELAY = timedelta(seconds=0.25)
"""From a part's end until it is written: what is due or came at its end is on its way by then."""

LOOK_INTERVAL = 0.25
"""Seconds between two looks at the clocks."""

HELD_UP_AFTER = 1.0
"""
Seconds without a look at the clocks after which the process was held up, and did not listen.

Not more than :data:`~airflow_provider_quoine.formats.pieces.TOLERANCE`: what a frozen process takes so much later than
another copy would else be another event.
"""

BACKLOG = timedelta(seconds=1)
"""After a process was frozen: what comes in this time may have waited in between, and is not taken."""

AWAKE_AFTER, AWAKE_BEFORE = timedelta(seconds=LOOK_INTERVAL + 0.1), timedelta(seconds=0.1)
"""A frozen process may have taken events so long after it looked at the clocks, and before it does so again."""

LEAST_JUMP = 0.5
"""Seconds by which the wall clock is set to another time; below it is noise."""

LAST_WRITE_TIMEOUT = 6.0
"""Seconds that writing the unfinished part may take when the capture is stopped: Airflow kills a triggerer after 10."""

DRAIN_TIMEOUT = 0.05
"""Seconds for taking the events that have come and wait when the capture is stopped."""

TICK = timedelta(microseconds=1)

HELD_UP = "the triggerer was held up"
UNREADABLE = "what was there could not be read"
STOPPED = "the capture was stopped before what was due could be taken"
NOT_PROVEN = "the capture was stopped before it was known whether anything was missed"
SET_FORWARD = "the wall clock was set forward by {:.1f} s, or the machine slept; nothing came in this time"
SET_BACK = "the wall clock was set back by {:.1f} s; what came in the second pass stands right after this time"


class CaptureRun:
    """
    Brings rows, gaps and the time that was listened from a stream to a writer.

    Its time is the wall clock's, except that it never goes back: after the wall clock was set back it stands still
    until that has caught up, and events get moments that are a microsecond apart.

    :param clock: a simulation's.
    """

    def __init__(self, *, spec: CaptureSpec, stream: PusherStream, writer: CaptureWriter, clock: Clock = CLOCK) -> None:
        self._spec = spec
        self._stream = stream
        self._periods = periods = spec.periods
        self._writer = writer
        self._clock = clock
        self._since = self._now = self._last_at = max(clock.now(), periods.began_at)
        """When this life began, its time, and the moment of its last event."""
        writer.closed_until = self._since
        wall, monotonic = self._looked_at = clock.now(), clock.monotonic()
        self._marks = [(self._since, monotonic + max(0.0, (self._since - wall).total_seconds()))]
        """Moments and the monotonic clock's time then; a new one when they part. Before the first it stands still."""
        self._frozen: Span | None = None
        """The time in which the process was held up last, if no event was taken in it."""
        self._gaps: list[Gap] = []
        """Those that are not the stream's."""
        self._opening_gap: Gap | None = None
        """The first of them, until there is something to see."""
        self._stated: dict[tuple[str, int], datetime] = {}
        """Up to when a gap has been stated, by where it stands."""
        self._pushed: dict[float, datetime] = {}
        """The last row of each chunk since the last part was closed, by the monotonic time that all its events have."""
        self._seq = (self._since - periods.began_at) // TICK
        self._due_at: datetime | None = None
        """The moment of the snapshot that is taken next, or now."""
        self._skipped = 0
        self._counted = (0, 0, 0)

    async def run(self, listen: Callable[[], Awaitable[None]]) -> None:
        """
        Go on until the end of the capture and until everything is written.

        :param listen: takes what comes.
        :raises QuoineError: if the stream or the store cannot go on; what was captured until then is written.
        """
        tasks = [asyncio.ensure_future(work) for work in (listen(), self._keep_time(), self._writer.run())]
        listening, timing, writing = tasks
        try:
            first, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in first:
                task.result()
            await timing
            if self._due_at is not None:
                await listening
            listening.cancel()
            await self._writer.finish(writing)
        except BaseException:
            await self._stop(tasks, writing)
            raise
        finally:
            for task in tasks:
                task.cancel()

    async def take_snapshots(self, sampler: Sampler, schedule: Schedule) -> None:
        """Take what is due."""

        def note_missed(first: datetime, last: datetime) -> None:
            # The ends by themselves too: where the gaps of two lives meet in one moment, each life's stretch holds the
            # end of the other's gap, and only the moment itself is left to state.
            for since, until in ((first, last), (first, first), (last, last)):
                self._writer.add_gap(Gap(since, until, HELD_UP))

        await self._wait_for(sampler.pull_first(), f"there was no whole {sampler.subject} yet")
        for due_at in schedule.moments(self._gaps[0].until, on_missed=note_missed, clock=self._clock):
            self._due_at = due_at
            snapshot = await sampler.take(due_at)
            if snapshot is not None:
                number = (due_at - schedule.began_at) // schedule.interval
                row = {"type": self._spec.stream, "seq": number, **snapshot.as_dict()}
                self._writer.add_row(Row(due_at, line_of(row)))
            elif sampler.problem:
                self._writer.add_gap(Gap(due_at, due_at, UNREADABLE))
            else:
                self._skipped += 1

    async def take_events(self) -> None:
        """Take every event."""
        await self._wait_for(self._confirmed(), "the channels were not subscribed yet")
        while True:
            self._take(await anext(self._stream))

    def _take(self, event: StreamEvent) -> None:
        if self._look() <= self._periods.began_at:
            return
        if self._frozen is not None:
            since, until = self._frozen.since + AWAKE_AFTER, self._frozen.until - AWAKE_BEFORE
            if since < event.received_at <= until:
                # Only the event loop was held up until then: events were taken. After that it may have been frozen.
                rest = Span(event.received_at, self._frozen.until)
                self._frozen = rest if (rest.until - rest.since).total_seconds() > HELD_UP_AFTER else None
            elif until < event.received_at <= self._frozen.until + BACKLOG:
                return
        at = self._last_at = max(event.received_at, self._last_at + TICK)
        if at > event.received_at:
            self._pushed[event.monotonic] = at
        if at > self._periods.ends_at:
            return
        self._seq += 1
        row: dict[str, Any] = {"channel": event.channel, "event": event.event, "data": event.data}
        if self._spec.stream is StreamKind.EXECUTION:
            row = execution_row(event)
        pair = {"pair": self._spec.pair} if self._spec.pair else {}
        placed = {"received_at": at.isoformat(), "connection": f"{self._writer.life}-{event.connection}"}
        line = line_of({"type": self._spec.stream, "seq": self._seq, **pair, **placed, **row, **placed})
        self._writer.add_row(Row(at, line, self._writer.life, identity(row)))

    async def _confirmed(self) -> None:
        while not self._stream.confirmed:
            await self._stream.news()

    async def _wait_for(self, ready: Awaitable[None], reason: str) -> None:
        """Wait until there is something to see; until then there is a gap."""
        self._opening_gap = Gap(self._since, self._periods.ends_at, reason)
        self._gaps.insert(0, self._opening_gap)
        await ready
        self._gaps[0] = self._gaps[0]._replace(until=self._look())

    async def _keep_time(self) -> None:
        """Look at the clocks, and close each part when it is over."""
        while (until := self._writer.open_until()) is not None:
            # Until the connection has shown that it lived at the part's end, nobody knows whether that was listened to;
            # and what waits would be lost with this process.
            if self._look() >= until + CLOSE_DELAY and self._proven_until() >= until:
                self._close(until)
            else:
                await asyncio.sleep(LOOK_INTERVAL)

    def _proven_until(self) -> datetime:
        """Return up to when it is known whether anything was missed, and all that came is taken."""
        if self._gaps[:1] == [self._opening_gap]:
            return self._now
        heard, waiting = self._stream.heard, self._stream.waiting_since
        known = self._moment(heard.monotonic) if heard and self._stream.confirmed else self._now
        return min(known, self._moment(waiting.monotonic)) if waiting else known

    def _moment(self, monotonic: float) -> datetime:
        """Return this life's time at a moment of the monotonic clock."""
        latest = self._now
        for at, mark in reversed(self._marks):
            if mark <= monotonic:
                return min(latest, at + timedelta(seconds=monotonic - mark))
            latest = at
        return latest

    def _look(self) -> datetime:
        """Look at the clocks, note whether time was lost or the wall clock set, and return this life's time."""
        (wall_before, before), before_at = self._looked_at, self._now
        self._looked_at = wall, monotonic = self._clock.now(), self._clock.monotonic()
        passed = monotonic - before
        jump = (wall - wall_before).total_seconds() - passed
        went_on = timedelta(seconds=passed) if jump < -LEAST_JUMP else timedelta(0)
        now = self._now = max(wall, before_at, wall_before + went_on)
        if passed > HELD_UP_AFTER:
            self._frozen = Span(before_at, now)
            self._gaps.append(Gap(before_at, now + BACKLOG, HELD_UP))
        if abs(jump) > LEAST_JUMP:
            words = (SET_BACK if jump < 0 else SET_FORWARD).format(abs(jump))
            # It may have been set at any moment since the last look.
            lowest = min(before_at, before_at + timedelta(seconds=jump))
            self._gaps.append(Gap(lowest, now, words))
            # Where time stands still, this is the moment when it goes on.
            self._marks.append((now, monotonic + (now - wall).total_seconds()))
        return now

    def _state_gaps(self, until: datetime) -> None:
        """
        State what of the gaps was not stated yet, and mark the snapshots in them that are not written.

        A gap can become known long after it began: a connection that died in silence is missed only when a ping is
        not answered. So parts that are written already may get their piece of it.
        """
        lost = [Gap(self._moment(gap.began), self._end_of(gap), gap.reason) for gap in self._stream.gaps]
        self._pushed = {moment: at for moment, at in self._pushed.items() if at > until}
        known = {
            (of, number): gap for of, gaps in (("own", self._gaps), ("stream", lost)) for number, gap in enumerate(gaps)
        }
        for (of, number), gap in known.items():
            since = max(self._since, gap.since, self._stated.get((of, number), gap.since))
            end = min(gap.until, until)
            if since < end:
                self._stated[of, number] = end
                self._writer.add_gap(Gap(since, end, gap.reason))
                if of == "stream" and self._spec.schedule is not None:
                    self._writer.change_rows(Gap(since, end, ""), self._stale)

    def _end_of(self, gap: StreamGap) -> datetime:
        """Return when a stream's gap ends, in the time of the rows."""
        ended = gap.ended or self._looked_at[1]
        # What was dropped in the middle of a chunk has the chunk's time; the rows before it are pushed behind that.
        return max(self._moment(ended), self._pushed.get(ended, self._since))

    def _stale(self, row: Row) -> Row | None:
        read = json.loads(row.line)
        if read["stale"] or self._spec.on_doubt is not OnDoubt.SKIP:
            return row._replace(line=line_of({**read, "stale": True}))
        self._skipped += 1
        return None

    def _close(self, until: datetime) -> None:
        self._state_gaps(until)
        self._writer.close(self._stretches(until), until=until)

    def _stretches(self, until: datetime) -> list[Stretch]:
        """Return the time since the last part was closed, divided where the clocks parted."""
        counted = self._stream.reconnects, self._stream.dropped, self._skipped
        reconnects, dropped, skipped = (now - then for now, then in zip(counted, self._counted, strict=True))
        self._counted = counted
        begin = self._writer.closed_until
        ends = sorted({begin, until, *(at for at, _ in self._marks if begin < at < until)})
        stretches = []
        for since, end in pairwise(ends):
            at, monotonic = max(mark for mark in self._marks if mark[0] <= since)
            monotonic += (since - at).total_seconds()
            stretches.append(Stretch(since, end, reconnects, dropped, skipped, self._writer.life, monotonic))
            reconnects = dropped = skipped = 0
        return stretches

    async def _stop(self, tasks: Collection[asyncio.Future[None]], writing: asyncio.Future[None]) -> None:
        """Write what there is, unless it is the store that refuses."""
        refused = writing.done() and not writing.cancelled() and writing.exception() is not None
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if refused:
            return
        now = min(self._look(), self._periods.ends_at)
        if self._spec.schedule is None:
            with suppress(QuoineStreamError, TimeoutError):
                async with asyncio.timeout(DRAIN_TIMEOUT):
                    while True:
                        self._take(await anext(self._stream))
        self._gaps.append(Gap(self._proven_until(), now, NOT_PROVEN))
        if self._due_at is not None and self._due_at <= now:
            for until in (self._due_at, now):
                self._writer.add_gap(Gap(self._due_at, until, STOPPED))
        while self._writer.closed_until < now:
            self._close(min(now, self._writer.open_until() or now))
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITE_TIMEOUT):
                await self._writer.flush()
