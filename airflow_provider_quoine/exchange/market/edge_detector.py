"""Detection of the moments at which a condition becomes true, from states of the market alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable
from typing import Any

from airflow_provider_quoine.exchange.market.conditions import Arming, Condition, event_of
from airflow_provider_quoine.exchange.market.market_state import MarketState
from airflow_provider_quoine.exchange.market.pairs import Pair


class EdgeDetector:
    """
    Makes an event when a condition becomes true, and the next one only after the condition was false again.

    A condition that is true in the first state, or in the first state after a gap, makes no event: it may have been
    true before. The condition's :class:`~airflow_provider_quoine.exchange.market.conditions.Arming` says which
    conditions are exempt.

    :param cooldown: seconds after an event in which further events are counted and not returned.
    """

    def __init__(self, *, pair: Pair, condition: Condition, cooldown: float) -> None:
        self.pair = pair
        self._conditions = condition.one_way_conditions
        self._arming = condition.arming
        self._cooldown = cooldown
        self._last_known: dict[Condition, bool] = {}
        self._epoch: Hashable = None
        self._started: float | None = None
        self._cooldown_ends = -math.inf
        self._suppressed = self._missed_trades = 0

    def observe(self, state: MarketState) -> dict[str, Any] | None:
        """
        Take the next state.

        :return: the event of :func:`event_of`, if there is one, with ``suppressed`` (events since the last one that
            the cooldown suppressed) and ``missed_trades`` (trades since the last one that were lost unseen).
        """
        if self._started is None:
            self._started = state.monotonic
        if state.last_heard < self._started:
            # A silence is measured from the detector's own start.
            state = dataclasses.replace(state, last_heard=self._started)
        if state.epoch != self._epoch and self._arming is Arming.UNTIL_GAP:
            self._last_known.clear()
        self._epoch = state.epoch
        self._missed_trades += state.missed_trades
        # All are judged, because each has a last truth to store. At most one becomes true: both were never false at
        # once, since a price is at or above the level, or at or below it.
        became_true = [each for each in self._conditions if self._becomes_true(each, state)]
        if not became_true:
            return None
        if state.monotonic < self._cooldown_ends:
            self._suppressed += 1
            return None
        event = event_of(self.pair, became_true[0], state)
        event |= {"suppressed": self._suppressed, "missed_trades": self._missed_trades}
        self._cooldown_ends = state.monotonic + self._cooldown
        self._suppressed = self._missed_trades = 0
        return event

    def _becomes_true(self, condition: Condition, state: MarketState) -> bool:
        holds = condition.holds(state)
        if holds is None:
            return False
        armed = self._arming is Arming.ALWAYS or self._last_known.get(condition) is False
        self._last_known[condition] = holds
        return holds and armed
