"""One request budget for everybody: every request of every process takes a slot from it before it leaves."""

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
from dataclasses import dataclass
from typing import Protocol, TypeVar

from airflow_provider_quoine.exchange.budget.book import (
    GRACE,
    LONGEST_PAUSE,
    LOOK_EVERY,
    Ledger,
    Priority,
    Rules,
    Ticket,
)
from airflow_provider_quoine.exchange.budget.fallback import OwnShare
from airflow_provider_quoine.exchange.errors import QuoineBudgetError
from airflow_provider_quoine.exchange.observer import Observer

__all__ = ["BudgetStore", "BudgetStoreError", "Priority", "RequestBudget", "Rules"]

SAY_EVERY = 60.0
"""Seconds between two lines in the log of whoever waits for a slot."""

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class BudgetStoreError(Exception):
    """The book cannot be had now; the text says why."""


class BudgetStore(Protocol):
    """Where the book is kept."""

    def __str__(self) -> str:
        """Name it for a person, without a password."""

    def clock(self) -> float:
        """Estimate the store's time in seconds, without asking it."""

    def transact(self, change: Callable[[Ledger, float], Result]) -> Result:
        """
        Read the book, change it and write it back, as if nobody else did at the same time.

        :param change: is given the book and the store's time. It may be called again if somebody else was faster.
        :raises BudgetStoreError: if that is not possible within about a second.
        """


@dataclass(kw_only=True)
class _Wait:
    """One call that waits for its slot."""

    priority: Priority
    number: int
    began: float
    patience: float
    ticket: Ticket | None = None
    said: float = 0.0


class RequestBudget:
    """
    A share in the budget. Any number of threads, event loops, processes and hosts take from the same store.

    When the store fails, it gives slots at this process' own, slower pace, says so once, and takes the store up again
    as soon as that answers.

    :param store: where the book is kept.
    :param rules: limit, window, margin.
    :param observer: is told how long each slot was waited for, and of pauses.
    """

    def __init__(self, *, store: BudgetStore, rules: Rules, observer: Observer | None = None) -> None:
        self.rules = rules
        self._store = store
        self._observer = observer or Observer()
        self._begin()

    def acquire(self, *, priority: Priority, patience: float = math.inf) -> float:
        """
        Wait for a slot and take it. For threads that may block.

        :param patience: seconds after which to give up.
        :return: seconds waited.
        :raises QuoineBudgetError: out of patience; nothing was sent.
        """
        wait = self._new_wait(priority, patience)
        try:
            while (seconds := self._ask(wait)) > 0:
                time.sleep(seconds)
        except BaseException:
            self._leave(wait)
            raise
        return self._took(wait)

    async def acquire_async(self, *, priority: Priority, patience: float = math.inf) -> float:
        """Do as :meth:`acquire` without ever blocking the event loop. If cancelled, it leaves the queue."""
        wait = self._new_wait(priority, patience)
        loop = asyncio.get_running_loop()
        try:
            while (seconds := await loop.run_in_executor(self._threads(), self._ask, wait)) > 0:  # noqa: ASYNC110 - others write it
                await asyncio.sleep(seconds)
        except BaseException:
            # Not awaited: whoever cancels does not wait for it.
            self._threads().submit(self._leave, wait)
            raise
        return self._took(wait)

    def pause(self, seconds: float) -> None:
        """
        Give nobody a slot for so long: a 429 has come.

        Several at once pause once, until the last one's end; the first is told of.

        :param seconds: from now; an hour at most is believed.
        """
        seconds = min(max(seconds, 0.0), LONGEST_PAUSE)

        def pause(ledger: Ledger, now: float) -> bool:
            begins = ledger.paused_until <= now
            ledger.pause(until=now + seconds)
            return begins

        if self._either(pause, lambda: pause(self._share.ledger, self._store.clock())):
            log.warning("The exchange says that the request limit is used up: nobody asks it for %.0f s.", seconds)
            self._observer.paused(seconds)

    def count_late(self) -> None:
        """
        Count a slot now, without waiting: that of a request which was under way for longer than the margin.

        The exchange may have counted it only now.
        """
        self._either(lambda ledger, now: ledger.count(sharer=self._sharer, now=now), self._share.count)

    @property
    def late_after(self) -> float:
        """Seconds under way after which a request is to be counted again, see :meth:`count_late`."""
        return self.rules.window * self.rules.margin

    def sharers(self) -> int:
        """How many processes took slots lately, as far as this one has seen."""
        return max(1, len(set(self._memory.sharers)))

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._sharer = secrets.randbits(63)
        self._lock = threading.Lock()
        self._last_turns = dict.fromkeys(Priority, -1)
        self._memory = Ledger()
        self._share = OwnShare(clock=self._store.clock, rules=self.rules, sharer=self._sharer)
        self._failing = False
        # One of its own: the event loop's default one may be busy with requests.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="quoine-budget")

    def _new_wait(self, priority: Priority, patience: float) -> _Wait:
        return _Wait(priority=priority, number=secrets.randbits(63), began=time.monotonic(), patience=patience)

    def _threads(self) -> ThreadPoolExecutor:
        if self._pid != os.getpid():
            self._begin()
        return self._executor

    def _ask(self, wait: _Wait) -> float:
        def ask(ledger: Ledger, now: float) -> tuple[float, Ticket]:
            after = self._last_turns[wait.priority]
            ticket = wait.ticket or ledger.enter(number=wait.number, priority=wait.priority, after=after)
            return ledger.ask(ticket, sharer=self._sharer, now=now, rules=self.rules)

        def ask_share() -> tuple[float, Ticket | None]:
            return self._share.ask(), wait.ticket

        seconds, ticket = self._either(ask, ask_share)
        if ticket is not None and wait.ticket is None:
            self._last_turns[wait.priority] = max(self._last_turns[wait.priority], ticket.turn)
        wait.ticket = ticket
        return min(seconds, self._patience_left(wait)) if seconds > 0 else 0.0

    def _either(self, change: Callable[[Ledger, float], Result], otherwise: Callable[[], Result]) -> Result:
        if self._pid != os.getpid():
            # After a fork: a sharer of its own, and no lock that a thread of the parent holds for ever.
            self._begin()

        def tidied(ledger: Ledger, now: float) -> tuple[Result, Ledger, bool]:
            back = self._failing
            if ledger.is_new and self._memory.times:
                # It was lost: nobody takes a slot until all who wait have put back what only they remember.
                ledger.pause(until=now + LOOK_EVERY + GRACE)
            if back or ledger.generation != self._memory.generation:
                ledger.remember(self._share.ledger if back else self._memory)
            ledger.tidy(now=now, rules=self.rules)
            return change(ledger, now), ledger, back

        try:
            result, ledger, back = self._store.transact(tidied)
        except BudgetStoreError as error:
            with self._lock:
                self._fail(error)
                return otherwise()
        with self._lock:
            self._memory = ledger
            if back and self._failing:
                self._failing = False
                log.warning("The request budget in %s is back.", self._store)
        return result

    def _fail(self, error: BudgetStoreError) -> None:
        if self._failing:
            return
        self._failing = True
        self._share.begin(self._memory)
        log.warning(
            "The request budget in %s cannot be used (%s). Requests go on at this process' own share, one per "
            "%.3g s at most, until it is back. Nothing is lost by it but speed.",
            self._store,
            error,
            self._share.slot_seconds,
        )

    def _patience_left(self, wait: _Wait) -> float:
        waited = time.monotonic() - wait.began
        paused = self._memory.paused_until - self._store.clock()
        why = f"a 429 has paused everybody for another {paused:.0f} s" if paused > 0 else "all slots are taken"
        if waited >= wait.patience:
            raise QuoineBudgetError(
                f"No slot of the request budget was free within {waited:.0f} s: {why}. Nothing was sent, so "
                "nothing was done at the exchange. Try again later."
            )
        if waited - wait.said >= SAY_EVERY:
            wait.said = waited
            log.info(
                "Waiting for the request budget for %.0f s: %s. %d processes share it.", waited, why, self.sharers()
            )
        return wait.patience - waited

    def _leave(self, wait: _Wait) -> None:
        if wait.ticket is not None:
            self._either(lambda ledger, _: ledger.leave(wait.number), lambda: None)

    def _took(self, wait: _Wait) -> float:
        waited = time.monotonic() - wait.began
        self._observer.waited(wait.priority.name.lower(), waited)
        return waited
