"""
The real code of the ledger against every kind of history: tries, freezes, kills, settling, payments by hand, restores.

The protocol is explored completely as a model elsewhere; this is the code. A frozen attempt is one that is not
scheduled.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import ceil
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from airflow_provider_quoine.payments.attempt import Attempt, QuoineTooLateError, step_after
from airflow_provider_quoine.payments.database import open_sqlite
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.records import Order
from airflow_provider_quoine.payments.refusals import LedgerUnusableError, PaymentRefusedError
from airflow_provider_quoine.payments.schema import IN_DOUBT, PAYMENTS, SENDABLE, Kind, Step
from airflow_provider_quoine.payments.transaction import Transaction
from tests.payments.memory import Memory
from tests.support.histories import HISTORIES

#: So that no process is left with all of them.
PARTS = 2
#: Histories of a part. Half of all are with people who err (test_people_histories.py).
OF_A_PART = ceil(HISTORIES / 2 / PARTS)
IN_FLIGHT = 60.0
ORDER = Order(
    exchange="https://exchange",
    kind=Kind.WITHDRAWAL,
    reference="invoice-1",
    account="25",
    address="1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj",
    amount=Decimal("0.5"),
)


@dataclass(eq=False)
class Try:
    """An attempt and how far it is: ready, sending, out, and then what the exchange answered."""

    attempt: Attempt
    at: str = "ready"
    dead: bool = False
    left_at: float = 0.0


@dataclass
class Exchange:
    """The oracle: what was carried out, by whomever."""

    carried: list[str] = field(default_factory=list)


class Histories(RuleBasedStateMachine):
    """One payment reference, an honest person, and an exchange that carries out, refuses, or loses."""

    def __init__(self) -> None:
        super().__init__()
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        self.now = 0.0
        self.memory = Memory()
        self.ledger = Ledger(
            open_sqlite(engine),
            pin=self.memory,
            clock=lambda _: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now),
        )
        self.raw: Any = engine.raw_connection().driver_connection
        self.exchange = Exchange()
        self.tries: list[Try] = []
        self.by_hand = False
        self.backup: sqlite3.Connection | None = None
        self.newest: sqlite3.Connection | None = None

    # What an attempt does.

    @precondition(lambda self: len(self.alive("ready", "sending", "out", "carried", "refused", "lost")) < 3)
    @rule()
    def begin(self) -> None:
        attempt = Attempt(ledger=self.ledger, order=ORDER, task="task", clock=lambda: self.now)
        with contextlib.suppress(PaymentRefusedError, LedgerUnusableError):
            if attempt.begin().step in SENDABLE:
                self.tries.append(Try(attempt))

    def at(self, *states: str) -> list[Try]:
        return [each for each in self.tries if each.at in states]

    def alive(self, *states: str) -> list[Try]:
        return [each for each in self.at(*states) if not each.dead]

    def one(self, data: st.DataObject, tries: list[Try]) -> Try:
        return tries[data.draw(st.integers(0, len(tries) - 1))]

    def allow(self, one: Try) -> Callable[[Transaction], str]:
        """What reads the policy anew for an attempt."""
        return lambda _: "policy"

    @precondition(lambda self: self.alive("ready"))
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        one = self.one(data, self.alive("ready"))
        try:
            one.attempt.start(in_flight=timedelta(seconds=IN_FLIGHT), allow=self.allow(one))
        except (PaymentRefusedError, LedgerUnusableError):
            one.at = "done"
        else:
            one.at = "sending"

    @precondition(lambda self: self.alive("sending"))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        one = self.one(data, self.alive("sending"))
        try:
            one.attempt.check_in_time()
        except QuoineTooLateError as error:
            with contextlib.suppress(LedgerUnusableError):
                one.attempt.finish(step_after(error))
            one.at = "done"
        else:
            one.at, one.left_at = "out", self.now

    @precondition(lambda self: self.alive("ready", "sending", "out", "carried", "refused", "lost"))
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        self.one(data, self.alive("ready", "sending", "out", "carried", "refused", "lost")).dead = True

    @precondition(lambda self: self.alive("carried", "refused", "lost"))
    @rule(data=st.data())
    def write_result(self, data: st.DataObject) -> None:
        one = self.one(data, self.alive("carried", "refused", "lost"))
        step = {"carried": Step.SENT, "refused": Step.REFUSED, "lost": Step.UNKNOWN}[one.at]
        with contextlib.suppress(LedgerUnusableError):
            one.attempt.finish(step, exchange_id="20" if step == Step.SENT else None)
        one.at = "done"

    @precondition(lambda self: not self.alive("ready", "sending", "out", "carried", "refused", "lost"))
    @rule(data=st.data(), outcome=st.sampled_from(["carried", "carried, lost", "refused", "lost"]))
    def try_without_a_break(self, data: st.DataObject, outcome: str) -> None:
        self.begin()
        for step in (self.start, self.leave):
            if self.tries and not self.tries[-1].dead and self.tries[-1].at in ("ready", "sending"):
                step(data)
        if self.tries and self.tries[-1].at == "out" and not self.tries[-1].dead:
            self.answer(data, outcome)
            self.write_result(data)

    # What the exchange does: a request under way goes on even if its sender is dead.

    @precondition(lambda self: self.at("out"))
    @rule(data=st.data(), outcome=st.sampled_from(["carried", "carried, lost", "refused", "lost"]))
    def answer(self, data: st.DataObject, outcome: str) -> None:
        one = self.one(data, self.at("out"))
        if outcome.startswith("carried"):
            self.exchange.carried.append("by Airflow")
        one.at = "lost" if outcome.endswith("lost") else outcome

    @rule(seconds=st.sampled_from([1.0, 4.0, 30.0, 100.0]))
    def pass_time(self, seconds: float) -> None:
        # No request is under way for longer than its bound.
        for one in self.at("out"):
            seconds = min(seconds, one.left_at + IN_FLIGHT - self.now)
        self.now += seconds

    # What a person does.

    def step(self) -> str | None:
        # Hypothesis asks before each step which rules may be next, and asks here four times.
        found = self.raw.execute(f"SELECT step FROM {PAYMENTS.name}").fetchone()
        return None if found is None else str(found[0])

    @precondition(lambda self: self.step() in IN_DOUBT)
    @rule()
    def look(self) -> None:
        self.find_it_there()
        self.find_nothing()

    def find_it_there(self) -> None:
        if self.exchange.carried and not self.by_hand:
            with contextlib.suppress(PaymentRefusedError, LedgerUnusableError):
                self.ledger.exists(ORDER, exchange_id="20", who="ann", why="found")

    def find_nothing(self) -> None:
        if not self.exchange.carried:
            with contextlib.suppress(PaymentRefusedError, LedgerUnusableError):
                self.ledger.absent(ORDER, who="ann", why="not there")

    @precondition(lambda self: self.step() != Step.HELD)
    @rule()
    def hold(self) -> None:
        # After having looked at the exchange; or, in doubt, so that nobody sends it before.
        if not self.exchange.carried or self.step() in IN_DOUBT:
            with contextlib.suppress(PaymentRefusedError, LedgerUnusableError):
                self.ledger.hold(ORDER, who="ann", why="to be paid at the bank")

    @precondition(lambda self: self.newest is None and self.step() == Step.HELD and not self.exchange.carried)
    @rule()
    def pay_by_hand(self) -> None:
        self.exchange.carried.append("by hand")
        self.by_hand = True

    @precondition(lambda self: self.step() == Step.HELD)
    @rule()
    def record_or_release(self) -> None:
        with contextlib.suppress(LedgerUnusableError):
            if self.by_hand:
                self.ledger.exists(ORDER, exchange_id="77", who="ann", why="paid at the bank")
                self.by_hand = False
            else:
                self.ledger.release(ORDER, who="ann", why="not paid after all")

    # What befalls the ledger's database.

    def copy(self) -> sqlite3.Connection:
        copy = sqlite3.connect(":memory:")
        self.raw.backup(copy)
        return copy

    @precondition(lambda self: self.newest is None)
    @rule()
    def back_up(self) -> None:
        self.backup = self.copy()

    @precondition(lambda self: self.newest is None and self.backup is not None)
    @rule()
    def restore(self) -> None:
        assert self.backup is not None
        self.newest = self.copy()
        self.backup.backup(self.raw)

    @precondition(lambda self: self.newest is not None)
    @rule()
    def put_back(self) -> None:
        assert self.newest is not None
        present, newest, self.newest = self.copy(), self.newest, None
        newest.backup(self.raw)
        try:
            with self.ledger.transaction():
                pass
        except LedgerUnusableError:
            # The backup was as new as Airflow's memory, so payments went on in it: it is the newest now.
            present.backup(self.raw)

    @invariant()
    def at_most_one_payment(self) -> None:
        assert len(self.exchange.carried) <= 1, self.exchange.carried

    @rule()
    def verify(self) -> None:
        faults = self.ledger.faults()
        # Of a restored ledger the end is missing, and that is all.
        assert faults == [] or (self.newest is not None and len(faults) == 1 and "Airflow remembers" in faults[0])

    def teardown(self) -> None:
        """Whatever happened, an honest person and one more attempt bring it to its end."""
        if self.newest is not None:
            self.put_back()
        for one in self.at("out"):
            one.at = "lost"
        self.now += 1000
        if self.step() == Step.HELD:
            self.record_or_release()
        if self.step() in IN_DOUBT:
            self.look()
        if not self.exchange.carried:
            self.tries.clear()
            self.begin()
            (one,) = self.tries
            one.attempt.start(in_flight=timedelta(seconds=IN_FLIGHT), allow=self.allow(one))
            one.attempt.check_in_time()
            self.exchange.carried.append("by Airflow")
            assert one.attempt.finish(Step.SENT, exchange_id="20")
        assert self.step() == Step.SENT
        assert len(self.exchange.carried) == 1
        self.verify()


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_history_pays_twice_or_is_stuck(part: int) -> None:
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=OF_A_PART,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
