"""One poller per event loop and connection: it visits all ids that deferred tasks wait for, in fair turns."""

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

from airflow_provider_quoine.exchange.budget.book import Priority
from airflow_provider_quoine.exchange.errors import QuoineInputError, QuoineUnauthorizedError
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.waiting.fair_queue import Turn, Turns
from airflow_provider_quoine.waiting.idle_clients import IdleClients, OpenClient
from airflow_provider_quoine.waiting.status_queries import NO_ANSWER, Look, Progress, Watch, look_safely, say

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.budget.request_budget import RequestBudget

THREADS = 4
"""
Requests of one poller that may be under way at once.

Enough for one request per second at answers of 4 s; each more would let the event loop wait another 5 ms for the
interpreter's lock (decided).
"""

SURE_AFTER = 3
"""
Visits in a row that end with one of :data:`DOUBTFUL` until it is final (decided).

A rotated key is taken up by then.
"""

SURE_SECONDS = 300.0
"""
Seconds that these visits span at least (decided): Airflow calls a connection or Variable missing also while it cannot
look it up, and where few wait three visits are over in a moment.
"""

DOUBTFUL = (QuoineUnauthorizedError, QuoineInputError, AirflowNotFoundException)
"""What a fresh look at connection and Variables may mend."""

SAY_EVERY = 600.0
"""Seconds after which the log of a waiting task says again where it stands, though nothing has changed."""

COUNT_EVERY = 10.0
"""Seconds between two reports of the metric ``quoine.poller.waiters``."""

Result = TypeVar("Result")


@dataclass(slots=True, eq=False, kw_only=True)
class _Waiter:
    """
    A deferred task.

    :param watch: what it waits for.
    :param end: gets the last look, or the error that ended the wait.
    :param context: that of its trigger; Airflow finds the log of the task by it.
    :param visit: under way now.
    :param asking: whether that has taken its slot; then it runs to its end, whatever becomes of the waiter.
    :param doubts: visits in a row that ended doubtfully.
    :param doubted_at: when the first of these began.
    :param said: what its log said last, and when.
    """

    watch: Watch
    end: asyncio.Future[Look]
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    visit: asyncio.Task[None] | None = None
    asking: bool = False
    doubts: int = 0
    doubted_at: float = 0.0
    said: tuple[str, float] = ("", 0.0)


_pollers: dict[tuple[asyncio.AbstractEventLoop, str], _Poller] = {}


async def wait_for_end(watch: Watch, *, poke_interval: float) -> Look:
    """
    Wait until a watch is done or failed, together with all others of this event loop and connection.

    :param watch: what to look at.
    :param poke_interval: seconds between two looks, at least.
    :return: the look that showed the end.
    :raises QuoineError: if the exchange refuses for good, or if the input is wrong.
    :raises AirflowNotFoundException: if there is no such connection.
    """
    key = (asyncio.get_running_loop(), watch.quoine_conn_id)
    poller = _pollers.get(key)
    if poller is None:
        poller = _pollers[key] = _Poller(watch.quoine_conn_id, forget=partial(_pollers.pop, key))
    return await poller.wait(watch, poke_interval)


class _Poller:
    """
    Lives from its first waiter to its last.

    A visit looks up what it needs, waits for a slot of the request budget, and asks the exchange one question; only
    waiting for the slot happens on the event loop, the rest on a few threads. The look-ups are part of the visit
    because Airflow's API server answers them: so it gets no more of them than the budget has slots.

    :param conn_id: connection.
    :param forget: called when it takes no more waiters.
    """

    def __init__(self, conn_id: str, *, forget: Callable[[], object]) -> None:
        self._conn_id = conn_id
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._turns: Turns[_Waiter] = Turns()
        self._stir = asyncio.Event()
        self._free = asyncio.Semaphore(THREADS)
        self._visits: set[asyncio.Task[None]] = set()
        self._clients = IdleClients()
        self._name = f"quoine-poller-{conn_id}"
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=self._name)
        self._budget: RequestBudget | None = None
        self._counted_at = -COUNT_EVERY
        # Not in the context of the trigger that happens to be the first.
        self._run_task = self._loop.create_task(self._run(), name=self._name, context=contextvars.Context())

    async def wait(self, watch: Watch, poke_interval: float) -> Look:
        """Wait for an end; leaving is free of cost, whether it ended or was cancelled."""
        waiter = _Waiter(watch=watch, end=self._loop.create_future())
        turn = self._turns.join(waiter, interval=poke_interval, now=self._loop.time())
        self._stir.set()
        try:
            return await waiter.end
        finally:
            self._turns.leave(turn)
            if waiter.visit is not None and not waiter.asking:
                waiter.visit.cancel()
            if not self._turns:
                self._forget()
                self._run_task.cancel()

    async def _run(self) -> None:
        try:
            while True:
                await self._free.acquire()
                turn = await self._next_turn()
                turn.item.visit = visit = asyncio.create_task(self._visit(turn))
                self._visits.add(visit)
                visit.add_done_callback(self._visited)
        finally:
            self._count()
            try:
                # What has its slot is under way on a thread, and ends by its time-outs.
                while self._visits:
                    await asyncio.wait(self._visits)
            finally:
                self._clients.close()
                self._threads.shutdown(wait=False)

    def _visited(self, visit: asyncio.Task[None]) -> None:
        self._visits.discard(visit)
        self._free.release()

    async def _next_turn(self) -> Turn[_Waiter]:
        while (turn := self._turns.take(self._loop.time())) is None:
            self._stir.clear()
            try:
                async with asyncio.timeout_at(self._turns.next_at()):
                    await self._stir.wait()
            except TimeoutError:
                pass
        return turn

    async def _visit(self, turn: Turn[_Waiter]) -> None:
        waiter, waiter.asking = turn.item, False
        try:
            visited_at, look = await self._look(waiter)
            if turn.gone:
                return
            if look.progress == Progress.WAITING:
                await self._tell(turn, look)
                self._turns.rest(turn, visited_at=visited_at)
                self._stir.set()
            else:
                waiter.end.set_result(look)
        except Exception as error:  # noqa: BLE001 - it goes to whoever waits, and to no other
            if not waiter.end.done():
                waiter.end.set_exception(error)

    async def _look(self, waiter: _Waiter) -> tuple[float, Look]:
        visited_at, key = self._loop.time(), waiter.watch.credentials_variable
        try:
            ask = await self._on_thread(waiter, waiter.watch.question)
            one = self._clients.take(key, now=visited_at)
            if one is None:
                one = await self._on_thread(waiter, partial(self._open, key))
            try:
                await one.client.take_slot_async()
                self._budget = one.client.budget
                waiter.asking, visited_at = True, self._loop.time()
                self._count()
                look = await self._on_thread(waiter, partial(look_safely, partial(ask, one.client)))
            finally:
                self._clients.put(one)
        except DOUBTFUL as error:
            self._clients.forget(key)
            waiter.doubted_at = waiter.doubted_at if waiter.doubts else visited_at
            waiter.doubts += 1
            if waiter.doubts >= SURE_AFTER and visited_at - waiter.doubted_at >= SURE_SECONDS:
                raise
            problem = (
                f"{error} Connection and Variables are read anew for the next look; it is final when it stays so for "
                f"{SURE_AFTER} looks and {_span(SURE_SECONDS)}."
            )
            return visited_at, Look(progress=Progress.WAITING, state=NO_ANSWER, problem=problem)
        waiter.doubts = 0
        return visited_at, look

    def _open(self, key: str | None) -> OpenClient:
        hook = QuoineHook(self._conn_id, credentials_variable=key)
        return OpenClient(key=key, opened_at=self._loop.time(), client=hook.get_conn(priority=Priority.POLLING))

    def _count(self) -> None:
        if len(self._turns) and self._loop.time() - self._counted_at < COUNT_EVERY:
            return
        self._counted_at = self._loop.time()
        tags = {"conn_id": self._conn_id}
        self._threads.submit(stats.gauge, "quoine.poller.waiters", len(self._turns), tags=tags)

    async def _tell(self, turn: Turn[_Waiter], look: Look) -> None:
        waiter, now = turn.item, self._loop.time()
        said, said_at = waiter.said
        if look.state == said and now - said_at < SAY_EVERY:
            return
        waiter.said = look.state, now
        # It will be as late again as it was, as long as as many wait.
        outlook = (
            f"Next look in about {_span(turn.interval + turn.late)}; waits in the poller of connection "
            f"{self._conn_id}: {len(self._turns)}."
        )
        if self._budget is not None:
            rules = self._budget.rules
            outlook += f" Processes that share {rules.limit} requests in {rules.window:g} s: {self._budget.sharers()}."
        # Not from the event loop: Airflow's log is a pipe, which blocks when it is full.
        await self._on_thread(waiter, partial(say, waiter.watch, look, outlook))

    async def _on_thread(self, waiter: _Waiter, work: Callable[[], Result]) -> Result:
        return await self._loop.run_in_executor(self._threads, waiter.context.run, work)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
