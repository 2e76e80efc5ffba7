"""Deferred waits on the market streams."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.exchange.choices import checked_choice
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.market.channels import executions_channel
from airflow_provider_quoine.exchange.market.order_book import OrderBook
from airflow_provider_quoine.exchange.market.pairs import Pair
from airflow_provider_quoine.exchange.market.sampling import (
    OnDoubt,
    Sampler,
    execution_row,
)
from airflow_provider_quoine.exchange.market.schedule import Schedule, moment, seconds
from airflow_provider_quoine.exchange.market.subject import Subject
from airflow_provider_quoine.exchange.market.ticker import Ticker
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.triggers.base import OutcomeTrigger
from airflow_provider_quoine.triggers.events import Outcome, Status

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.market.subject import Snapshot
    from airflow_provider_quoine.exchange.stream.pusher import PusherStream

MOST_EXECUTIONS = 1000
"""Executions that one event carries at most: it goes into Airflow's database."""


class StreamTrigger(OutcomeTrigger):
    """
    Base of this module's triggers.

    :param quoine_conn_id: connection that names the stream.
    :param pair: currency pair code, such as ``btcjpy``.
    :param timeout: seconds to listen for the first.
    :param interval: seconds between two events; None, with ``count`` and ``duration``, sends the first that there is.
    :param count: number of events.
    :param duration: seconds in which events are sent. Of the three give two, or the interval alone for no end.
    :param began_at: ISO 8601 with an offset: events are due every interval from then on; by default when the trigger
        is made.
    """

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
        super().__init__()
        self.quoine_conn_id = quoine_conn_id
        self.pair = pair
        self.timeout = timeout
        self.times: dict[str, Any] = {"interval": interval, "count": count, "duration": duration}
        self.began_at = began_at or datetime.now(UTC).isoformat()

    def stored_arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        # A Pair is no plain JSON; anything else that is no text is refused by plan.
        pair = str(self.pair) if isinstance(self.pair, Pair) else self.pair
        given = {"quoine_conn_id": self.quoine_conn_id, "pair": pair, "timeout": self.timeout}
        return {**given, **self.times, "began_at": self.began_at}

    @abstractmethod
    def plan(self) -> object:
        """
        Check the arguments, and return them as their types.

        :raises QuoineInputError: saying what is wrong.
        """

    def _timeout(self) -> timedelta:
        return seconds("timeout", self.timeout)

    def _schedule(self, *, by_time: bool) -> Schedule | None:
        began_at = moment(self.began_at)
        return Schedule.of(began_at=began_at, **self.times) if by_time else None

    async def _stream(self, channels: Any, *, queue_size: int | None = None) -> PusherStream:
        from airflow_provider_quoine.exchange.stream.pusher import PusherStream

        endpoint = await QuoineHook(self.quoine_conn_id).aget_stream_endpoint()
        return PusherStream(endpoint=endpoint, channels=channels, queue_size=queue_size)


@dataclass(frozen=True, kw_only=True)
class SnapshotPlan:
    """The arguments of a :class:`SnapshotTrigger`, checked; without a schedule it takes the first that there is."""

    subject: Subject
    schedule: Schedule | None
    on_doubt: OnDoubt
    timeout: timedelta


class SnapshotTrigger(StreamTrigger):
    """
    Base of the triggers that take snapshots: the first that there is, or one every ``interval``, in quiet markets too.

    :param on_doubt: how a snapshot is treated that is stale or crossed: ``mark`` (it says so itself), ``skip``,
        ``fail``.
    """

    def __init__(self, *, on_doubt: str = "mark", **given: Any) -> None:
        super().__init__(**given)
        self.on_doubt = on_doubt

    def stored_arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().stored_arguments(), "on_doubt": self.on_doubt}

    @abstractmethod
    def _subject(self, pair: Pair) -> Subject:
        """Return what to take snapshots of."""

    def plan(self) -> SnapshotPlan:
        """Check the arguments, and return them as their types."""
        by_time = any(given is not None for given in self.times.values())
        return SnapshotPlan(
            schedule=self._schedule(by_time=by_time),
            subject=self._subject(Pair(self.pair)),
            on_doubt=checked_choice(OnDoubt, "on_doubt", self.on_doubt),
            timeout=self._timeout(),
        )

    async def outcomes(self) -> AsyncIterator[Outcome]:
        plan = self.plan()
        if plan.schedule is None:
            # The stream is closed before the event: a triggerer that waits for one event asks for no second.
            yield await self._once(plan)
            return
        async with await self._stream(plan.subject.channels) as stream:
            sampler = Sampler(plan.subject, stream, on_doubt=plan.on_doubt)
            try:
                async with asyncio.timeout(plan.timeout.total_seconds()):
                    await sampler.pull_first()
            except TimeoutError:
                yield Outcome(status=Status.TIMEOUT, message=sampler.silence(plan.timeout))
                return
            taken = 0
            for due_at in plan.schedule.moments(datetime.now(UTC)):
                snapshot = await sampler.take(due_at)
                if snapshot is not None:
                    taken += 1
                    yield _with_snapshot(snapshot, sampler)
            if not taken:
                message = f"No {plan.subject} was due, readable and without doubt until the end. {sampler.problem}"
                yield Outcome(status=Status.TIMEOUT, message=message.strip())

    async def _once(self, plan: SnapshotPlan) -> Outcome:
        # The time-out stands inside: closing the stream must not turn a snapshot into a time-out.
        async with await self._stream(plan.subject.channels) as stream:
            sampler = Sampler(plan.subject, stream, on_doubt=plan.on_doubt)
            try:
                async with asyncio.timeout(plan.timeout.total_seconds()):
                    await sampler.pull_first()
                    return _with_snapshot(await self._first(sampler), sampler)
            except TimeoutError:
                return Outcome(status=Status.TIMEOUT, message=sampler.silence(plan.timeout))

    async def _first(self, sampler: Sampler) -> Snapshot:
        while True:
            snapshot = await sampler.parse(due_at=datetime.now(UTC))
            if snapshot is not None:
                return snapshot
            # The next event replaces what could not be read or was in doubt.
            await sampler.stream.news()
            await sampler.pull_first()


def _with_snapshot(snapshot: Snapshot, sampler: Sampler) -> Outcome:
    stream = sampler.stream
    counts = {"reconnects": stream.reconnects, "gap_seconds": round(stream.gap_seconds, 6)}
    unreadable = stream.unreadable + sampler.unreadable
    return Outcome(status=Status.SUCCESS, result={**snapshot.as_dict(), **counts, "unreadable": unreadable})


class QuoineOrderBookTrigger(SnapshotTrigger):
    """
    Take the order book of a pair: the first whole one, or one every ``interval``, in quiet markets too.

    Its events are :class:`~airflow_provider_quoine.triggers.events.Outcome`: ``success`` with a snapshot as result,
    and ``timeout`` or ``error``, which end it; nothing in them is secret. A snapshot says how old each side was when
    it was due, whether the book was stale or crossed, and since the trigger started: reconnects and seconds of gaps of
    the stream, and messages and snapshots that could not be read, which is logged once. Snapshots that fall due before
    the first whole book are left out.

    Its other arguments are those of :class:`StreamTrigger` and :class:`SnapshotTrigger`.

    :param depth: rows to keep of each side; None keeps all.
    """

    def __init__(self, *, depth: int | None = None, **given: Any) -> None:
        super().__init__(**given)
        self.depth = depth

    def stored_arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().stored_arguments(), "depth": self.depth}

    def _subject(self, pair: Pair) -> Subject:
        return OrderBook(pair=pair, depth=self.depth)


class QuoineProductTrigger(SnapshotTrigger):
    """
    Take the ticker of a product: the first that comes, or one every ``interval``, in quiet markets too.

    Its events and arguments are those of :class:`QuoineOrderBookTrigger`, without ``depth``.

    :param product_id: the exchange's number; None where it is on record (facts, Streams).
    """

    def __init__(self, *, product_id: int | None = None, **given: Any) -> None:
        super().__init__(**given)
        self.product_id = product_id

    def stored_arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().stored_arguments(), "product_id": self.product_id}

    def _subject(self, pair: Pair) -> Subject:
        return Ticker(pair=pair, product_id=self.product_id)


@dataclass(frozen=True, kw_only=True)
class ExecutionsPlan:
    """
    The arguments of a :class:`QuoineExecutionsTrigger`, checked.

    :param count: of executions for one event, without a schedule.
    """

    channel: str
    schedule: Schedule | None
    count: int
    timeout: timedelta


class QuoineExecutionsTrigger(StreamTrigger):
    """
    Collect the executions of a pair, every one: the next ``count``, or those of each ``interval``.

    Without an interval its one event is ``success`` with the result ``{"executions": [...], "dropped": number,
    "unreadable": number of messages, "reconnects": number, "gap_seconds": seconds}``, or ``timeout`` if fewer came.
    With one there is such an event every interval, in quiet markets too, with what came since the last, and ``due_at``.
    An event carries at most :data:`MOST_EXECUTIONS`: beyond that the oldest are dropped, and counted.

    Its arguments are those of :class:`StreamTrigger`. Without an interval, ``count`` is the number of executions.
    """

    def plan(self) -> ExecutionsPlan:
        """Check the arguments, and return them as their types."""
        by_time = self.times["interval"] is not None or self.times["duration"] is not None
        schedule, count = self._schedule(by_time=by_time), 0
        if schedule is None:
            count = self.times["count"]
            if type(count) is not int or not 1 <= count <= MOST_EXECUTIONS:
                raise QuoineInputError(
                    f"count is {count!r}: give a whole number from 1 to {MOST_EXECUTIONS}; a capture takes more."
                )
        channel = executions_channel(Pair(self.pair))
        return ExecutionsPlan(channel=channel, schedule=schedule, count=count, timeout=self._timeout())

    async def outcomes(self) -> AsyncIterator[Outcome]:
        plan = self.plan()
        if plan.schedule is None:
            # As in SnapshotTrigger.
            yield await self._next(plan)
            return
        async with await self._stream([plan.channel], queue_size=MOST_EXECUTIONS) as stream:
            dropped = 0
            for due_at in plan.schedule.moments(datetime.now(UTC)):
                came, found = await self._until(stream, due_at)
                dropped += came - len(found)
                yield _with_executions(found, stream, dropped=dropped, due_at=due_at.isoformat())

    async def _next(self, plan: ExecutionsPlan) -> Outcome:
        found: list[dict[str, Any]] = []
        async with await self._stream([plan.channel], queue_size=MOST_EXECUTIONS) as stream:
            try:
                async with asyncio.timeout(plan.timeout.total_seconds()):
                    while len(found) < plan.count:
                        found.append(execution_row(await anext(stream)))
                return _with_executions(found, stream, dropped=0)
            except TimeoutError:
                waited = f"{plan.timeout.total_seconds():g} s"
                few = f"{len(found)} of {plan.count} executions came within {waited} on {plan.channel}."
                outage = f"There is no connection: {stream.problem}. " if stream.problem else ""
                advice = "A quiet pair needs a longer time-out; a misspelt pair gives no error either, only silence."
                return Outcome(status=Status.TIMEOUT, message=f"{few} {outage}{advice}")

    async def _until(self, stream: PusherStream, due_at: datetime) -> tuple[int, list[dict[str, Any]]]:
        came, found = 0, deque[dict[str, Any]](maxlen=MOST_EXECUTIONS)
        try:
            async with asyncio.timeout((due_at - datetime.now(UTC)).total_seconds()):
                while True:
                    found.append(execution_row(await anext(stream)))
                    came += 1
        except TimeoutError:
            return came, list(found)


def _with_executions(found: list[dict[str, Any]], stream: PusherStream, *, dropped: int, **more: str) -> Outcome:
    counts = {"dropped": stream.dropped + dropped, "unreadable": stream.unreadable, "reconnects": stream.reconnects}
    gaps = round(stream.gap_seconds, 6)
    return Outcome(status=Status.SUCCESS, result={"executions": found, **counts, "gap_seconds": gaps, **more})
