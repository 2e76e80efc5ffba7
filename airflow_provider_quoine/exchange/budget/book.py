"""
The book of the request budget: which slots were taken, who waits, and whose turn it is. It only counts.

Where the book is kept, and that one process at a time writes it, is the stores' part
(:mod:`~airflow_provider_quoine.exchange.budget.file_store`,
:mod:`~airflow_provider_quoine.exchange.budget.redis_store`).

Three rules decide over a slot:

- *The window.* A slot counts from when it was taken, for the window and the margin. No more are given than the limit.
  This alone keeps the limit; the other two say who gets one.
- *The order.* Lower priority number first; within one priority every sharer in turn, however many of its threads
  wait. (Start-time fair queueing: a ticket's turn is the one now served, or the one after its sharer's last, if that
  is later.) After four slots in a row that went ahead of an older ticket of a later priority, the one that had none for
  the longest time has one.
- *The room for the urgent.* Only they take the last hundredth of the limit, and polling takes slots at an even pace. So
  the slots of a window become free one by one, and whoever is urgent waits for one of them, not for a whole window.
  What is neither may take an equal part of a window as fast as it likes, and more at polling's pace: however much
  faster one sharer is than another, it does not empty a window that has just become free.
"""

from __future__ import annotations

import bisect
import math
import secrets
import struct
from array import array
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Self

from airflow_provider_quoine.exchange.errors import QuoineInputError

LIMIT = 300
"""Requests per window (api-reference, Introduction)."""

WINDOW = 300.0
"""Seconds (api-reference, Introduction)."""

MARGIN = 0.01
"""By how much longer than the window a slot counts, as a share of it (decided: 3 s; see :class:`Rules`)."""

HIGHEST_LIMIT = 100_000

AHEAD_IN_A_ROW = 4
"""Slots that may go ahead of an older ticket of a later priority before that has one (decided)."""

LOOK_EVERY = 1.0
"""Seconds after which a waiter looks into the book again at the latest, so that it is known to be alive (decided)."""

GRACE = 1.0
"""Seconds after which a waiter that did not come back for its turn is passed over (decided)."""

LONGEST_PAUSE = 3600.0
"""Seconds; what a 429 asks beyond it is not believed (decided)."""


class Priority(IntEnum):
    """Who goes first."""

    URGENT = 0
    """A person or a withdrawal waits."""
    NORMAL = 1
    POLLING = 2
    """Looking whether something has happened."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """
    How many requests are allowed.

    :param limit: requests per window, over all sharers.
    :param window: seconds.
    :param margin: by how much longer than the window a slot counts, as a share of it. The exchange counts a request
        when it arrives, and the budget when its slot is taken; requests whose ways differ by less than
        ``window * margin`` seconds are still counted right.
    :raises QuoineInputError: out of bounds.
    """

    limit: int = LIMIT
    window: float = WINDOW
    margin: float = MARGIN

    def __post_init__(self) -> None:
        if not (1 <= self.limit <= HIGHEST_LIMIT and 0 < self.window < math.inf and 0 <= self.margin <= 1):
            raise QuoineInputError(
                f"The request budget cannot be {self.limit} requests in {self.window} s with a margin of "
                f"{self.margin}: give 1 to {HIGHEST_LIMIT} requests, a window above 0 s, and a margin from 0 to 1."
            )

    @property
    def span(self) -> float:
        """Seconds for which a slot counts."""
        return self.window * (1 + self.margin)

    @property
    def reserve(self) -> int:
        """Slots that only the urgent take, and that polling may be late by."""
        return self.limit // 100

    @property
    def slot_seconds(self) -> float:
        """Seconds per slot of an even pace: what polling gets if nobody else asks."""
        return self.span / (self.limit - self.reserve)


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """
    A place in the queue.

    :param number: random; names the waiter.
    :param priority: its priority.
    :param turn: in which turn of its priority it is served.
    :param arrival: counts up with every new ticket.
    :param back_by: store's time until which it is believed to be alive.
    """

    number: int
    priority: int
    turn: int
    arrival: int
    back_by: float

    @property
    def place(self) -> tuple[int, int, int, int]:
        """Sorts the queue."""
        return self.priority, self.turn, self.arrival, self.number


@dataclass(kw_only=True)
class Ledger:
    """
    The book.

    :param generation: random; another one means that this book was begun anew.
    :param times: when each slot was taken, store's time, ascending.
    :param sharers: who took it; a random number per process.
    :param paused_until: store's time.
    :param polling_due: store's time at which polling is on its even pace.
    :param ahead: slots in a row that went ahead of an older ticket of a later priority.
    :param arrivals: tickets ever given out.
    :param turns: by priority, the turn that is being served.
    :param served_at: by priority, when it had its last slot.
    :param tickets: who waits.
    """

    generation: int = field(default_factory=lambda: secrets.randbits(63))
    times: array[float] = field(default_factory=lambda: array("d"))
    sharers: array[int] = field(default_factory=lambda: array("Q"))
    paused_until: float = 0.0
    polling_due: float = 0.0
    ahead: int = 0
    arrivals: int = 0
    turns: tuple[int, ...] = (0,) * len(Priority)
    served_at: tuple[float, ...] = (0.0,) * len(Priority)
    tickets: list[Ticket] = field(default_factory=list)

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever written into it."""
        return not self.times and not self.arrivals

    def tidy(self, *, now: float, rules: Rules) -> None:
        """Forget slots that count no longer and waiters that did not come back."""
        while self.times and self.times[-1] > now:
            # The store's clock was set back: what it says of the future was just now, at the latest.
            at = bisect.bisect_right(self.times, now)
            self.times[at:] = array("d", [now] * (len(self.times) - at))
        old = bisect.bisect_right(self.times, now - rules.span)
        del self.times[:old], self.sharers[:old]
        self.tickets = [ticket for ticket in self.tickets if now <= ticket.back_by <= now + LOOK_EVERY + GRACE]
        self.polling_due = min(self.polling_due, now + rules.span)
        self.paused_until = min(self.paused_until, now + LONGEST_PAUSE)

    def ask(self, ticket: Ticket, *, sharer: int, now: float, rules: Rules) -> tuple[float, Ticket]:
        """
        Take a slot, or a place in the queue.

        :param ticket: from :meth:`enter`, or the one that the last call gave.
        :return: 0 if the slot is taken; else in how many seconds to ask again, with the ticket given here.
        """
        others = [other for other in self.tickets if other.number != ticket.number]
        queue = sorted([*others, ticket], key=lambda each: each.place)
        passed = self._passed_over(queue)
        if passed is not None:
            queue.remove(passed)
            queue.insert(0, passed)
        in_part_at = self._in_part_at(ticket.priority, sharer, rules)
        wait = self._ready_at(ticket, queue, in_part_at, ticket == passed, rules) - now
        if wait > 0:
            wait = min(wait, LOOK_EVERY)
            ticket = replace(ticket, back_by=now + wait + GRACE)
            self.tickets = [*others, ticket]
            return wait, ticket
        self.tickets = others
        self._count_ahead(ticket, others, ticket == passed)
        self._serve(ticket, now)
        if in_part_at > now:
            late = (rules.reserve or 1) * rules.slot_seconds
            self.polling_due = max(self.polling_due, now - late) + rules.slot_seconds
        self.count(sharer=sharer, now=now)
        return 0.0, ticket

    def enter(self, *, number: int, priority: Priority, after: int) -> Ticket:
        """
        Give a new ticket.

        :param after: the turn of its sharer's last ticket of this priority.
        """
        self.arrivals += 1
        turn = max(self.turns[priority], after + 1)
        return Ticket(number=number, priority=priority, turn=turn, arrival=self.arrivals, back_by=0.0)

    def leave(self, number: int) -> None:
        """Give a place in the queue up."""
        self.tickets = [ticket for ticket in self.tickets if ticket.number != number]

    def count(self, *, sharer: int, now: float) -> None:
        """Count a slot as taken, whatever the rules say."""
        self.times.append(now)
        self.sharers.append(sharer)

    def pause(self, *, until: float) -> None:
        """Give no slot before that time; a longer pause stays."""
        self.paused_until = max(self.paused_until, until)

    def remember(self, other: Ledger) -> None:
        """Take over what another book knows of slots and pauses: this one was begun anew."""
        both = sorted({*zip(self.times, self.sharers, strict=True), *zip(other.times, other.sharers, strict=True)})
        self.times = array("d", [time for time, _ in both])
        self.sharers = array("Q", [sharer for _, sharer in both])
        self.pause(until=other.paused_until)

    def shift(self, seconds: float) -> None:
        """Move all times: the store's clock begins anew."""
        self.times = array("d", [time + seconds for time in self.times])
        self.served_at = (0.0,) * len(Priority)
        self.paused_until += seconds
        self.polling_due += seconds
        self.tickets = []

    def _passed_over(self, queue: list[Ticket]) -> Ticket | None:
        later = [each for each in queue if each.priority > queue[0].priority]
        if self.ahead < AHEAD_IN_A_ROW or not later:
            return None
        return min(later, key=lambda each: (self.served_at[each.priority], each.place))

    def _count_ahead(self, ticket: Ticket, others: list[Ticket], was_passed_over: bool) -> None:
        older = any(each.priority > ticket.priority and each.arrival < ticket.arrival for each in others)
        self.ahead = self.ahead + 1 if older and not was_passed_over else 0

    def _serve(self, ticket: Ticket, now: float) -> None:
        turns, served_at = list(self.turns), list(self.served_at)
        turns[ticket.priority] = max(turns[ticket.priority], ticket.turn)
        served_at[ticket.priority] = now
        self.turns, self.served_at = tuple(turns), tuple(served_at)

    def _in_part_at(self, priority: int, sharer: int, rules: Rules) -> float:
        # When a slot needs no pace, because its sharer has no more than the others may have.
        if priority != Priority.NORMAL:
            return math.inf if priority == Priority.POLLING else 0.0
        sharers = self.sharers.tolist()
        part = math.ceil((rules.limit - rules.reserve) / len({*sharers, sharer}))
        if sharers.count(sharer) < part:
            return 0.0
        own = [time for time, each in zip(self.times, sharers, strict=True) if each == sharer]
        return own[-part] + rules.span

    def _ready_at(
        self, ticket: Ticket, queue: list[Ticket], in_part_at: float, was_passed_over: bool, rules: Rules
    ) -> float:
        # When as many slots are free as those ahead and this one need.
        rank = queue.index(ticket)
        first = ticket.priority == Priority.URGENT or was_passed_over
        room = rules.limit if first else rules.limit - rules.reserve
        at = self.paused_until
        must_go = len(self.times) - room + rank
        if must_go >= 0 and self.times:
            at = max(at, self.times[min(must_go, len(self.times) - 1)] + rules.span)
        if not was_passed_over:
            ahead = sum(each.priority == ticket.priority for each in queue[:rank])
            at = max(at, min(in_part_at, self.polling_due + ahead * rules.slot_seconds))
        return at

    _HEAD = struct.Struct("<QddQQ3Q3dII")
    _TICKET = struct.Struct("<QQQQd")

    def to_bytes(self) -> bytes:
        """Write the book down."""
        head = self._HEAD.pack(
            self.generation,
            self.paused_until,
            self.polling_due,
            self.ahead,
            self.arrivals,
            *self.turns,
            *self.served_at,
            len(self.times),
            len(self.tickets),
        )
        tickets = (
            self._TICKET.pack(each.number, each.priority, each.turn, each.arrival, each.back_by)
            for each in self.tickets
        )
        return b"".join((head, self.times.tobytes(), self.sharers.tobytes(), *tickets))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """
        Read a book.

        :raises ValueError: if it is none.
        """
        try:
            generation, paused, due, ahead, arrivals, *by_priority, slots, waiting = cls._HEAD.unpack_from(data)
            start, end = cls._HEAD.size, cls._HEAD.size + 8 * slots
            times, sharers = array("d", data[start:end]), array("Q", data[end : end + 8 * slots])
            tickets = [
                Ticket(number=number, priority=priority, turn=turn, arrival=arrival, back_by=back_by)
                for number, priority, turn, arrival, back_by in cls._TICKET.iter_unpack(data[end + 8 * slots :])
            ]
        except struct.error as error:
            raise ValueError(str(error)) from None
        if len(times) != slots or len(sharers) != slots or len(tickets) != waiting:
            raise ValueError("it is cut short")
        return cls(
            generation=generation,
            times=times,
            sharers=sharers,
            paused_until=paused,
            polling_due=due,
            ahead=ahead,
            arrivals=arrivals,
            turns=tuple(by_priority[:3]),
            served_at=tuple(by_priority[3:]),
            tickets=tickets,
        )
