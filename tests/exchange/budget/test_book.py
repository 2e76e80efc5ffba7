"""The rules of the request budget, on a clock that is turned by hand."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quoine.exchange.budget.book import (
    LONGEST_PAUSE,
    MAX_ASK_INTERVAL,
    MAX_OVERTAKES,
    TICKET_GRACE,
    Book,
    Ticket,
)
from airflow_provider_quoine.exchange.budget.rules import Priority, Rules
from airflow_provider_quoine.exchange.errors import QuoineInputError
from tests.exchange.budget.processes import busiest

URGENT, NORMAL, POLLING = Priority


@dataclass
class Caller:
    """Somebody who asks again and again, and whose clock tells when."""

    process: int
    priority: Priority
    number: int
    ticket: Ticket | None = None
    at: float = 0.0
    began: float = 0.0
    waits: list[float] = field(default_factory=list)


class Exchange:
    """A book, and callers who keep to it."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.book = Book()
        self.now = 1000.0
        self.taken: list[tuple[float, Caller]] = []
        self.last_start_tags: Counter[tuple[int, Priority]] = Counter()

    def ask(self, caller: Caller) -> bool:
        """Ask once at the caller's time; True if it got its slot."""
        self.now = max(self.now, caller.at)
        self.book.expire(now=self.now, rules=self.rules)
        if caller.ticket is None:
            key = (caller.process, caller.priority)
            caller.ticket = self.book.new_ticket(
                number=caller.number, priority=caller.priority, after=self.last_start_tags[key] - 1
            )
            self.last_start_tags[key] = caller.ticket.start_tag + 1
            caller.began = self.now
        wait, caller.ticket = self.book.ask(caller.ticket, process=caller.process, now=self.now, rules=self.rules)
        # Through bytes and back, as every store does.
        self.book = Book.from_bytes(self.book.to_bytes())
        if wait > 0:
            caller.at = self.now + wait
            return False
        self.taken.append((self.now, caller))
        caller.waits.append(self.now - caller.began)
        caller.ticket = None
        return True

    def run(self, callers: list[Caller], *, until: float, answer: float = 0.001) -> None:
        """Let all callers ask until then; each asks anew so many seconds after it got its slot."""
        while callers:
            caller = min(callers, key=lambda each: each.at)
            if caller.at > until:
                return
            if self.ask(caller):
                caller.at = self.now + answer


def callers(*priorities: Priority, at: float = 1000.0) -> list[Caller]:
    """One caller per priority, each a process of its own."""
    return [Caller(process=nth, priority=each, number=nth, at=at) for nth, each in enumerate(priorities)]


def times(exchange: Exchange) -> list[float]:
    return [at for at, _ in exchange.taken]


@given(
    seed=st.integers(0, 10**6),
    limit=st.integers(1, 30),
    margin=st.sampled_from([0.0, 0.01, 0.2]),
    kinds=st.lists(st.sampled_from(list(Priority)), min_size=1, max_size=8),
)
@pytest.mark.long
def test_no_window_ever_holds_more_than_the_limit(seed: int, limit: int, margin: float, kinds: list[Priority]) -> None:
    chance = random.Random(seed)
    exchange = Exchange(Rules(limit=limit, window=10.0, margin=margin))
    everybody = callers(*kinds)
    for _ in range(400):
        caller = chance.choice(everybody)
        caller.at = exchange.now + chance.choice([0, 0, 0.01, 0.3, 2])
        if chance.random() < 0.05:
            caller.ticket = None
        if chance.random() < 0.02:
            exchange.book.pause(until=exchange.now + 1)
        exchange.ask(caller)
    assert busiest(times(exchange), 10.0 * (1 + margin) - 1e-6) <= limit


@pytest.mark.parametrize("priority", list(Priority))
def test_the_allowed_rate_is_used(priority: Priority) -> None:
    exchange = Exchange(Rules(limit=300, window=300))
    exchange.run(callers(*[priority] * 8), until=1900.0)
    assert len(exchange.taken) >= 0.97 * 900


@pytest.mark.parametrize(("priority", "ratio"), [(NORMAL, 1.25), (POLLING, 1.05)])
def test_processes_get_the_same_however_many_of_their_threads_wait(priority: Priority, ratio: float) -> None:
    exchange = Exchange(Rules(limit=300, window=300))
    crowd = [Caller(process=0, priority=priority, number=nth, at=1000.0) for nth in range(10)]
    alone = Caller(process=1, priority=priority, number=99, at=1000.0)
    exchange.run([*crowd, alone], until=1600.0)
    got = Counter(caller.process for _, caller in exchange.taken)
    assert max(got.values()) / min(got.values()) <= ratio


def test_who_alone_asks_has_all_there_is_though_others_have_asked_lately() -> None:
    exchange = Exchange(Rules(limit=300, window=300))
    others = callers(*[NORMAL] * 3)
    for other in others:
        exchange.ask(other)
    alone = Caller(process=9, priority=NORMAL, number=9, at=1000.0)
    exchange.run([alone], until=1001.0)
    assert len(alone.waits) >= 297 / 4
    exchange.run([alone], until=1290.0)
    assert len(alone.waits) == 294


@pytest.mark.long
def test_polling_takes_its_slots_at_an_even_pace_without_a_burst_at_start() -> None:
    exchange = Exchange(Rules(limit=300, window=300))
    exchange.run(callers(*[POLLING] * 50), until=1300.0)
    assert busiest(times(exchange), 30.0) <= 30 + exchange.rules.urgent_reserve + 1


def test_others_than_polling_may_use_an_empty_window_at_once_but_for_the_room_of_the_urgent() -> None:
    exchange = Exchange(Rules(limit=300, window=300))
    exchange.run(callers(NORMAL), until=1001.0)
    assert len(exchange.taken) == 297
    exchange.run(callers(URGENT, at=exchange.now), until=1001.1)
    assert len(exchange.taken) == 300


@pytest.mark.long
def test_who_is_urgent_waits_for_one_slot_while_polling_saturates() -> None:
    exchange = Exchange(Rules(limit=300, window=300))
    everybody = callers(*[POLLING] * 20)
    exchange.run(everybody, until=1700.0)
    urgent = Caller(process=77, priority=URGENT, number=77, at=1700.0)
    for _ in range(20):
        exchange.run([*everybody, urgent], until=exchange.now + 10, answer=0.5)
    assert len(urgent.waits) > 20
    assert max(urgent.waits) <= 2 * exchange.rules.pace


def greedy(*, at: float) -> list[Caller]:
    """Ten threads of one process that ask urgently and normally, without end."""
    kinds = [URGENT, NORMAL] * 5
    return [Caller(process=9, priority=kind, number=100 + n, at=at) for n, kind in enumerate(kinds)]


def test_polling_never_starves() -> None:
    exchange = Exchange(Rules(limit=300, window=300))
    polling = callers(POLLING)
    exchange.run(polling, until=1700.0)
    exchange.run([*polling, *greedy(at=1700.0)], until=2300.0)
    later = [caller.priority for at, caller in exchange.taken if at > 1700]
    # The fifth slot is shared by the two that wait behind the urgent.
    for each in (NORMAL, POLLING):
        assert later.count(each) / len(later) >= 0.4 / (MAX_OVERTAKES + 1)
    assert later.count(URGENT) / len(later) >= 0.75


@pytest.mark.long
def test_polling_does_not_starve_where_all_slots_of_a_window_become_free_at_once() -> None:
    exchange = Exchange(Rules(limit=300, window=300))
    polling = callers(POLLING)
    exchange.run([*polling, *greedy(at=1000.0)], until=3000.0)
    assert max(polling[0].waits) <= exchange.rules.slot_lifetime + 2 * MAX_ASK_INTERVAL


def test_a_waiter_that_died_is_passed_over() -> None:
    exchange = Exchange(Rules(limit=1, window=5, margin=0))
    first, dead, alive = callers(NORMAL, NORMAL, NORMAL)
    assert exchange.ask(first)
    assert not exchange.ask(dead)
    exchange.run([alive], until=1005.0 + MAX_ASK_INTERVAL)
    assert len(alive.waits) == 1


def test_a_waiter_that_comes_back_late_has_kept_its_place() -> None:
    exchange = Exchange(Rules(limit=1, window=50, margin=0))
    first, late, alive = callers(NORMAL, NORMAL, NORMAL)
    assert exchange.ask(first)
    assert not exchange.ask(late)
    exchange.run([alive], until=1049.5)
    exchange.ask(late)
    late.at = 1050.0
    assert exchange.ask(late)
    assert late.ticket is None


def test_a_pause_holds_everybody_for_its_time_and_two_of_them_for_the_longer_one() -> None:
    exchange = Exchange(Rules(limit=300, window=300))
    exchange.book.pause(until=1030.0)
    exchange.book.pause(until=1020.0)
    exchange.run(callers(URGENT, NORMAL, POLLING), until=1040.0)
    assert min(times(exchange)) == pytest.approx(1030.0, abs=0.01)


def test_a_book_begun_anew_learns_what_others_remember_once() -> None:
    rules, old, new = Rules(limit=5, window=10), Book(), Book()
    for at in (1.0, 2.0, 3.0):
        old.add_slot(process=1, now=at)
    old.pause(until=50.0)
    new.add_slot(process=2, now=2.5)
    new.merge(old)
    new.merge(old)
    assert list(new.times) == [1.0, 2.0, 2.5, 3.0]
    assert list(new.processes) == [1, 1, 2, 1]
    assert new.paused_until == 50.0
    new.expire(now=12.0, rules=rules)
    assert list(new.times) == [2.0, 2.5, 3.0]


def test_a_clock_that_was_set_back_neither_frees_slots_nor_keeps_them_for_ever() -> None:
    rules, book = Rules(limit=2, window=10, margin=0), Book()
    book.add_slot(process=1, now=5000.0)
    book.pause(until=90_000.0)
    book.expire(now=1000.0, rules=rules)
    assert list(book.times) == [1000.0]
    assert book.paused_until == 1000.0 + LONGEST_PAUSE


def test_tickets_live_as_long_as_their_owner_said_and_a_grace() -> None:
    exchange = Exchange(Rules(limit=1, window=100, margin=0))
    first, second = callers(NORMAL, NORMAL)
    exchange.ask(first)
    exchange.ask(second)
    exchange.book.expire(now=1000.0 + MAX_ASK_INTERVAL + TICKET_GRACE, rules=exchange.rules)
    assert len(exchange.book.tickets) == 1
    exchange.book.expire(now=1000.1 + MAX_ASK_INTERVAL + TICKET_GRACE, rules=exchange.rules)
    assert exchange.book.tickets == []


@pytest.mark.parametrize("cut", [0, 10, 100, -1])
def test_a_cut_book_is_none(cut: int) -> None:
    book = Book()
    book.add_slot(process=1, now=1.0)
    with pytest.raises(ValueError):
        Book.from_bytes(book.to_bytes()[:cut])


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"window": 0}, {"window": float("nan")}, {"margin": -0.1}])
def test_rules_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(QuoineInputError, match="request budget"):
        Rules(**wrong)  # type: ignore[arg-type]
