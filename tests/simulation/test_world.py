"""The simulated world itself: virtual time, other threads, and the same history for the same seed."""

from __future__ import annotations

import asyncio
import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.simulation.world import BEGIN, World


def test_a_day_passes_in_no_time_and_the_wall_clock_can_be_set() -> None:
    world = World(1)

    async def main() -> tuple[float, float]:
        async with asyncio.timeout(86_401):
            await asyncio.sleep(86_400)
        world.set_clock(-10)
        return world.clock.monotonic(), world.clock.wall()

    began = time.monotonic()
    assert world.run(main()) == (86_400, BEGIN + 86_390)
    assert time.monotonic() - began < 10


def test_threads_go_on_while_the_event_loop_is_held() -> None:
    world = World(1)
    done: list[tuple[str, float]] = []

    async def main() -> None:
        for seconds in (3, 1, 8):
            world.later(seconds, lambda: done.append(("thread", world.now)))
        world.hold(5)
        done.append(("loop", world.now))
        await asyncio.sleep(0)
        assert await asyncio.to_thread(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        await asyncio.sleep(5)

    world.run(main())
    assert done == [("thread", 1), ("thread", 3), ("loop", 5), ("thread", 8)]


def test_what_runs_on_threads_goes_on_by_turns_where_it_pauses_and_that_of_one_executor_in_order() -> None:
    world = World(1)
    done: list[tuple[str, float]] = []

    def work(name: str, *seconds: float) -> None:
        for each in seconds:
            world.pause(each)
            done.append((name, world.now))

    async def main() -> None:
        run, executor = world.loop.run_in_executor, ThreadPoolExecutor(1)
        world.pause(9)
        await asyncio.gather(run(None, work, "a", 1, 3), run(executor, work, "b", 2, 1), run(executor, work, "c", 0.5))

    world.run(main())
    assert done == [("a", 1), ("b", 2), ("b", 3), ("c", 3.5), ("a", 4)]


def test_what_waits_for_ever_or_turns_in_a_circle_is_found() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    async def turn() -> None:
        for _ in itertools.count():
            await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="never happen"):
        World(1).run(wait())
    with pytest.raises(RuntimeError, match="circle"):
        World(1).run(turn())
