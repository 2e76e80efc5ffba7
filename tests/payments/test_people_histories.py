"""
The histories of one payment again, now with people who ask, approve, reject, stop and err, and a clock set back.

A person who errs records the id of another withdrawal. Nobody says that a payment does not exist that is there.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from sqlalchemy.exc import OperationalError

from airflow_provider_quoine.desk.settling import Key, Settling, Which
from airflow_provider_quoine.payments.approvals import Approvals, ApprovalsMissingError, Person
from airflow_provider_quoine.payments.attempt import Attempt
from airflow_provider_quoine.payments.ledger import SEND_WITHIN
from airflow_provider_quoine.payments.records import Head, Order, Payment
from airflow_provider_quoine.payments.refusals import LedgerUnusableError, PaymentRefusedError
from airflow_provider_quoine.payments.schema import IN_DOUBT, PAYMENTS, SENDABLE, Step
from airflow_provider_quoine.payments.transaction import Transaction
from tests.payments.memory import Memory
from tests.payments.test_payment_histories import IN_FLIGHT, OF_A_PART, ORDER, PARTS, Histories, Try

OTHER = replace(ORDER, amount=Decimal("0.1"))
WHICH = Which(reference=ORDER.reference)
WRONG = "99"
"""The id of a withdrawal that is none of this payment's."""
PEOPLE = ("alice", "bob", "carol")
UNASKED = "dave"
"""Somebody who starts no run."""


@dataclass(eq=False)
class Run(Try):
    """An attempt, the run that it is in, and what that run is about."""

    started_by: str = ""
    order: Order = ORDER


@dataclass
class Forgetful(Memory):
    """
    An Airflow whose database goes away at times.

    :param is_away: fails the next time.
    """

    is_away: bool = False

    def write(self, head: Head) -> None:
        """Take it, or fail."""
        if self.is_away:
            self.is_away = False
            raise OperationalError("UPDATE variable", {}, Exception("database is locked"))
        super().write(head)


class PeopleHistories(Histories):
    """Each withdrawal needs the approval of somebody who has not asked for it."""

    def __init__(self) -> None:
        super().__init__()
        self.set_back = 0.0
        self.ledger._clock = lambda _: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now - self.set_back)
        self.ledger._pin = self.airflow = Forgetful()
        self.desk = Settling(ledger=self.ledger, who="ann")
        self.policy: Any = SimpleNamespace(approvals=1, fingerprint="first policy")
        # The oracle: who has asked for it, and who has approved what under which policy since the last rejection.
        self.asked: set[str] = set()
        self.approved: defaultdict[tuple[Decimal, str], set[str]] = defaultdict(set)
        self.is_stopped = False
        self.is_ending = False

    def found(self) -> Payment | None:
        return self.ledger.find(ORDER)

    def approvals(self, run: Run) -> Approvals:
        return Approvals(
            ledger=self.ledger,
            order=run.order,
            connection="quoine_default",
            policy=lambda: self.policy,
            started_by=run.started_by,
            task=f"task of {run.started_by}",
        )

    # Runs.

    @precondition(lambda self: len(self.alive("ready", "sending", "out", "carried", "refused", "lost")) < 3)
    @rule(started_by=st.sampled_from(("", *PEOPLE)), order=st.sampled_from([None, ORDER, OTHER]))
    def begin(self, started_by: str = "", order: Order | None = None) -> None:
        found = self.found()
        order = order or (found.order if found else ORDER)
        attempt = Attempt(ledger=self.ledger, order=order, task="task", clock=lambda: self.now)
        run = Run(attempt, started_by=started_by, order=order)
        with contextlib.suppress(PaymentRefusedError, LedgerUnusableError):
            try:
                if attempt.begin().step in SENDABLE:
                    self.tries.append(run)
            finally:
                self.approvals(run).note_run()
                if started_by and self.found():
                    self.asked.add(started_by)

    def allow(self, one: Try) -> Callable[[Transaction], str]:
        assert isinstance(one, Run)
        approvals = self.approvals(one)
        if self.is_ending:
            self.answer_question(one, UNASKED)

        def allow(at: Transaction) -> str:
            approvals.check_in(at, self.policy)
            return str(self.policy.fingerprint)

        return allow

    @precondition(lambda self: self.alive("ready"))
    @rule(data=st.data(), forgets=st.booleans())
    def start(self, data: st.DataObject, forgets: bool = False) -> None:
        run = self.one(data, self.alive("ready"))
        assert isinstance(run, Run)
        self.airflow.is_away = forgets
        try:
            run.attempt.start(in_flight=timedelta(seconds=IN_FLIGHT), allow=self.allow(run))
        except ApprovalsMissingError:
            pass
        except (PaymentRefusedError, LedgerUnusableError):
            run.at = "done"
        else:
            run.at = "sending"
            assert self.approved[run.order.amount, self.policy.fingerprint] - self.asked
            assert not self.is_stopped
        self.airflow.is_away = False

    @precondition(lambda self: self.alive("sending"))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        under_way = len(self.at("out"))
        super().leave(data)
        assert not self.is_stopped or len(self.at("out")) == under_way

    @precondition(lambda self: not self.alive("ready", "sending", "out", "carried", "refused", "lost"))
    @rule(
        data=st.data(),
        outcome=st.sampled_from(["carried", "carried, lost", "refused", "lost"]),
        before=st.sampled_from(["", "err", "set_the_clock_back", "stop"]),
        meanwhile=st.sampled_from(["", "err", "hold", "find_nothing", "stop"]),
    )
    def try_without_a_break(self, data: st.DataObject, outcome: str, before: str = "", meanwhile: str = "") -> None:
        self.begin()
        for run in self.alive("ready"):
            assert isinstance(run, Run)
            self.answer_question(run, UNASKED)
            self.start(data)
        if self.alive("sending"):
            self.befall(before)
            self.leave(data)
        if self.alive("out"):
            self.befall(before)
            self.answer(data, outcome)
            # The attempt is frozen before it writes the result.
            self.pass_time(100.0)
            self.befall(meanwhile)
        if self.alive("carried", "refused", "lost"):
            self.write_result(data)

    def befall(self, what: str) -> None:
        if what and not (what == "stop" and self.is_stopped) and not (what == "err" and self.has_erred()):
            getattr(self, what)()

    @precondition(lambda self: self.step() == Step.SENT)
    @rule()
    def go_on(self) -> None:
        """A task looks the id up, and says that it goes on with it."""
        found = self.found()
        assert found is not None
        if found.exchange_id in ("20", "77"):
            with contextlib.suppress(PaymentRefusedError, LedgerUnusableError):
                self.ledger.confirm(found.order, exchange_id=found.exchange_id, task="task")

    # People who approve and reject.

    @precondition(lambda self: self.alive("ready"))
    @rule(data=st.data(), name=st.sampled_from((*PEOPLE, UNASKED)), is_asked=st.booleans())
    def approve(self, data: st.DataObject, name: str, is_asked: bool) -> None:
        run = self.one(data, self.alive("ready"))
        assert isinstance(run, Run)
        self.answer_question(run, name, is_asked=is_asked)

    def answer_question(self, run: Run, name: str, *, is_asked: bool = True) -> None:
        """
        Approve as a person.

        :param is_asked: anew; else the last question was under whatever policy.
        """
        approvals = self.approvals(run)
        with contextlib.suppress(PaymentRefusedError, LedgerUnusableError):
            if is_asked:
                approvals.ask("the payment")
            if not approvals.approve(Person(user_id=name, name=name.upper())):
                assert name not in self.asked
                self.approved[run.order.amount, self.policy.fingerprint].add(name)

    @precondition(lambda self: self.alive("ready"))
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        run = self.one(data, self.alive("ready"))
        assert isinstance(run, Run)
        with contextlib.suppress(LedgerUnusableError):
            self.approvals(run).reject(Person(user_id="carol", name="carol"))
            self.approved.clear()

    @precondition(lambda self: self.alive("ready"))
    @rule()
    def change_policy(self) -> None:
        other = {"first policy": "second policy", "second policy": "first policy"}
        self.policy.fingerprint = other[self.policy.fingerprint]

    # People who stop, and a clock that is set back.

    @precondition(lambda self: not self.is_stopped and self.alive("sending", "out"))
    @rule()
    def stop(self) -> None:
        def sleep(seconds: float) -> None:
            assert 0 <= seconds <= SEND_WITHIN.total_seconds()
            self.pass_time(seconds)

        with contextlib.suppress(LedgerUnusableError), mock.patch("time.sleep", sleep):
            self.ledger.stop(who="ann", why="a key was stolen")
            self.is_stopped = True

    @precondition(lambda self: self.is_stopped)
    @rule()
    def resume(self) -> None:
        with contextlib.suppress(LedgerUnusableError):
            self.ledger.resume(who="ann", why="the key is replaced")
            self.is_stopped = False

    @precondition(lambda self: self.alive("sending", "out"))
    @rule(seconds=st.sampled_from([3.0, 100.0, 3600.0]))
    def set_the_clock_back(self, seconds: float = 3600.0) -> None:
        self.set_back += seconds

    # People who settle.

    @precondition(lambda self: self.step() != Step.HELD)
    @rule()
    def hold(self) -> None:
        if self.found() is None:
            super().hold()
        elif not self.exchange.carried or self.step() in IN_DOUBT:
            with contextlib.suppress(PaymentRefusedError, LedgerUnusableError):
                self.desk.hold(WHICH, why="to be paid at the bank")

    def find_nothing(self) -> None:
        if not self.exchange.carried:
            self.say_absent(*PEOPLE)

    def say_absent(self, *people: str) -> None:
        with contextlib.suppress(PaymentRefusedError, LedgerUnusableError):
            for who in people:
                Settling(ledger=self.ledger, who=who).absent(WHICH, why="not there")

    @precondition(lambda self: self.step() in IN_DOUBT and not self.exchange.carried)
    @rule(who=st.sampled_from(PEOPLE))
    def say_absent_alone(self, who: str) -> None:
        self.say_absent(who)

    @precondition(lambda self: self.step() in {*IN_DOUBT, Step.HELD})
    @rule()
    def err(self) -> None:
        """Record another withdrawal's id, also while the request is on its way."""
        with contextlib.suppress(LedgerUnusableError):
            self.desk.exists(WHICH, exchange_id=WRONG, why="the wrong line", key=Key())

    def has_erred(self) -> bool:
        # As step(), for each rule before each step.
        return bool(self.raw.execute(f"SELECT 1 FROM {PAYMENTS.name} WHERE exchange_id = ?", [WRONG]).fetchone())

    @precondition(lambda self: self.has_erred())
    @rule()
    def mend(self) -> None:
        """Find the mistake, by what the exchange has."""
        if self.exchange.carried:
            with contextlib.suppress(LedgerUnusableError):
                self.desk.exists(WHICH, exchange_id="77" if self.by_hand else "20", why="the right line", key=Key())
                self.by_hand = False
                assert not self.has_erred()
                assert self.ledger.late_ids() == {}
            return
        self.say_absent(*PEOPLE)
        if self.has_erred():
            # It was not in doubt, or is on its way.
            self.hold()

    @precondition(lambda self: self.alive("carried", "refused", "lost"))
    @rule(data=st.data())
    def write_result(self, data: st.DataObject) -> None:
        carried = self.alive("carried")
        super().write_result(data)
        is_written = any(one.at == "done" for one in carried)
        if is_written and self.newest is None and self.step() != Step.SENDING:
            found = self.found()
            assert found is not None
            # The exchange's id is in the ledger, or whoever looks is told that there is another one.
            assert (found.exchange_id == "20") != (list(self.ledger.late_ids().values()) == ["20"])

    def teardown(self) -> None:
        """Set the clock right, mend what was done wrong, and let it end as before."""
        self.is_ending = True
        if self.newest is not None:
            self.put_back()
        for one in self.at("out"):
            one.at = "lost"
        self.now += self.set_back + 1000
        if self.is_stopped:
            self.resume()
        if self.has_erred():
            self.mend()
        super().teardown()
        assert self.ledger.late_ids() == {}


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_history_with_people_pays_twice_or_unapproved_or_is_stuck(part: int) -> None:
    run_state_machine_as_test(
        PeopleHistories,
        settings=settings(
            max_examples=OF_A_PART,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
