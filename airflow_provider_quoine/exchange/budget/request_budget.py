"""The request budget: every request of every process takes a slot from it first."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from airflow_provider_quoine.exchange.budget.book import LONGEST_PAUSE, MAX_ASK_INTERVAL, TICKET_GRACE, Book, Ticket
from airflow_provider_quoine.exchange.budget.fallback import FallbackBudget
from airflow_provider_quoine.exchange.budget.rules import Priority, Rules
from airflow_provider_quoine.exchange.budget.slot import Slot
from airflow_provider_quoine.exchange.errors import QuoineBudgetError
from airflow_provider_quoine.exchange.observer import Observer

LOG_EVERY = 60.0
"""Seconds between two log lines of a request that waits for its slot."""

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class BudgetStoreError(Exception):
    """The book cannot be had now; the text says why."""


class BudgetStore(Protocol):
    """Keeps the book."""

    def __str__(self) -> str:
        """Name it for a person, without a password."""

    def clock(self) -> float:
        """Estimate the store's time in seconds, without asking it."""

    def transact(self, change: Callable[[Book, float], Result]) -> Result:
        """
        Read the book, change it and write it back, in one atomic step.

        :param change: gets the book and the store's time. It may be called again if another process was faster.
        :raises BudgetStoreError: if that is not possible within about a second.
        """


@dataclass(kw_only=True)
class _Wait:
    """A call that waits for its slot."""

    priority: Priority
    patience: float
    number: int = field(default_factory=lambda: secrets.randbits(63))
    began: float = field(default_factory=time.monotonic)
    ticket: Ticket | None = None
    logged_after: float = 0.0

    @property
    def seconds(self) -> float:
        """Waited so far."""
        return time.monotonic() - self.began


class RequestBudget:
    """
    This process' access to the budget. Any number of threads, event loops, processes and hosts may share a store.

    While the store fails, this process takes slots at a slower pace of its own. One log line says so, and one that the
    store is back.

    :param store: keeps the book.
    :param observer: is told how long each slot was waited for, and of pauses.
    """

    def __init__(self, *, store: BudgetStore, rules: Rules, observer: Observer | None = None) -> None:
        self.rules = rules
        self._store = store
        self._observer = observer or Observer()
        self._reset()

    def acquire(self, *, priority: Priority, patience: float = math.inf) -> Slot:
        """
        Wait for a slot and take it. Blocks the thread.

        :param patience: seconds after which to give up.
        :return: good for one request.
        :raises QuoineBudgetError: out of patience; nothing was sent.
        """
        wait = _Wait(priority=priority, patience=patience)
        try:
            while (seconds := self._ask(wait)) > 0:
                time.sleep(seconds)
        except BaseException:
            self._cancel(wait)
            raise
        return self._slot(wait)

    async def acquire_async(self, *, priority: Priority, patience: float = math.inf) -> Slot:
        """Do as :meth:`acquire` without blocking the event loop. If cancelled, it leaves the queue."""
        wait = _Wait(priority=priority, patience=patience)
        loop = asyncio.get_running_loop()
        try:
            while (seconds := await loop.run_in_executor(self._thread(), self._ask, wait)) > 0:  # noqa: ASYNC110 - others write it
                await asyncio.sleep(seconds)
        except BaseException:
            # Not awaited: a cancellation must not wait for the store.
            self._thread().submit(self._cancel, wait)
            raise
        return self._slot(wait)

    def pause(self, seconds: float) -> None:
        """
        Pause all requests after a 429.

        Overlapping pauses end with the last of them; only the first is logged and counted.

        :param seconds: from now; an hour at most.
        """
        seconds = min(max(seconds, 0.0), LONGEST_PAUSE)

        def pause(book: Book, now: float) -> bool:
            begins = book.paused_until <= now
            book.pause(until=now + seconds)
            return begins

        if self._transact(pause, fallback=lambda: pause(self._fallback.book, self._store.clock())):
            log.warning("The exchange says that the request limit is used up. All requests pause for %.0f s.", seconds)
            self._observer.paused(seconds)

    def request_ended(self, slot: Slot) -> None:
        """
        Count the slot of a request once more if the request ended later than the margin allows.

        The exchange may have counted such a request only now.
        """
        if slot.is_late:
            self._transact(
                lambda book, now: book.add_slot(process=self._process, now=now), fallback=self._fallback.add_slot
            )

    def process_count(self) -> int:
        """Return how many processes took slots within the last window, as far as this one has seen."""
        return max(1, len(set(self._last_book.processes)))

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._process = secrets.randbits(63)
        self._lock = threading.Lock()
        self._last_start_tags = dict.fromkeys(Priority, -1)
        self._last_book = Book()
        self._fallback = FallbackBudget(clock=self._store.clock, rules=self.rules, process=self._process)
        self._failing = False
        # An executor of its own: the event loop's default one may be busy with requests.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="quoine-budget")

    def _slot(self, wait: _Wait) -> Slot:
        self._observer.waited(wait.priority.name.lower(), wait.seconds)
        return Slot(budget=self, good_until=time.monotonic() + self.rules.margin_seconds)

    def _thread(self) -> ThreadPoolExecutor:
        self._reset_after_fork()
        return self._executor

    def _reset_after_fork(self) -> None:
        if self._pid != os.getpid():
            # A child is a process of its own, and must not wait for a lock that a thread of its parent holds.
            self._reset()

    def _ask(self, wait: _Wait) -> float:
        """Ask for the slot once; return the seconds after which to ask again, 0 if the slot was taken."""

        def ask(book: Book, now: float) -> tuple[float, Ticket | None]:
            after = self._last_start_tags[wait.priority]
            ticket = wait.ticket or book.new_ticket(number=wait.number, priority=wait.priority, after=after)
            return book.ask(ticket, process=self._process, now=now, rules=self.rules)

        seconds, ticket = self._transact(ask, fallback=lambda: (self._fallback.ask(), wait.ticket))
        if ticket is not None and wait.ticket is None:
            self._last_start_tags[wait.priority] = max(self._last_start_tags[wait.priority], ticket.start_tag)
        wait.ticket = ticket
        return min(seconds, self._patience_left(wait)) if seconds > 0 else 0.0

    def _cancel(self, wait: _Wait) -> None:
        if wait.ticket is not None:
            self._transact(lambda book, _: book.cancel(wait.number), fallback=lambda: None)

    def _transact(self, change: Callable[[Book, float], Result], *, fallback: Callable[[], Result]) -> Result:
        """Change the book, or do the same to the fallback while the store fails."""
        self._reset_after_fork()

        def restore_and_change(book: Book, now: float) -> tuple[Result, Book, bool]:
            was_failing = self._failing
            self._restore(book, now, was_failing)
            book.expire(now=now, rules=self.rules)
            return change(book, now), book, was_failing

        try:
            result, book, was_failing = self._store.transact(restore_and_change)
        except BudgetStoreError as error:
            with self._lock:
                self._begin_fallback(error)
                return fallback()
        with self._lock:
            self._last_book = book
            if was_failing and self._failing:
                self._failing = False
                log.warning("The request budget in %s is back.", self._store)
        return result

    def _restore(self, book: Book, now: float, was_failing: bool) -> None:
        """Add to the book what only this process knows."""
        if book.is_new and self._last_book.times:
            # The book was lost. Nobody takes a slot until all waiters have restored what they know.
            book.pause(until=now + MAX_ASK_INTERVAL + TICKET_GRACE)
        if was_failing:
            book.merge(self._fallback.book)
        elif book.generation != self._last_book.generation:
            book.merge(self._last_book)

    def _begin_fallback(self, error: BudgetStoreError) -> None:
        if self._failing:
            return
        self._failing = True
        self._fallback.begin(self._last_book)
        log.warning(
            "The request budget in %s cannot be used (%s). Until it is back, this process sends one request per "
            "%.3g s at most. Nothing is lost but speed.",
            self._store,
            error,
            self._fallback.slot_interval,
        )

    def _patience_left(self, wait: _Wait) -> float:
        """
        Return for how many seconds the call may still wait, and log now and then that it waits.

        :raises QuoineBudgetError: out of patience.
        """
        waited = wait.seconds
        paused = self._last_book.paused_until - self._store.clock()
        why = f"a 429 has paused all requests for another {paused:.0f} s" if paused > 0 else "all slots are taken"
        if waited >= wait.patience:
            raise QuoineBudgetError(
                f"No slot of the request budget was free within {waited:.0f} s: {why}. Nothing was sent, so "
                "nothing was done at the exchange. Try again later."
            )
        if waited - wait.logged_after >= LOG_EVERY:
            wait.logged_after = waited
            log.info(
                "Waiting for the request budget for %.0f s: %s. Processes that share it: %d.",
                waited,
                why,
                self.process_count(),
            )
        return wait.patience - waited
