"""
The book of the request budget: the slots taken, the queue, and who gets the next slot. It only counts.

The stores keep it and let one process at a time change it
(:mod:`~airflow_provider_quoine.exchange.budget.file_store`,
:mod:`~airflow_provider_quoine.exchange.budget.redis_store`).

Three rules decide about a slot:

- *The window.* A slot counts for the window and the margin, from the moment it is taken. Never do more slots count
  than the limit. This rule alone keeps the limit; the other two decide who gets a slot.
- *The order.* Urgent requests first, then normal ones, then polling. Within one priority the processes get one slot
  each, round by round, however many of their threads wait. (Start-time fair queueing: the virtual time is the start tag
  of the ticket served last. A ticket's start tag is the virtual time, or one more than the last start tag of its
  process, if that is later.) After four slots in a row that overtook an older ticket of a later priority, the next slot
  goes to the priority that has waited longest for one.
- *The pace.* Only urgent requests take the last hundredth of the limit, and polling takes slots at an even pace. So
  the slots of a window become free one by one, and an urgent request waits for one of them, not for a whole window.
  Normal requests are not paced while their process has less than its fair share of the window, an equal one; beyond
  that they keep polling's pace. So a fast process does not empty a window that has just become free.
"""

from __future__ import annotations

import bisect
import math
import secrets
import struct
from array import array
from dataclasses import dataclass, field, replace
from typing import Self

from airflow_provider_quoine.exchange.budget.rules import Priority, Rules

MAX_OVERTAKES = 4
"""Slots in a row that may overtake an older ticket of a later priority (decisions, Budget)."""

MAX_ASK_INTERVAL = 1.0
"""Seconds after which a waiter asks again at the latest, which shows that it is alive (decisions, Budget)."""

TICKET_GRACE = 1.0
"""Seconds by which a waiter may ask later than it announced; after that it counts as dead (decisions, Budget)."""

LONGEST_PAUSE = 3600.0
"""Seconds; a 429 that asks for a longer pause gets this one (decisions, Budget)."""


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """
    A place in the queue.

    :param number: random; identifies the waiter.
    :param start_tag: the virtual time of its priority at which it is served.
    :param arrival: counts up with every new ticket.
    :param expires_at: store's time after which its waiter counts as dead.
    """

    number: int
    priority: int
    start_tag: int
    arrival: int
    expires_at: float

    @property
    def sort_key(self) -> tuple[int, int, int, int]:
        """The order of the queue."""
        return self.priority, self.start_tag, self.arrival, self.number


@dataclass(kw_only=True)
class Book:
    """
    The state of the budget, as its store keeps it.

    :param generation: random; another one means that the book was lost and begun anew.
    :param times: when each slot was taken, store's time, ascending.
    :param processes: which process took it; a random number per process.
    :param paused_until: store's time.
    :param next_paced_at: store's time at which the next paced slot is due.
    :param overtakes: slots in a row that overtook an older ticket of a later priority.
    :param arrivals: number of tickets ever given out.
    :param virtual_times: by priority, the start tag of the ticket served last.
    :param served_at: by priority, when it last got a slot.
    """

    generation: int = field(default_factory=lambda: secrets.randbits(63))
    times: array[float] = field(default_factory=lambda: array("d"))
    processes: array[int] = field(default_factory=lambda: array("Q"))
    paused_until: float = 0.0
    next_paced_at: float = 0.0
    overtakes: int = 0
    arrivals: int = 0
    virtual_times: tuple[int, ...] = (0,) * len(Priority)
    served_at: tuple[float, ...] = (0.0,) * len(Priority)
    tickets: list[Ticket] = field(default_factory=list)

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever written into it."""
        return not self.times and not self.arrivals

    def expire(self, *, now: float, rules: Rules) -> None:
        """Drop slots that no longer count and waiters that count as dead."""
        while self.times and self.times[-1] > now:
            # The store's clock was set back: its future times were just now, at the latest.
            at = bisect.bisect_right(self.times, now)
            self.times[at:] = array("d", [now] * (len(self.times) - at))
        old = bisect.bisect_right(self.times, now - rules.slot_lifetime)
        del self.times[:old], self.processes[:old]
        latest = now + MAX_ASK_INTERVAL + TICKET_GRACE
        self.tickets = [ticket for ticket in self.tickets if now <= ticket.expires_at <= latest]
        self.next_paced_at = min(self.next_paced_at, now + rules.slot_lifetime)
        self.paused_until = min(self.paused_until, now + LONGEST_PAUSE)

    def ask(self, ticket: Ticket, *, process: int, now: float, rules: Rules) -> tuple[float, Ticket]:
        """
        Take a slot, or wait in the queue.

        :param ticket: from :meth:`new_ticket`, or from the last call.
        :return: 0 if the slot was taken; else the seconds after which to ask again, with the ticket returned here.
        """
        others = [other for other in self.tickets if other.number != ticket.number]
        queue = sorted([*others, ticket], key=lambda each: each.sort_key)
        overtaken = self._overtaken_too_often(queue)
        if overtaken is not None:
            queue.remove(overtaken)
            queue.insert(0, overtaken)
        is_overtaken = ticket == overtaken
        ahead = queue[: queue.index(ticket)]
        unpaced_at = self._unpaced_at(ticket.priority, process, rules)
        ready_at = max(self.paused_until, self._free_at(ticket, ahead, is_overtaken, rules))
        if not is_overtaken:
            ready_at = max(ready_at, min(unpaced_at, self._paced_at(ticket, ahead, rules)))
        if ready_at > now:
            wait = min(ready_at - now, MAX_ASK_INTERVAL)
            ticket = replace(ticket, expires_at=now + wait + TICKET_GRACE)
            self.tickets = [*others, ticket]
            return wait, ticket
        self.tickets = others
        self._count_overtake(ticket, others, is_overtaken)
        self._serve(ticket, now)
        if unpaced_at > now:
            # Slots that the pace was late by are made up for, a few at most.
            burst = (rules.urgent_reserve or 1) * rules.pace
            self.next_paced_at = max(self.next_paced_at, now - burst) + rules.pace
        self.add_slot(process=process, now=now)
        return 0.0, ticket

    def new_ticket(self, *, number: int, priority: Priority, after: int) -> Ticket:
        """
        Give out a ticket, to :meth:`ask` with.

        :param after: the start tag of the last ticket of this priority and process.
        """
        self.arrivals += 1
        start_tag = max(self.virtual_times[priority], after + 1)
        return Ticket(number=number, priority=priority, start_tag=start_tag, arrival=self.arrivals, expires_at=0.0)

    def cancel(self, number: int) -> None:
        """Take a waiter out of the queue."""
        self.tickets = [ticket for ticket in self.tickets if ticket.number != number]

    def add_slot(self, *, process: int, now: float) -> None:
        """Count a slot as taken, whatever the rules say."""
        self.times.append(now)
        self.processes.append(process)

    def pause(self, *, until: float) -> None:
        """Let nobody take a slot before that time; a longer pause stays."""
        self.paused_until = max(self.paused_until, until)

    def merge(self, other: Book) -> None:
        """Add the slots and the pause that another book has: this one was begun anew."""
        mine, theirs = (zip(book.times, book.processes, strict=True) for book in (self, other))
        both = sorted({*mine, *theirs})
        self.times = array("d", [time for time, _ in both])
        self.processes = array("Q", [process for _, process in both])
        self.pause(until=other.paused_until)

    def shift(self, seconds: float) -> None:
        """Move all times: the store's clock begins anew."""
        self.times = array("d", [time + seconds for time in self.times])
        self.served_at = (0.0,) * len(Priority)
        self.paused_until += seconds
        self.next_paced_at += seconds
        self.tickets = []

    def _overtaken_too_often(self, queue: list[Ticket]) -> Ticket | None:
        """Return the ticket that now goes first though its priority is later."""
        later = [each for each in queue if each.priority > queue[0].priority]
        if self.overtakes < MAX_OVERTAKES or not later:
            return None
        return min(later, key=lambda each: (self.served_at[each.priority], each.sort_key))

    def _count_overtake(self, ticket: Ticket, others: list[Ticket], is_overtaken: bool) -> None:
        overtakes = any(each.priority > ticket.priority and each.arrival < ticket.arrival for each in others)
        self.overtakes = self.overtakes + 1 if overtakes and not is_overtaken else 0

    def _serve(self, ticket: Ticket, now: float) -> None:
        virtual_times, served_at = list(self.virtual_times), list(self.served_at)
        virtual_times[ticket.priority] = max(virtual_times[ticket.priority], ticket.start_tag)
        served_at[ticket.priority] = now
        self.virtual_times, self.served_at = tuple(virtual_times), tuple(served_at)

    def _free_at(self, ticket: Ticket, ahead: list[Ticket], is_overtaken: bool, rules: Rules) -> float:
        """Return when the window has room for this ticket and all that are ahead of it."""
        may_use_reserve = ticket.priority == Priority.URGENT or is_overtaken
        room = rules.limit if may_use_reserve else rules.limit - rules.urgent_reserve
        last_to_expire = len(self.times) - room + len(ahead)
        if last_to_expire < 0 or not self.times:
            return 0.0
        return self.times[min(last_to_expire, len(self.times) - 1)] + rules.slot_lifetime

    def _unpaced_at(self, priority: int, process: int, rules: Rules) -> float:
        """Return from when on a process need not keep to the pace."""
        if priority == Priority.URGENT:
            return 0.0
        if priority == Priority.POLLING:
            return math.inf
        processes = self.processes.tolist()
        fair_share = math.ceil((rules.limit - rules.urgent_reserve) / len({*processes, process}))
        if processes.count(process) < fair_share:
            return 0.0
        own = [time for time, each in zip(self.times, processes, strict=True) if each == process]
        return own[-fair_share] + rules.slot_lifetime

    def _paced_at(self, ticket: Ticket, ahead: list[Ticket], rules: Rules) -> float:
        """Return when the pace has a slot for this ticket, after those ahead of it in its priority."""
        return self.next_paced_at + sum(each.priority == ticket.priority for each in ahead) * rules.pace

    _HEAD = struct.Struct("<QddQQ3Q3dII")
    _TICKET = struct.Struct("<QQQQd")

    def to_bytes(self) -> bytes:
        """Write the book down."""
        head = self._HEAD.pack(
            self.generation,
            self.paused_until,
            self.next_paced_at,
            self.overtakes,
            self.arrivals,
            *self.virtual_times,
            *self.served_at,
            len(self.times),
            len(self.tickets),
        )
        tickets = (
            self._TICKET.pack(each.number, each.priority, each.start_tag, each.arrival, each.expires_at)
            for each in self.tickets
        )
        return b"".join((head, self.times.tobytes(), self.processes.tobytes(), *tickets))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """
        Read a book.

        :raises ValueError: the bytes are not a whole book.
        """
        try:
            generation, paused, paced, overtakes, arrivals, *by_priority, slots, waiting = cls._HEAD.unpack_from(data)
            start, end = cls._HEAD.size, cls._HEAD.size + 8 * slots
            times, processes = array("d", data[start:end]), array("Q", data[end : end + 8 * slots])
            tickets = [
                Ticket(number=number, priority=priority, start_tag=start_tag, arrival=arrival, expires_at=expires_at)
                for number, priority, start_tag, arrival, expires_at in cls._TICKET.iter_unpack(data[end + 8 * slots :])
            ]
        except struct.error as error:
            raise ValueError(str(error)) from None
        if len(times) != slots or len(processes) != slots or len(tickets) != waiting:
            raise ValueError("it is cut short")
        return cls(
            generation=generation,
            times=times,
            processes=processes,
            paused_until=paused,
            next_paced_at=paced,
            overtakes=overtakes,
            arrivals=arrivals,
            virtual_times=tuple(by_priority[:3]),
            served_at=tuple(by_priority[3:]),
            tickets=tickets,
        )
