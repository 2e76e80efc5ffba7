"""The moments at which a condition comes true: no stream and no clock, only what is seen."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable
from typing import Any

from airflow_provider_quoine.exchange.market.conditions import Condition, MarketView, Memory, event_of


class Edges:
    """
    Tells when a condition comes true: once each time, and again only after it was seen to be false.

    What was before the first view, or before views that may have been missed, is not known: what holds then is
    told only after it was seen not to hold. A trade needs no before.

    :param pair: for the events.
    :param condition: what to tell of.
    :param cooldown: seconds after an event in which the next ones are only counted.
    """

    def __init__(self, *, pair: str, condition: Condition, cooldown: float) -> None:
        self.pair = pair
        self._conditions = condition.one_way
        self._memory = condition.memory
        self._cooldown = cooldown
        self._held: dict[Condition, bool] = {}
        self._unbroken: Hashable = None
        self._began: float | None = None
        self._ready_at = -math.inf
        self._suppressed = self._missed = 0

    def take(self, view: MarketView) -> dict[str, Any] | None:
        """
        Look at the next view.

        :return: the event, as :func:`event_of` makes it, with ``suppressed`` (events since the last one that the
            cooldown held back) and ``missed_trades`` (trades since then that were lost before they were judged).
        """
        if self._began is None:
            self._began = view.clock
        if view.heard < self._began:
            view = dataclasses.replace(view, heard=self._began)
        if view.unbroken != self._unbroken and self._memory is Memory.UNBROKEN:
            self._held.clear()
        self._unbroken = view.unbroken
        self._missed += view.missed
        # All are judged, for what each remembers. No two come true at once: at the level, one of them held before.
        came_true = [each for each in self._conditions if self._comes_true(each, view)]
        if not came_true:
            return None
        if view.clock < self._ready_at:
            self._suppressed += 1
            return None
        event = event_of(self.pair, came_true[0], view)
        event |= {"suppressed": self._suppressed, "missed_trades": self._missed}
        self._ready_at = view.clock + self._cooldown
        self._suppressed = self._missed = 0
        return event

    def _comes_true(self, condition: Condition, view: MarketView) -> bool:
        holds = condition.holds(view)
        if holds is None:
            return False
        held_before = self._held.get(condition)
        self._held[condition] = holds
        return holds and (held_before is False or self._memory is Memory.NONE)
