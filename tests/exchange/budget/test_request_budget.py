"""One budget and many processes: killed ones, lost books, and a Redis that goes and comes back."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quoine.exchange.budget.file_store import HALF_BYTES
from airflow_provider_quoine.exchange.budget.redis_store import RedisStore
from airflow_provider_quoine.exchange.budget.request_budget import RequestBudget
from airflow_provider_quoine.exchange.budget.rules import Priority, Rules
from airflow_provider_quoine.exchange.budget.slot import Slot
from airflow_provider_quoine.exchange.errors import QuoineBudgetError, QuoineInputError
from airflow_provider_quoine.exchange.observer import Observer
from tests.exchange.budget.processes import Taker, WatchedStore, busiest, open_budget, open_store, until
from tests.support.heartbeat import heartbeat
from tools.redis_server import RedisServer

RULES = Rules(limit=100, window=2.0)
NORMAL, POLLING = Priority.NORMAL, Priority.POLLING


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis that runs."""
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["file", pytest.param("redis", marks=pytest.mark.cluster)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Either place for the book."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        return server.url
    return str(tmp_path / "budget" / "book")


def run(takers: list[Taker], seconds: float, *, meanwhile: Callable[[], None] | None = None) -> list[float]:
    """
    Let processes take slots for so long after each has had one; give when all slots were taken.

    They keep the limit by the book's own time: what lies between a slot and its request is left to the margin.
    """
    with ExitStack() as stack:
        for taker in takers:
            stack.enter_context(taker)
        until(lambda: all(taker.taken for taker in takers))
        began = time.monotonic()
        if meanwhile is not None:
            meanwhile()
        until(lambda: time.monotonic() - began > seconds)
    rules = takers[0].rules
    assert busiest([slot for taker in takers for slot in taker.slots], rules.window) <= rules.limit
    return sorted(time_ for taker in takers for time_ in taker.taken)


@pytest.mark.alone
@pytest.mark.parametrize("priority", [NORMAL, POLLING])
def test_processes_keep_the_limit_use_it_and_share_it_fairly(where: str, priority: Priority) -> None:
    takers = [Taker(where, RULES, priority=priority) for _ in range(4)]
    taken = run(takers, 5.0)
    whole_windows = int((taken[-1] - taken[0]) / RULES.slot_lifetime)
    assert len(taken) >= 0.9 * whole_windows * RULES.limit
    # Of the time in which all of them ran.
    began = max(taker.taken[0] for taker in takers)
    counts = [sum(time_ >= began for time_ in taker.taken) for taker in takers]
    if priority == POLLING:
        assert max(counts) / min(counts) <= 1.5


@pytest.mark.alone
def test_a_killed_process_holds_nobody_up(where: str) -> None:
    takers = [Taker(where, RULES, priority=POLLING) for _ in range(4)]

    def kill() -> None:
        takers[0].process.kill()
        takers[1].process.kill()

    taken = run(takers, 5.0, meanwhile=kill)
    steady = [time_ for time_ in taken if time_ > taken[-1] - 2.0]
    assert len(steady) >= 0.9 * RULES.limit


def test_a_process_killed_at_any_moment_leaves_a_book_that_can_be_read(tmp_path: Path) -> None:
    where, rules = str(tmp_path / "book"), Rules(limit=20_000, window=3600.0)
    taken = 0
    for nth in range(10):
        with Taker(where, rules) as taker:
            until(lambda taker=taker, nth=nth: len(taker.taken) > 3 * nth)  # type: ignore[misc]
        taken += len(taker.taken)
    store = open_store(where, rules)
    # One may have been killed between the book and its line.
    assert 0 <= store.transact(lambda book, _: len(book.times)) - taken <= 10


@pytest.mark.long
def test_a_deleted_book_is_made_anew_from_what_is_remembered(where: str, request: pytest.FixtureRequest) -> None:
    takers = [Taker(where, RULES) for _ in range(3)]

    def delete() -> None:
        for _ in range(3):
            time.sleep(0.4)
            if where.startswith("redis"):
                from redis import Redis

                with Redis.from_url(where) as client:
                    client.flushall()
            else:
                until(Path(where).exists)
                Path(where).unlink()

    taken = run(takers, 8.0, meanwhile=delete)
    assert taken[-1] - taken[0] > 5.0


def test_a_broken_book_is_taken_for_a_window_that_was_used_evenly(tmp_path: Path) -> None:
    book = tmp_path / "book"
    book.write_bytes(b"not a book" * 1000)
    rules = Rules(limit=1000, window=100.0)
    budget = open_budget(str(book), rules)
    began = time.monotonic()
    for _ in range(5):
        budget.acquire(priority=NORMAL)
    assert 0.3 < time.monotonic() - began < 50.0


def test_half_a_write_loses_one_slot_at_most(tmp_path: Path) -> None:
    book, rules = tmp_path / "book", Rules(limit=100, window=3600.0)
    budget = open_budget(str(book), rules)
    for _ in range(4):
        budget.acquire(priority=NORMAL)
    with book.open("r+b") as file:
        # The fourth change stands in the first half.
        file.seek(60)
        file.write(b"\xff" * 40)
    assert os.stat(book).st_size > HALF_BYTES
    assert open_store(str(book), rules).transact(lambda book, _: len(book.times)) == 3


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "budget" in record.name]


@pytest.mark.long
def test_a_locked_book_leaves_the_fallback_and_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    book, rules = tmp_path / "book", Rules(limit=16_000, window=200.0, margin=0.0)
    budget = open_budget(str(book), rules)
    budget.acquire(priority=NORMAL)
    with book.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for _ in range(3):
            budget.acquire(priority=NORMAL)
        said = warnings(caplog)
    assert len(said) == 1
    assert "locked" in said[0]
    for _ in range(10):
        budget.acquire(priority=NORMAL)
    assert len(warnings(caplog)) == 2
    assert "is back" in warnings(caplog)[1]
    assert open_store(str(book), rules).transact(lambda book, _: len(book.times)) == 14


@pytest.mark.long
def test_a_place_for_no_book_leaves_the_fallback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    budget = open_budget(str(tmp_path / "file" / "book"), Rules(limit=160, window=2.0, margin=0.0))
    began = time.monotonic()
    for _ in range(4):
        budget.acquire(priority=NORMAL)
    # 2 s / (160 / (2 * 8)) = 0.2 s each.
    assert 0.6 <= time.monotonic() - began < 60.0
    assert len(warnings(caplog)) == 1


def test_many_short_tasks_without_a_book_do_not_each_have_a_slot_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for _ in range(3):
        budget = open_budget(str(tmp_path / "file" / "book"), Rules(limit=300, window=300.0))
        with pytest.raises(QuoineBudgetError):
            budget.acquire(priority=Priority.URGENT, patience=0.1)


@pytest.mark.cluster
def test_redis_gone_leaves_the_fallback_and_redis_back_is_taken_up(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    # Slots of the fallback are not in the book until the store is back, so the limit is counted over the processes.
    rules = Rules(limit=160, window=3.0, margin=0.1)
    takers = [Taker(redis.url, rules, priority=POLLING) for _ in range(3)]
    marks: list[float] = []

    def stop_and_start() -> None:
        time.sleep(3.0)
        redis.stop()
        marks.append(time.monotonic())
        until(lambda: all("cannot be used" in "".join(taker.said) for taker in takers))
        time.sleep(6.0)
        marks.append(time.monotonic())
        redis.start()
        until(lambda: all("is back" in "".join(taker.said) for taker in takers))
        marks.append(time.monotonic())

    taken = run(takers, 20.0, meanwhile=stop_and_start)
    assert busiest(taken, rules.window) <= rules.limit
    gone, back = [time_ for time_ in taken if marks[0] + 0.5 < time_ < marks[1]], [t for t in taken if t > marks[2]]
    assert 3 <= len(gone) <= rules.limit
    assert len(back) > len(gone)
    for taker in takers:
        assert len(taker.said) == 2, taker.said


@pytest.mark.cluster
def test_a_connection_that_redis_has_closed_is_made_anew_without_a_word(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    from redis import Redis

    budget = open_budget(redis.url, RULES)
    budget.acquire(priority=NORMAL)
    with Redis.from_url(redis.url) as client:
        assert client.client_kill_filter(_type="normal", skipme=True) == 1
    budget.acquire(priority=NORMAL)
    assert warnings(caplog) == []
    assert open_store(redis.url, RULES).transact(lambda book, _: len(book.times)) == 2


@pytest.mark.cluster
def test_the_clock_of_redis_is_known_however_late_its_answers_are_read(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(redis.url, RULES)
    began = time.time()
    store.transact(lambda book, _: None)
    assert isinstance(store, RedisStore)
    answer = store._replace

    def late(*given: Any) -> list[Any]:
        try:
            return answer(*given)
        finally:
            time.sleep(0.3)

    monkeypatch.setattr(store, "_replace", late)
    store.transact(lambda book, _: None)
    assert abs(store.clock() - time.time()) < 0.1 + (time.time() - began - 0.3)


def test_redis_that_was_never_there_is_no_end(caplog: pytest.LogCaptureFixture) -> None:
    budget = open_budget("redis://:hunter2@127.0.0.1:1/0", RULES)
    budget.acquire(priority=NORMAL)
    assert len(warnings(caplog)) == 1
    assert "127.0.0.1:1" in warnings(caplog)[0]
    assert "hunter2" not in caplog.text


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(QuoineInputError, match="redis://host"):
        open_budget("redis://host:port/x", RULES)


@pytest.mark.long
def test_a_pause_in_one_process_holds_the_others(where: str, caplog: pytest.LogCaptureFixture) -> None:
    takers = [Taker(where, RULES, priority=POLLING) for _ in range(3)]
    store = WatchedStore(open_store(where, RULES))
    paused: list[float] = []

    def slots() -> list[float]:
        return [slot for taker in takers for slot in taker.slots]

    def pause() -> None:
        budget = RequestBudget(store=store, rules=RULES)
        for _ in range(2):
            budget.pause(2.0)
            paused.extend(store.changed_at)
        assert len(warnings(caplog)) == 1
        until(lambda: sum(slot > paused[1] for slot in slots()) > 30)

    run(takers, 0.0, meanwhile=pause)
    assert [slot for slot in slots() if paused[0] < slot < paused[1] + 2.0] == []


def test_out_of_patience_nothing_is_taken(where: str) -> None:
    rules = Rules(limit=1, window=30.0)
    budget = open_budget(where, rules)
    budget.acquire(priority=NORMAL)
    with pytest.raises(QuoineBudgetError, match="all slots are taken"):
        budget.acquire(priority=NORMAL, patience=0.2)
    budget.pause(30)
    with pytest.raises(QuoineBudgetError, match="429"):
        budget.acquire(priority=NORMAL, patience=0.2)
    store = open_store(where, rules)
    assert store.transact(lambda book, _: (len(book.times), len(book.tickets))) == (1, 0)


def test_a_late_request_counts_twice(where: str) -> None:
    rules = Rules(limit=100, window=600.0, margin=0.1)
    budget = open_budget(where, rules)
    slot = budget.acquire(priority=NORMAL)
    budget.request_ended(slot)
    assert open_store(where, rules).transact(lambda book, _: len(book.times)) == 1
    budget.request_ended(Slot(budget=budget, good_until=slot.good_until - rules.margin_seconds))
    assert open_store(where, rules).transact(lambda book, _: len(book.times)) == 2


def test_a_fork_is_a_taker_of_its_own_and_needs_no_lock_of_its_parent(where: str) -> None:
    budget = open_budget(where, Rules(limit=100, window=600.0))
    budget.acquire(priority=NORMAL)
    with budget._lock:
        child = os.fork()
        if child == 0:
            try:
                budget.acquire(priority=NORMAL)
                os._exit(budget.process_count())
            finally:
                os._exit(99)
    deadline = time.monotonic() + 60
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, 9)
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(done[1]) == 2


@pytest.mark.alone
@pytest.mark.usefixtures("heap_of_its_own")
async def test_the_event_loop_goes_on_while_many_wait_and_the_book_is_locked(tmp_path: Path) -> None:
    book, rules = tmp_path / "book", Rules(limit=100, window=1.0)
    budget = open_budget(str(book), rules)
    async with heartbeat() as heart:
        await asyncio.gather(*(budget.acquire_async(priority=POLLING) for _ in range(100)))
        with book.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            await budget.acquire_async(priority=POLLING)
    assert heart.held_up < 0.25


async def test_a_cancelled_waiter_leaves_the_queue(where: str) -> None:
    rules = Rules(limit=1, window=60.0)
    budget = open_budget(where, rules)
    store = open_store(where, rules)

    def waiting() -> int:
        return store.transact(lambda book, _: len(book.tickets))

    await budget.acquire_async(priority=POLLING)
    waiter = asyncio.create_task(budget.acquire_async(priority=POLLING))
    await asyncio.to_thread(until, lambda: waiting() == 1)
    waiter.cancel()
    await asyncio.to_thread(until, lambda: waiting() == 0)


class Waits(Observer):
    """Keeps how long each slot was waited for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def waited(self, priority: str, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.mark.long
def test_who_waits_for_long_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_quoine.exchange.budget.request_budget.LOG_EVERY", 0.5)
    caplog.set_level(logging.INFO)
    seen = Waits()
    rules = Rules(limit=1, window=2.5)
    budget = RequestBudget(store=open_store(str(tmp_path / "book"), rules), rules=rules, observer=seen)
    budget.acquire(priority=NORMAL)
    budget.acquire(priority=NORMAL)
    said = warnings(caplog)
    assert 1 <= len(said) <= 1 + seen.seconds[1] / 0.5
    assert said[0].startswith("Waiting for the request budget")
    assert "Processes that share it: 1." in said[0]


@pytest.mark.long
def test_threads_of_one_process_keep_the_limit(where: str) -> None:
    book = WatchedStore(open_store(where, RULES))
    budget = RequestBudget(store=book, rules=RULES)
    taken: list[float] = []

    def take() -> None:
        while len(taken) < 150:
            budget.acquire(priority=NORMAL)
            taken.extend(book.changed_at)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert busiest(taken, RULES.window) <= RULES.limit
