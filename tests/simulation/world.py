"""
A world in which everything happens in an order that its seed decides, and no time passes: for simulations.

A :class:`World` has an event loop with virtual time, a wall clock that can be set, a seeded random, and other threads'
work as a list of moments. When no task is ready, the time jumps to the next moment.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

from greenlet import getcurrent, greenlet

from airflow_provider_quoine.exchange.clock import Clock

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")

BEGIN = 1_790_000_000.0
"""Unix seconds of the wall clock when a world begins."""


class World:
    """
    Time, chance, and everything that is not on the event loop.

    :param seed: of all chance in it; the same seed gives the same history.
    :param most_rounds: of the event loop, after which it is taken for one that turns in a circle.
    """

    def __init__(self, seed: int, *, most_rounds: int = 200_000) -> None:
        self.random = random.Random(seed)
        self._seed = seed
        self.loop = _VirtualLoop(self)
        self.clock = Clock(monotonic=self.loop.time, wall=self._wall)
        self._now = 0.0
        self._ahead = BEGIN
        self._most_rounds = most_rounds
        self._rounds = 0
        self._threads: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()

    def run(self, main: Coroutine[Any, Any, _Result]) -> _Result:
        """
        Run a coroutine to its end, then close the event loop.

        :raises AssertionError: if tasks are left over.
        :raises RuntimeError: if the coroutine waits for something that will never happen, or turns in a circle.
        """
        # The code in it may ask the random of all.
        random.seed(self._seed)
        try:
            result = self.loop.run_until_complete(main)
            assert not asyncio.all_tasks(self.loop), f"tasks are left: {asyncio.all_tasks(self.loop)}"
            return result
        finally:
            # What is left over after a failure ends as at the end of asyncio.run.
            self._rounds = 0
            for task in (left := asyncio.all_tasks(self.loop)):
                task.cancel()
            if left:
                self.loop.run_until_complete(asyncio.wait(left))
            self.loop.close()

    def set_clock(self, seconds: float) -> None:
        """Set the wall clock forward by some seconds, or back."""
        self._ahead += seconds

    def hold(self, seconds: float) -> None:
        """Block the event loop, as code that computes for long does; other threads go on meanwhile."""
        self.pass_time(self._now + seconds)

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        """Have another thread, or the network, do something after some seconds, whatever the event loop does then."""
        self.at(self._now + seconds, call)

    def at(self, moment: float, call: Callable[[], object]) -> None:
        """Have it done at a moment; what is to be done at one moment is done in the order in which it was asked for."""
        heapq.heappush(self._threads, (moment, next(self._numbers), call))

    def pause(self, seconds: float) -> None:
        """Have what runs on another thread take so long here, while all others go on; elsewhere no time passes."""
        if (thread := getcurrent()).parent is not None:
            self.later(seconds, thread.switch)
            thread.parent.switch()

    def pass_time(self, until: float) -> None:
        """Have the other threads do what they do until a moment, and make it that moment."""
        while self._threads and self._threads[0][0] <= until:
            moment, _, call = heapq.heappop(self._threads)
            self._now = max(self._now, moment)
            call()
        self._now = max(self._now, until)

    def next_round(self, timeout: float | None) -> None:
        """
        Let time pass between two rounds of the event loop, until a thread has done something at most.

        :param timeout: seconds until the event loop's next timer; None if it has none.
        """
        self._rounds += 1
        if self._rounds > self._most_rounds:
            raise RuntimeError(f"After {self._most_rounds} rounds there is no end: something turns in a circle.")
        if timeout is None and not self._threads:
            raise RuntimeError("Everybody waits for something that will never happen.")
        moments = [self._threads[0][0]] if self._threads else []
        moments += [] if timeout is None else [self._now + max(timeout, 0.0)]
        self.pass_time(min(moments))

    def _wall(self) -> float:
        return self._ahead + self._now

    @property
    def now(self) -> float:
        """Seconds since the world began: its monotonic clock."""
        return self._now


class _VirtualLoop(asyncio.BaseEventLoop):
    """Takes the world's time for its own. It has no sockets and no threads."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._selector = self
        # Else a timer at 0.1 + 0.2 would not be due at 0.3.
        self._clock_resolution = 1e-9
        self._queues: defaultdict[Executor, deque[Callable[[], None]]] = defaultdict(deque)
        """What each executor does now, and after that: it has one thread."""

    def time(self) -> float:
        return self._world.now

    def select(self, timeout: float | None) -> list[Any]:
        """Stand in for the selector, which a loop asks once in each round."""
        self._world.next_round(timeout)
        return []

    def _process_events(self, events: list[Any]) -> None:
        """No socket is watched."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*_Arguments], _Result],
        *args: *_Arguments,
    ) -> asyncio.Future[_Result]:
        """Run a function on another thread: at one moment, unless it pauses (:meth:`World.pause`)."""
        future: asyncio.Future[_Result] = self.create_future()
        queue = deque[Callable[[], None]]() if executor is None else self._queues[executor]

        def work() -> None:
            try:
                result = None if future.cancelled() else func(*args)
            except Exception as error:  # noqa: BLE001 - whoever waits gets it
                self.call_soon_threadsafe(_settle, future, None, error)
            else:
                self.call_soon_threadsafe(_settle, future, result, None)
            queue.popleft()
            if queue:
                self._world.later(0.0, queue[0])

        queue.append(greenlet(work).switch)
        if len(queue) == 1:
            self._world.later(0.0, queue[0])
        return future


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
