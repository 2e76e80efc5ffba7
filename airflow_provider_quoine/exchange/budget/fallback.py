"""The share of the request budget that a process may take while it cannot reach the book."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_quoine.exchange.budget.book import MAX_ASK_INTERVAL, Book
from airflow_provider_quoine.exchange.budget.rules import Rules

MIN_PROCESSES = 8
"""The fallback assumes that at least this many processes use the budget (decisions, Budget)."""


class FallbackBudget:
    """
    One process' share of the budget, without the others' knowledge. Not for several threads.

    Half of the slots that were free when the book was lost is divided by the processes that were seen, and by
    :data:`MIN_PROCESSES` at least. So all processes together stay below the limit without knowing of each other.

    :param clock: the store's time.
    :param process: this process' number in the book.
    """

    def __init__(self, *, clock: Callable[[], float], rules: Rules, process: int) -> None:
        self._clock = clock
        self._rules = rules
        self._process = process
        self.begin(Book())

    def begin(self, last_seen: Book) -> None:
        """
        Begin with the book as it was seen last.

        :param last_seen: an empty one if the process has not seen any.
        """
        self.book = Book.from_bytes(last_seen.to_bytes())
        self._seen_slots = len(self.book.times)
        self._divisor = 2 * max(MIN_PROCESSES, len(set(self.book.processes)))
        # A process that has not seen the book waits for its first slot too: each task is such a process, and many
        # tasks may start at once.
        self._last_slot_at = 0.0 if last_seen.times else self._clock()

    @property
    def slot_interval(self) -> float:
        """Seconds between two slots, at least."""
        return self._rules.slot_lifetime * self._divisor / self._rules.limit

    def ask(self) -> float:
        """
        Take a slot.

        :return: 0 if it was taken; else the seconds after which to ask again, the lost store first.
        """
        book, now = self.book, self._clock()
        before = len(book.times)
        book.expire(now=now, rules=self._rules)
        # The oldest slots expire first, and those are the ones seen in the lost book.
        self._seen_slots = max(0, self._seen_slots - (before - len(book.times)))
        own = len(book.times) - self._seen_slots
        share = (self._rules.limit - self._seen_slots) // self._divisor or (0 if self._seen_slots else 1)
        ready_at = max(book.paused_until, self._last_slot_at + self.slot_interval)
        if own >= share or now < ready_at:
            return MAX_ASK_INTERVAL
        self.add_slot()
        return 0.0

    def add_slot(self) -> None:
        """Count a slot as taken."""
        self._last_slot_at = self._clock()
        self.book.add_slot(process=self._process, now=self._last_slot_at)
