"""One poller per event loop and connection: it asks for all ids that deferred tasks wait for, and is fair to each."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.observability import stats

from airflow_provider_quoine.exchange.budget.rules import Priority
from airflow_provider_quoine.exchange.errors import QuoineInputError, QuoineUnauthorizedError
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.waiting.fair_queue import FairQueue, Place
from airflow_provider_quoine.waiting.idle_clients import IdleClients, OpenClient
from airflow_provider_quoine.waiting.status_queries import (
    NO_ANSWER,
    Observation,
    Progress,
    StatusQuery,
    log_observation,
    tolerate_transient,
)

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.budget.request_budget import RequestBudget

THREADS = 4
"""
Concurrent requests of one poller.

Four are enough for one request per second if an answer takes 4 s. Each further thread may hold the interpreter's lock
for another 5 ms while the event loop waits for it (decisions, Waiting).
"""

RECOVERABLE = (QuoineUnauthorizedError, QuoineInputError, AirflowNotFoundException)
"""Errors that may pass when connection and Variables are read again."""

FINAL_AFTER_VISITS = 3
"""
Consecutive visits with a :data:`RECOVERABLE` error until it is final (decisions, Waiting).

A rotated key has taken effect by then.
"""

FINAL_AFTER_SECONDS = 300.0
"""
Seconds that these visits span at least (decisions, Waiting).

Airflow reports a connection or Variable as missing also while it cannot look it up, and where few tasks wait, three
visits take only a moment.
"""

LOG_EVERY = 600.0
"""Seconds after which a waiting task's log repeats the state, though it has not changed."""

REPORT_EVERY = 10.0
"""Seconds between two reports of the metric ``quoine.poller.waiters``."""

Result = TypeVar("Result")


@dataclass(slots=True, eq=False, kw_only=True)
class _Waiter:
    """
    A deferred task.

    :param end: gets the last observation, or the error that ended the wait.
    :param context: the trigger's context, by which Airflow finds the task's log.
    :param asking: whether that visit has taken its slot; it then runs to its end, even if the waiter leaves.
    :param failures: consecutive visits with a recoverable error.
    :param failing_since: begin of the first of these.
    :param logged: the state that was logged last, and the time.
    """

    query: StatusQuery
    end: asyncio.Future[Observation]
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    visit: asyncio.Task[None] | None = None
    asking: bool = False
    failures: int = 0
    failing_since: float = 0.0
    logged: tuple[str, float] = ("", 0.0)


_pollers: dict[tuple[asyncio.AbstractEventLoop, str], _Poller] = {}


async def wait_for_end(query: StatusQuery, *, poke_interval: float) -> Observation:
    """
    Ask until the state is a final one. All waits of this event loop and connection share a poller.

    :param poke_interval: shortest time between two queries, in seconds.
    :raises QuoineError: if the exchange refuses for good, or if the input is wrong.
    :raises AirflowNotFoundException: if there is no such connection.
    """
    key = (asyncio.get_running_loop(), query.quoine_conn_id)
    poller = _pollers.get(key)
    if poller is None:
        poller = _pollers[key] = _Poller(query.quoine_conn_id, forget=partial(_pollers.pop, key))
    return await poller.wait(query, poke_interval)


class _Poller:
    """
    Runs from its first waiter to its last.

    A visit serves one waiter once: it reads the Variables that the query needs, waits for a slot of the request
    budget, and sends one request. It waits for the slot on the event loop; all else runs on a few threads. Variables
    are read within the visit because Airflow's API server answers for them, and in this way gets no more requests
    than the budget has slots.

    :param forget: called when the last waiter has left.
    """

    def __init__(self, conn_id: str, *, forget: Callable[[], object]) -> None:
        self._conn_id = conn_id
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._queue: FairQueue[_Waiter] = FairQueue()
        self._queue_changed = asyncio.Event()
        self._free_threads = asyncio.Semaphore(THREADS)
        self._visits: set[asyncio.Task[None]] = set()
        self._clients = IdleClients()
        self._name = f"quoine-poller-{conn_id}"
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=self._name)
        self._budget: RequestBudget | None = None
        self._reported_at = -REPORT_EVERY
        # In a context of its own, not in that of the first trigger.
        self._run_task = self._loop.create_task(self._run(), name=self._name, context=contextvars.Context())

    async def wait(self, query: StatusQuery, poke_interval: float) -> Observation:
        """Wait for a final state. A waiter that has left, at its end or by a cancellation, costs nothing more."""
        waiter = _Waiter(query=query, end=self._loop.create_future())
        place = self._queue.join(waiter, interval=poke_interval, now=self._loop.time())
        self._queue_changed.set()
        try:
            return await waiter.end
        finally:
            self._queue.leave(place)
            if waiter.visit is not None and not waiter.asking:
                waiter.visit.cancel()
            if not self._queue:
                self._forget()
                self._run_task.cancel()

    async def _run(self) -> None:
        try:
            while True:
                await self._free_threads.acquire()
                place = await self._next_place()
                place.item.visit = visit = asyncio.create_task(self._visit(place))
                self._visits.add(visit)
                visit.add_done_callback(self._visited)
        finally:
            self._report()
            try:
                # A visit that has its slot runs on a thread, and ends by its time-outs.
                while self._visits:
                    await asyncio.wait(self._visits)
            finally:
                self._clients.close()
                self._threads.shutdown(wait=False)

    def _visited(self, visit: asyncio.Task[None]) -> None:
        self._visits.discard(visit)
        self._free_threads.release()

    async def _next_place(self) -> Place[_Waiter]:
        while (place := self._queue.take(self._loop.time())) is None:
            self._queue_changed.clear()
            try:
                async with asyncio.timeout_at(self._queue.next_at()):
                    await self._queue_changed.wait()
            except TimeoutError:
                pass
        return place

    async def _visit(self, place: Place[_Waiter]) -> None:
        waiter, waiter.asking = place.item, False
        try:
            visited_at, seen = await self._observe(waiter)
            if place.gone:
                return
            if seen.progress == Progress.WAITING:
                await self._log(place, seen)
                self._queue.rest(place, visited_at=visited_at)
                self._queue_changed.set()
            else:
                waiter.end.set_result(seen)
        except Exception as error:  # noqa: BLE001 - the waiter gets it; the others go on
            if not waiter.end.done():
                waiter.end.set_exception(error)

    async def _observe(self, waiter: _Waiter) -> tuple[float, Observation]:
        visited_at, key = self._loop.time(), waiter.query.credentials_variable
        try:
            send = await self._on_thread(waiter, waiter.query.prepare)
            one = self._clients.take(key, now=visited_at)
            if one is None:
                one = await self._on_thread(waiter, partial(self._open, key))
            try:
                slot = await one.client.take_slot_async()
                self._budget = one.client.budget
                waiter.asking, visited_at = True, self._loop.time()
                self._report()
                seen = await self._on_thread(waiter, partial(tolerate_transient, partial(send, one.client, slot)))
            finally:
                self._clients.put(one)
        except RECOVERABLE as error:
            self._clients.forget(key)
            waiter.failing_since = waiter.failing_since if waiter.failures else visited_at
            waiter.failures += 1
            long_enough = visited_at - waiter.failing_since >= FINAL_AFTER_SECONDS
            if waiter.failures >= FINAL_AFTER_VISITS and long_enough:
                raise
            problem = (
                f"{error} Connection and Variables are read again for the next query. The error is final after "
                f"{FINAL_AFTER_VISITS} queries and {_duration(FINAL_AFTER_SECONDS)}."
            )
            return visited_at, Observation(progress=Progress.WAITING, state=NO_ANSWER, problem=problem)
        waiter.failures = 0
        return visited_at, seen

    def _open(self, key: str | None) -> OpenClient:
        hook = QuoineHook(self._conn_id, credentials_variable=key)
        return OpenClient(key=key, opened_at=self._loop.time(), client=hook.get_conn(priority=Priority.POLLING))

    def _report(self) -> None:
        if len(self._queue) and self._loop.time() - self._reported_at < REPORT_EVERY:
            return
        self._reported_at = self._loop.time()
        tags = {"conn_id": self._conn_id}
        self._threads.submit(stats.gauge, "quoine.poller.waiters", len(self._queue), tags=tags)

    async def _log(self, place: Place[_Waiter], seen: Observation) -> None:
        waiter, now = place.item, self._loop.time()
        state, logged_at = waiter.logged
        if seen.state == state and now - logged_at < LOG_EVERY:
            return
        waiter.logged = seen.state, now
        # The next visit will be as late as this one, unless waiters come or leave.
        outlook = (
            f"Next query in about {_duration(place.interval + place.late)}; waits in the poller of connection "
            f"{self._conn_id}: {len(self._queue)}."
        )
        if self._budget is not None:
            rules = self._budget.rules
            processes = self._budget.process_count()
            outlook += f" Processes that share {rules.limit} requests in {rules.window:g} s: {processes}."
        # On a thread, because Airflow's log is a pipe, which blocks when it is full.
        await self._on_thread(waiter, partial(log_observation, waiter.query, seen, outlook))

    async def _on_thread(self, waiter: _Waiter, work: Callable[[], Result]) -> Result:
        return await self._loop.run_in_executor(self._threads, waiter.context.run, work)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
