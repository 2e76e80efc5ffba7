"""A process' own share of the request budget, for as long as the common book cannot be had."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_quoine.exchange.budget.book import LOOK_EVERY, Ledger, Rules

FEWEST_SHARERS = 8
"""As many are believed to share the budget at least (decided)."""


class OwnShare:
    """
    Gives slots from what was known when the book was lost. Not for several threads.

    Half of what is free of the limit is divided by the sharers that were seen, and by no fewer than
    :data:`FEWEST_SHARERS`: so all of them together stay below the limit without knowing of each other.

    :param clock: the store's time.
    :param rules: of the whole budget.
    :param sharer: this process.
    """

    def __init__(self, *, clock: Callable[[], float], rules: Rules, sharer: int) -> None:
        self._clock = clock
        self._rules = rules
        self._sharer = sharer
        self.begin(Ledger())

    def begin(self, seen: Ledger) -> None:
        """
        Begin to go on alone.

        :param seen: the book as it was seen last.
        """
        self.ledger = Ledger.from_bytes(seen.to_bytes())
        self._known = len(self.ledger.times)
        self._parts = 2 * max(FEWEST_SHARERS, len(set(self.ledger.sharers)))
        # Who has not seen the book is new, as each task is. Were its first slot free, so would be those of all tasks.
        self._last = 0.0 if seen.times else self._clock()

    @property
    def slot_seconds(self) -> float:
        """Seconds between two slots, at least."""
        return self._rules.span * self._parts / self._rules.limit

    def ask(self) -> float:
        """
        Take a slot.

        :return: 0 if it is taken; else in how many seconds to ask again, the lost store first.
        """
        ledger, now = self.ledger, self._clock()
        before = len(ledger.times)
        ledger.tidy(now=now, rules=self._rules)
        # The oldest ones went, and those are the ones of the book.
        self._known = max(0, self._known - (before - len(ledger.times)))
        own = len(ledger.times) - self._known
        share = (self._rules.limit - self._known) // self._parts or (0 if self._known else 1)
        ready_at = max(ledger.paused_until, self._last + self.slot_seconds)
        if own >= share or now < ready_at:
            return LOOK_EVERY
        self.count()
        return 0.0

    def count(self) -> None:
        """Count a slot as taken."""
        self._last = self._clock()
        self.ledger.count(sharer=self._sharer, now=self._last)
