"""Deferred waits on the market streams."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_quoine.captures.schedule import Schedule, moment
from airflow_provider_quoine.exchange.errors import QuoineError, QuoineInputError
from airflow_provider_quoine.exchange.market.channels import executions_channel
from airflow_provider_quoine.exchange.market.pairs import Pair
from airflow_provider_quoine.exchange.market.sampling import (
    OnDoubt,
    Sampler,
    Subject,
    execution_row,
    order_book,
    product,
)
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.triggers.loop import spare_the_loop

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.stream.pusher import PusherStream

MOST_EXECUTIONS = 1000
"""Executions that one event carries at most: it goes into Airflow's database."""


class StreamTrigger(BaseTrigger):
    """
    What the triggers of this module share: their arguments, and that each failure is an event in words.

    :param quoine_conn_id: connection that names the stream.
    :param pair: currency pair code, such as ``btcjpy``.
    :param timeout: seconds to listen for something to tell.
    :param interval: seconds between two snapshots; None takes the first that there is.
    :param count: number of snapshots.
    :param duration: seconds in which they are taken. Of the three give two, or the interval alone for no end.
    :param began_at: ISO 8601: snapshots are due every interval from then on; by default when the trigger is made.
    """

    arguments: ClassVar[tuple[str, ...]] = (
        "quoine_conn_id",
        "pair",
        "timeout",
        "interval",
        "count",
        "duration",
        "began_at",
    )

    def __init__(
        self,
        *,
        quoine_conn_id: str,
        pair: str,
        timeout: float,
        interval: float | None = None,
        count: int | None = None,
        duration: float | None = None,
        began_at: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.quoine_conn_id = quoine_conn_id
        self.pair = pair
        self.timeout = timeout
        self.interval = interval
        self.count = count
        self.duration = duration
        self.began_at = began_at or datetime.now(UTC).isoformat()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments; Airflow rebuilds the trigger from them in a triggerer."""
        return f"{__name__}.{type(self).__qualname__}", {name: getattr(self, name) for name in self.arguments}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the events. Only name look-up, imports and certificates take long: they run on other threads."""
        spare_the_loop()
        try:
            self.check()
            async for payload in self._payloads():
                yield TriggerEvent(payload)  # type: ignore[no-untyped-call]
        except (QuoineError, AirflowException) as error:
            yield TriggerEvent({"status": "error", "message": str(error)})  # type: ignore[no-untyped-call]

    @abstractmethod
    def check(self) -> None:
        """
        Check the arguments.

        :raises QuoineInputError: saying what is wrong.
        """

    @abstractmethod
    def _payloads(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what the events say."""

    def _schedule(self, *, by_time: bool) -> Schedule | None:
        began_at = moment(self.began_at)
        if not by_time:
            return None
        return Schedule.of(began_at=began_at, interval=self.interval, count=self.count, duration=self.duration)

    async def _stream(self, channels: Any, *, queue_size: int | None = None) -> PusherStream:
        from airflow_provider_quoine.exchange.stream.pusher import PusherStream

        endpoint = await QuoineHook(self.quoine_conn_id).aget_stream_endpoint()
        return PusherStream(endpoint=endpoint, channels=channels, queue_size=queue_size)


class SnapshotTrigger(StreamTrigger):
    """
    Takes snapshots: the first that there is, or by time.

    :param on_doubt: what to do with a snapshot that is stale or crossed: ``mark`` (it says so itself), ``skip``,
        ``fail``.
    """

    arguments = (*StreamTrigger.arguments, "on_doubt")

    def __init__(self, *, on_doubt: str = OnDoubt.MARK, **given: Any) -> None:
        super().__init__(**given)
        self.on_doubt = on_doubt

    @abstractmethod
    def _subject(self) -> Subject:
        """Return what to take snapshots of."""

    def check(self) -> None:
        """Check the arguments."""
        self._plan()

    def _plan(self) -> tuple[Schedule | None, Subject, OnDoubt]:
        by_time = self.interval is not None or self.count is not None or self.duration is not None
        return self._schedule(by_time=by_time), self._subject(), OnDoubt.of(self.on_doubt)

    async def _payloads(self) -> AsyncIterator[dict[str, Any]]:
        schedule, subject, on_doubt = self._plan()
        if schedule is None:
            # The stream is left before the event: whoever waits for one only does not come back.
            yield await self._once(subject, on_doubt)
            return
        async with await self._stream(subject.channels) as stream:
            sampler = Sampler(subject, stream, on_doubt=on_doubt)
            try:
                async with asyncio.timeout(self.timeout):
                    await sampler.pull_first()
            except TimeoutError:
                yield {"status": "timeout", "message": sampler.silence(self.timeout)}
                return
            taken = 0
            async for snapshot in self._by_time(sampler, schedule):
                taken += 1
                yield self._success(snapshot, stream)
            if not taken:
                yield {"status": "timeout", "message": f"No {subject.what} was due and without doubt until the end."}

    async def _once(self, subject: Subject, on_doubt: OnDoubt) -> dict[str, Any]:
        # The time-out stands inside: closing the stream must not turn a snapshot into a time-out.
        async with await self._stream(subject.channels) as stream:
            sampler = Sampler(subject, stream, on_doubt=on_doubt)
            try:
                async with asyncio.timeout(self.timeout):
                    await sampler.pull_first()
                    return self._success(await self._first(sampler), stream)
            except TimeoutError:
                return {"status": "timeout", "message": sampler.silence(self.timeout)}

    async def _first(self, sampler: Sampler) -> Any:
        while True:
            snapshot = await sampler.parse(due_at=datetime.now(UTC), fresh=True)
            if snapshot is not None:
                return snapshot
            # The next event replaces what could not be read or was in doubt.
            await sampler.stream.news()
            await sampler.pull_first()

    async def _by_time(self, sampler: Sampler, schedule: Schedule) -> AsyncIterator[Any]:
        number = schedule.next_after(datetime.now(UTC))
        while schedule.count is None or number <= schedule.count:
            due_at = schedule.due_at(number)
            fresh = await sampler.pull_at(due_at)
            snapshot = await sampler.parse(due_at=due_at, fresh=fresh)
            if snapshot is not None:
                yield snapshot
            # What fell due meanwhile is over: what would be taken for it now is not what was then.
            number = max(number + 1, schedule.next_after(datetime.now(UTC)))

    def _success(self, snapshot: Any, stream: PusherStream) -> dict[str, Any]:
        told = {"reconnects": stream.reconnects, "gap_seconds": round(stream.gap_seconds, 6)}
        return {"status": "success", "snapshot": {**snapshot.as_dict(), **told}}


class QuoineOrderBookTrigger(SnapshotTrigger):
    """
    Take the order book of a pair: the first whole one, or one every ``interval``, in quiet markets too.

    Its events are ``{"status": "success", "snapshot": {...}}``, and ``{"status": "timeout" | "error", "message":
    words}`` ends it; nothing in them is secret. A snapshot says how old each side was when it was due, whether the
    book was stale or crossed, and of the stream since the trigger started: reconnects and seconds of gaps. What falls
    due before the first whole book has come is left out.

    :param quoine_conn_id: connection that names the stream.
    :param pair: currency pair code, such as ``btcjpy``.
    :param timeout: seconds to listen for the first whole book.
    :param depth: rows to keep of each side; None keeps all.
    :param interval: seconds between two snapshots; None takes the first that there is.
    :param count: number of snapshots.
    :param duration: seconds in which they are taken. Of the three give two, or the interval alone for no end.
    :param began_at: ISO 8601: snapshots are due every interval from then on; by default when the trigger is made.
    :param on_doubt: what to do with a snapshot that is stale or crossed: ``mark`` (it says so itself), ``skip``,
        ``fail``.
    """

    arguments = (*SnapshotTrigger.arguments, "depth")

    def __init__(self, *, depth: int | None = None, **given: Any) -> None:
        super().__init__(**given)
        self.depth = depth

    def _subject(self) -> Subject:
        return order_book(pair=self.pair, depth=self.depth)


class QuoineProductTrigger(SnapshotTrigger):
    """
    Take the ticker of a product: the first that comes, or one every ``interval``, in quiet markets too.

    Its events and arguments are those of :class:`QuoineOrderBookTrigger`, without ``depth``.

    :param product_id: the exchange's number; None where it is on record (facts, Streams).
    """

    arguments = (*SnapshotTrigger.arguments, "product_id")

    def __init__(self, *, product_id: int | None = None, **given: Any) -> None:
        super().__init__(**given)
        self.product_id = product_id

    def _subject(self) -> Subject:
        return product(pair=self.pair, product_id=self.product_id)


class QuoineExecutionsTrigger(StreamTrigger):
    """
    Collect the executions of a pair, every one: the next ``count``, or those of each ``interval``.

    Without an interval its one event is ``{"status": "success", "executions": [...], "dropped": number, "reconnects":
    number, "gap_seconds": seconds}``, or ``timeout`` if fewer came. With one there is such an event every interval, in
    quiet markets too, with what came since the last; then ``count`` is the number of events. An event carries at most
    :data:`MOST_EXECUTIONS`: beyond that the oldest are dropped, and counted.
    """

    def check(self) -> None:
        """Check the arguments."""
        self._plan()

    def _plan(self) -> tuple[Schedule | None, str]:
        schedule = self._schedule(by_time=self.interval is not None or self.duration is not None)
        if schedule is None and (type(self.count) is not int or not 1 <= self.count <= MOST_EXECUTIONS):
            raise QuoineInputError(
                f"count is {self.count!r}: give a whole number from 1 to {MOST_EXECUTIONS}; a capture takes more."
            )
        return schedule, executions_channel(Pair(self.pair))

    async def _payloads(self) -> AsyncIterator[dict[str, Any]]:
        schedule, channel = self._plan()
        if schedule is None:
            # As above.
            yield await self._next(channel)
            return
        async with await self._stream([channel], queue_size=MOST_EXECUTIONS) as stream:
            dropped, number = 0, schedule.next_after(datetime.now(UTC))
            while schedule.count is None or number <= schedule.count:
                due_at = schedule.due_at(number)
                came, found = await self._until(stream, due_at)
                dropped += came - len(found)
                yield self._success(found, stream, dropped) | {"due_at": due_at.isoformat()}
                number = max(number + 1, schedule.next_after(datetime.now(UTC)))

    async def _next(self, channel: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        async with await self._stream([channel], queue_size=MOST_EXECUTIONS) as stream:
            try:
                async with asyncio.timeout(self.timeout):
                    while len(found) < (self.count or 1):
                        found.append(execution_row(await anext(stream)))
                return self._success(found, stream, 0)
            except TimeoutError:
                few = f"{len(found)} of {self.count} executions came within {self.timeout:g} s on {channel}."
                outage = f"There is no connection: {stream.problem}. " if stream.problem else ""
                advice = "A quiet pair needs a longer time-out; a misspelt pair gives no error either, only silence."
                return {"status": "timeout", "message": f"{few} {outage}{advice}"}

    async def _until(self, stream: PusherStream, due_at: datetime) -> tuple[int, list[dict[str, Any]]]:
        came, found = 0, deque[dict[str, Any]](maxlen=MOST_EXECUTIONS)
        try:
            async with asyncio.timeout((due_at - datetime.now(UTC)).total_seconds()):
                while True:
                    found.append(execution_row(await anext(stream)))
                    came += 1
        except TimeoutError:
            return came, list(found)

    def _success(self, found: list[dict[str, Any]], stream: PusherStream, dropped: int) -> dict[str, Any]:
        return {
            "status": "success",
            "executions": found,
            "dropped": stream.dropped + dropped,
            "reconnects": stream.reconnects,
            "gap_seconds": round(stream.gap_seconds, 6),
        }
