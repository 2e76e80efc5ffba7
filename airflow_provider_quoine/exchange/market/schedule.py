"""When snapshots are due: every ``interval`` from a fixed moment on, a number of times or for ever."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_quoine.exchange.clock import CLOCK, Clock
from airflow_provider_quoine.exchange.errors import QuoineInputError

SHORTEST = timedelta(milliseconds=10)
"""Least time between two snapshots: below that the cost is the event loop's, not the market's (decisions, Captures)."""

LONGEST = timedelta(days=366)
"""Most time that anything here may last; beyond it is a slip of the pen."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """
    The moments ``began_at + number * interval`` for the numbers from 1 on.

    They follow from what the trigger was given, so a trigger that starts again, or runs twice, has the same.

    :param began_at: aware, UTC.
    :param count: how many there are; None is without end.
    """

    began_at: datetime
    interval: timedelta
    count: int | None

    @classmethod
    def of(cls, *, began_at: datetime, interval: float | None, count: int | None, duration: float | None) -> Schedule:
        """
        Work out a schedule from two of ``interval``, ``count`` and ``duration``, or from ``interval`` alone.

        :param interval: seconds.
        :param duration: seconds; what begins in it and would not end in it is left out.
        :raises QuoineInputError: if they are out of range, do not suffice, or are more than two.
        """
        if interval is not None and count is not None and duration is not None:
            raise QuoineInputError("Of interval, count and duration give two: the third follows from them.")
        if count is not None and (type(count) is not int or count < 1):
            raise QuoineInputError(f"count is {count!r}: give a whole number above 0.")
        length = None if duration is None else seconds("duration", duration)
        if interval is not None:
            step = seconds("interval", interval)
        elif length is not None and count is not None:
            step = length / count
        else:
            raise QuoineInputError("Give an interval in seconds, or a count and a duration, for snapshots by time.")
        if step < SHORTEST:
            least = SHORTEST.total_seconds()
            raise QuoineInputError(f"Snapshots every {step.total_seconds():g} s: give {least:g} s or more.")
        if count is None and length is not None:
            count = length // step
            if not count:
                raise QuoineInputError("The duration is shorter than the interval, so no snapshot would be due.")
        if count is not None and count > LONGEST / step:
            raise QuoineInputError(f"{count} snapshots every {step.total_seconds():g} s would last more than a year.")
        return cls(began_at=began_at, interval=step, count=count)

    @property
    def ends_at(self) -> datetime | None:
        """The last moment; None if there is none."""
        return None if self.count is None else self.due_at(self.count)

    def due_at(self, number: int) -> datetime:
        """Return a moment by its number."""
        return self.began_at + number * self.interval

    def next_after(self, moment: datetime) -> int:
        """Return the number of the first moment after this one; it may be beyond the last."""
        return max(1, (moment - self.began_at) // self.interval + 1)

    def moments(
        self,
        after: datetime,
        *,
        on_missed: Callable[[datetime, datetime], None] | None = None,
        clock: Clock = CLOCK,
    ) -> Iterator[datetime]:
        """
        Yield the moments after another, each when it is the next to wait for.

        A moment that passes while the caller works on the one before is left out: what would be taken for it now is
        not what was there then.

        :param on_missed: is called with the first and the last moment of those left out in a row.
        """
        number = self.next_after(after)
        while self.count is None or number <= self.count:
            yield self.due_at(number)
            passed = self.next_after(clock.now()) - 1
            if self.count is not None:
                passed = min(passed, self.count)
            if on_missed is not None and passed > number:
                on_missed(self.due_at(number + 1), self.due_at(passed))
            number = max(number, passed) + 1


def seconds(name: str, value: Any) -> timedelta:
    """
    Check seconds that were given.

    :return: the time, to the microsecond.
    :raises QuoineInputError: if they are no number, not above 0, or more than a year.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise QuoineInputError(f"{name} is {value!r}: give seconds above 0.")
    if value > LONGEST.total_seconds():
        raise QuoineInputError(f"{name} is {value!r}: give no more than a year, {LONGEST.total_seconds():.0f} s.")
    time = timedelta(seconds=value)
    if not time:
        raise QuoineInputError(f"{name} is {value!r}: give a microsecond or more.")
    return time


def moment(text: str) -> datetime:
    """
    Read when something began, as a trigger's arguments carry it.

    :param text: ISO 8601 with an offset.
    :raises QuoineInputError: if it is anything else.
    """
    try:
        # Not pendulum.parse: it reads "now" and "12:00" too, and takes a missing offset for UTC.
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        found = None
    if found is None or found.tzinfo is None:
        raise QuoineInputError(
            f"began_at is {text!r}: give ISO 8601 with an offset, such as 2026-01-02T03:04:05+00:00."
        )
    return found.astimezone(UTC)
