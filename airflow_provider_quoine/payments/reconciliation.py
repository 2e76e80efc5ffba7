"""
Reconciliation: looks up the ledger's payments at the exchange, and says what differs.

The exchange has no list of withdrawals, so each one is looked up by its id, with the key that signed it. Those whose
turn was longest ago come first, so the next run makes good for one that was cut off.
"""

from __future__ import annotations

import json
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowNotFoundException
from sqlalchemy import and_, case, or_, select, update

from airflow_provider_quoine.exchange.budget.rules import Priority
from airflow_provider_quoine.exchange.errors import (
    QuoineAnswerLostError,
    QuoineConnectionError,
    QuoineError,
    QuoineInputError,
    QuoineNotFoundError,
    QuoineRateLimitedError,
    QuoineServiceUnavailableError,
)
from airflow_provider_quoine.exchange.models import (
    WITHDRAWAL_FAILURE_STATES,
    WITHDRAWAL_SUCCESS_STATES,
    WithdrawalOrder,
    WithdrawalState,
)
from airflow_provider_quoine.hooks.quoine import READ_ATTEMPTS, QuoineHook
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.records import Order, Payment
from airflow_provider_quoine.payments.refusals import paid_twice
from airflow_provider_quoine.payments.schema import EVENTS, IN_DOUBT, PAYMENTS, Kind, Note, Step
from airflow_provider_quoine.payments.transaction import Transaction, as_text, is_for, late_ids, payment_of
from airflow_provider_quoine.payments.withdrawals import differs, exchange_of

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

    from airflow_provider_quoine.exchange.models import Withdrawal
    from airflow_provider_quoine.exchange.rest.client import QuoineClient

FINAL = WITHDRAWAL_SUCCESS_STATES | WITHDRAWAL_FAILURE_STATES

STAGES: tuple[frozenset[str], ...] = (
    frozenset(
        {
            WithdrawalState.PENDING,
            WithdrawalState.AWAITING_CONFIRMATION,
            WithdrawalState.FILED,
            WithdrawalState.TO_BE_REVIEWED,
        }
    ),
    frozenset({WithdrawalState.APPROVED}),
    frozenset({WithdrawalState.PROCESSING}),
    frozenset({WithdrawalState.BROADCASTED}),
    FINAL,
)
"""The order in which a withdrawal goes through its states (decisions, Reconciliation)."""

AT_ONCE = 100
"""Payments that are in memory, and whose results are written together."""

SILENT_AFTER = 5
"""Payments in a row of a connection, after whose failures it is not asked any more (decisions, Reconciliation)."""

MOST_KEPT = 1000
"""Findings that are kept in words, the worst; more are only counted."""


_NO_ANSWER = (
    QuoineConnectionError,
    QuoineAnswerLostError,
    QuoineRateLimitedError,
    QuoineServiceUnavailableError,
)
# A host that cannot be read is a ValueError.
_NO_CLIENT = (QuoineInputError, AirflowNotFoundException, ValueError)

_KEY = (PAYMENTS.c.exchange, PAYMENTS.c.kind, PAYMENTS.c.reference)
_NOT_THERE = frozenset({Step.PREPARED, Step.REFUSED})
"""Payments that are not at the exchange."""
_OTHER_ID = frozenset({str(Step.SENT), "exists", "absent"})
"""Events after which a payment has another id at the exchange, or none."""

_Key = tuple[str, str, str]
"""Of a payment: exchange, kind and reference."""


class FindingKind(StrEnum):
    """What is wrong with a payment, the worst first."""

    PAID_TWICE = "paid_twice"
    MISSING = "missing"
    CHANGED = "changed"
    BACKWARDS = "backwards"
    STUCK = "stuck"
    IN_DOUBT = "in_doubt"
    NOT_LOOKED_UP = "not_looked_up"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """
    Something that is wrong with a payment.

    :param kind: what.
    :param payment: as the ledger had it.
    :param state: the exchange's state, as seen now; empty if it was not.
    :param what: in words, for a person.
    """

    kind: FindingKind
    payment: Payment
    state: str
    what: str

    def as_dict(self) -> dict[str, str]:
        """Give it as JSON-able text, without amount and address."""
        return {
            "kind": str(self.kind),
            "payment": str(self.payment.order.kind),
            "reference": self.payment.order.reference,
            "exchange": self.payment.order.exchange,
            "id": self.payment.exchange_id or "",
            "step": self.payment.step,
            "state": self.state,
        }


@dataclass
class Report:
    """
    What a reconciliation has found.

    :param payments: how many were judged.
    :param looked_up: how many the exchange has answered for.
    :param counts: findings, by kind.
    :param findings: the worst :data:`MOST_KEPT` of them, the worst first.
    :param answered: the connections that have answered once.
    :param unanswered: requests in a row that a connection has not answered.
    :param why: the last failure of a connection that did not answer.
    :param silent: the connections that are not asked any more, or have never answered, and why.
    """

    payments: int = 0
    looked_up: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    unanswered: Counter[str] = field(default_factory=Counter)
    why: dict[str, str] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        """Take a finding."""
        self.counts[str(finding.kind)] += 1
        insort(self.findings, finding, key=_badness)
        del self.findings[MOST_KEPT:]

    def take_answer(self, conn_id: str, error: QuoineError | None) -> None:
        """
        Take how a look-up by a connection ended.

        :param error: None if the exchange has answered.
        """
        if not isinstance(error, _NO_ANSWER):
            self.answered.add(conn_id)
            self.unanswered[conn_id] = 0
            return
        self.unanswered[conn_id] += 1
        self.why[conn_id] = as_sentence(error)
        if self.unanswered[conn_id] == SILENT_AFTER:
            self.silent[conn_id] = self.why[conn_id]

    def end(self) -> None:
        """Count a connection as silent that was asked less often than :data:`SILENT_AFTER` and has never answered."""
        self.silent |= {conn_id: why for conn_id, why in self.why.items() if conn_id not in self.answered}

    def as_dict(self) -> dict[str, int]:
        """Give the counts."""
        return {
            "payments": self.payments,
            "looked_up": self.looked_up,
            "findings": self.counts.total(),
            **{str(kind): self.counts[kind] for kind in FindingKind},
        }


def _badness(finding: Finding) -> int:
    return list(FindingKind).index(finding.kind)


@dataclass(frozen=True, kw_only=True)
class Reconciliation:
    """
    Compares the ledger with the exchange.

    :param ledger: whose payments are looked up.
    :param final_for: a payment that was seen final is looked up for so long after that.
    :param stuck_after: a payment that is not final after so long is a finding.
    :param actor: who does it, for the ledger's events.
    """

    ledger: Ledger
    final_for: timedelta
    stuck_after: timedelta
    actor: str

    def run(self, report: Report | None = None) -> Report:
        """
        Look up every payment that is not final, and every final one of the last days.

        :param report: to have what was found even if the run is broken off; a new one by default.
        :raises LedgerUnusableError: if the ledger cannot be used.
        """
        report = report or Report()
        with self.ledger.transaction() as at:
            began = at.now
        due = self._due(began)
        for start in range(0, len(due), AT_ONCE):
            batch = self._next(due[start : start + AT_ONCE])
            _Batch(reconciliation=self, began=began, report=report).judge(batch)
        report.end()
        return report

    def _due(self, began: datetime) -> list[_Key]:
        """Return the payments of this run: no clock, and no other run, can take one away from it."""
        first = datetime.min.replace(tzinfo=UTC)
        final_since = began - self.final_for if began - first > self.final_for else first
        sent = and_(
            PAYMENTS.c.kind == Kind.WITHDRAWAL,
            PAYMENTS.c.step == Step.SENT,
            or_(PAYMENTS.c.state.not_in(FINAL), PAYMENTS.c.changed_at >= as_text(final_since)),
        )
        # Prepared and refused ones are not at the exchange, and may stay so for ever.
        twice = [is_for(order) for order in self.ledger.late_ids()]
        due = select(*_KEY).where(or_(sent, PAYMENTS.c.step.not_in({Step.SENT, *_NOT_THERE}), *twice))
        # What was looked up after now was looked up by a wrong clock.
        turn = case((PAYMENTS.c.looked_up_at > as_text(began), ""), else_=PAYMENTS.c.looked_up_at)
        with self.ledger.transaction() as at:
            return [tuple(row) for row in at.connection.execute(due.order_by(turn, PAYMENTS.c.created_at))]

    def _next(self, due: list[_Key]) -> list[_Known]:
        # As they stand now: some may have been settled since the run began.
        query = select(PAYMENTS).where(
            PAYMENTS.c.reference.in_([reference for *_, reference in due]), PAYMENTS.c.step.not_in(_NOT_THERE)
        )
        with self.ledger.transaction() as at:
            rows = {tuple(row[column.name] for column in _KEY): row for row in at.connection.execute(query).mappings()}
            before = _states_before(at, [reference for *_, reference in due])
            late = late_ids(at.connection, EVENTS.c.reference.in_([reference for *_, reference in due]))
            rows = {key: rows[key] for key in due if key in rows}
            twins = _twins(at, [row["exchange_id"] for row in rows.values() if row["exchange_id"]])
        return [_Known.of(row, before[key], twins, late) for key, row in rows.items()]


@dataclass(frozen=True, kw_only=True)
class _Known:
    """
    A payment, and what the ledger knows of its past.

    :param since: when its last step began; for one that was sent, when sending began.
    :param before: the states in which the exchange had it, the oldest first.
    :param twins: references of other payments that the ledger has under the same id.
    :param late_id: another id, with which the exchange has answered late; empty if it has not.
    """

    payment: Payment
    since: datetime
    before: tuple[str, ...]
    twins: tuple[str, ...]
    late_id: str

    @classmethod
    def of(
        cls,
        row: RowMapping,
        before: list[str],
        by_id: dict[tuple[str, str, str], list[str]],
        late: dict[Order, str],
    ) -> _Known:
        payment = payment_of(row)
        began = row["reserved_at"] if row["step"] == Step.SENT else None
        same = by_id[row["exchange"], row["kind"], row["exchange_id"]]
        return cls(
            payment=payment,
            since=datetime.fromisoformat(began or row["changed_at"]),
            before=tuple(before),
            twins=tuple(reference for reference in same if reference != row["reference"]),
            late_id=late.get(payment.order, ""),
        )

    @property
    def can_be_looked_up(self) -> bool:
        """Whether it can be looked up: a user's look-up takes the user's password."""
        return (self.payment.order.kind, self.payment.step) == (Kind.WITHDRAWAL, Step.SENT)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a client is opened for."""
        order = self.payment.order
        return order.conn_id, order.credentials_variable, order.exchange, order.account


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Judges some payments, and writes down what was seen."""

    reconciliation: Reconciliation
    began: datetime
    report: Report

    def judge(self, batch: list[_Known]) -> None:
        """Look up what can be, key by key, so that one client is open at a time."""
        seen: dict[Order, str] = {}
        skipped: set[Order] = set()
        for known in batch:
            if known.late_id:
                self._find(known, FindingKind.PAID_TWICE, paid_twice(known.late_id))
        sent = [known for known in batch if known.can_be_looked_up]
        for _, group in groupby(sorted(sent, key=lambda known: known.key), key=lambda known: known.key):
            for known, withdrawal in self._look_up(list(group), skipped):
                seen[known.payment.order] = withdrawal.state
                self._compare(known, withdrawal)
        for known in batch:
            if known.payment.step != Step.SENT:
                self._judge_unsent(known)
        self.report.payments += len(batch)
        self._write([known for known in batch if known.payment.order not in skipped], seen)

    def _look_up(self, group: list[_Known], skipped: set[Order]) -> Iterator[tuple[_Known, Withdrawal]]:
        conn_id = group[0].payment.order.conn_id
        with ExitStack() as opened:
            try:
                client = opened.enter_context(_open(group[0].payment.order))
            except _NO_CLIENT as error:
                for known in group:
                    self._find(known, FindingKind.NOT_LOOKED_UP, as_sentence(error))
                return
            for known in group:
                if conn_id in self.report.silent:
                    # It comes before those that were asked for, the next time.
                    skipped.add(known.payment.order)
                    self._find(known, FindingKind.NOT_LOOKED_UP, self.report.silent[conn_id])
                    continue
                try:
                    withdrawal = client.get_withdrawal(withdrawal_id=str(known.payment.exchange_id))
                except QuoineError as error:
                    self._find_failed(known, error)
                    self.report.take_answer(conn_id, error)
                else:
                    self.report.take_answer(conn_id, None)
                    self.report.looked_up += 1
                    yield known, withdrawal

    def _find_failed(self, known: _Known, error: QuoineError) -> None:
        # A 404 in other words than the exchange's is of something in between, which knows no withdrawal.
        if isinstance(error, QuoineNotFoundError) and error.explained:
            self.report.looked_up += 1
            self._find(known, FindingKind.MISSING, "the exchange does not know this id")
        else:
            self._find(known, FindingKind.NOT_LOOKED_UP, as_sentence(error))

    def _compare(self, known: _Known, withdrawal: Withdrawal) -> None:
        state, further = withdrawal.state, _further(known.before, withdrawal.state)
        if difference := _difference(known.payment, withdrawal):
            self._find(known, FindingKind.CHANGED, difference, state)
        elif known.twins:
            self._find(known, FindingKind.CHANGED, f"the ledger has {known.twins[0]!r} under this id too", state)
        if further:
            self._find(known, FindingKind.BACKWARDS, f"it was {further} at the exchange, and is {state} now", state)
        elif state not in FINAL and self._is_old(known):
            self._find(known, FindingKind.STUCK, f"it is {state} at the exchange; sent {since(known.since)}", state)

    def _judge_unsent(self, known: _Known) -> None:
        payment = known.payment
        if not self._is_old(known):
            return
        if payment.step in IN_DOUBT:
            words = f"sent by {payment.task}; in doubt since {since(known.since)}: {as_sentence(payment.reason)}"
            self._find(known, FindingKind.IN_DOUBT, words)
        else:
            self._find(known, FindingKind.STUCK, f"{payment.step} since {since(known.since)}: {payment.reason}")

    def _is_old(self, known: _Known) -> bool:
        return self.began - known.since > self.reconciliation.stuck_after

    def _find(self, known: _Known, kind: FindingKind, what: str, state: str = "") -> None:
        self.report.add(Finding(kind=kind, payment=known.payment, state=state, what=what))

    def _write(self, batch: list[_Known], seen: dict[Order, str]) -> None:
        """Write down when each was looked up, and each state that is new."""
        with self.reconciliation.ledger.transaction() as at:
            for known in batch:
                order, actor = known.payment.order, self.reconciliation.actor
                at.connection.execute(update(PAYMENTS).where(is_for(order)).values(looked_up_at=as_text(at.now)))
                if order in seen:
                    at.see(order, exchange_id=known.payment.exchange_id, state=seen[order], actor=actor)


def _open(order: Order) -> QuoineClient:
    """
    Open a client that can look a payment up.

    :raises QuoineInputError: if the connection or its key leads elsewhere than the payment, or is incomplete.
    :raises AirflowNotFoundException: if there is no such connection.
    """
    if not order.conn_id:
        raise QuoineInputError("the ledger does not know by which connection it was sent")
    hook = QuoineHook(order.conn_id, credentials_variable=order.credentials_variable or None)
    if (exchange_of(hook), hook.account) != (order.exchange, order.account):
        raise QuoineInputError(
            f"connection {order.conn_id!r} and its key lead to account {hook.account} at {exchange_of(hook)}, the "
            f"payment is of account {order.account} at {order.exchange}"
        )
    return hook.get_conn(priority=Priority.POLLING, read_attempts=READ_ATTEMPTS[Priority.NORMAL])


def _difference(payment: Payment, withdrawal: Withdrawal) -> str:
    """Compare a payment with the exchange's; return what differs, in words."""
    if withdrawal.id != payment.exchange_id:
        return f"the exchange answered with withdrawal {withdrawal.id}"
    try:
        order = WithdrawalOrder.parse(amount=payment.order.amount, address=payment.order.address)
    except QuoineInputError as error:
        return f"what the ledger has cannot be an order: {as_sentence(error)}"
    return differs(withdrawal, order)


def _states_before(at: Transaction, references: list[str]) -> dict[_Key, list[str]]:
    """Return the states in which the exchange had some payments; not those under an id that counts no more."""
    states: dict[_Key, list[str]] = defaultdict(list)
    told = select(EVENTS).where(EVENTS.c.reference.in_(references), EVENTS.c.event.in_({*_OTHER_ID, str(Note.SEEN)}))
    for event in at.connection.execute(told.order_by(EVENTS.c.number)).mappings():
        payment = event["exchange"], event["kind"], event["reference"]
        if event["event"] in _OTHER_ID:
            states[payment].clear()
        if state := json.loads(event["data"]).get("state"):
            states[payment].append(state)
    return states


def _twins(at: Transaction, ids: list[str]) -> dict[tuple[str, str, str], list[str]]:
    """Return the references of the payments with some ids of the exchange."""
    twins: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    query = select(*_KEY, PAYMENTS.c.exchange_id).where(PAYMENTS.c.exchange_id.in_(ids))
    for row in at.connection.execute(query.order_by(PAYMENTS.c.created_at)):
        twins[row.exchange, row.kind, row.exchange_id].append(row.reference)
    return twins


def _further(before: tuple[str, ...], now: str) -> str:
    """Return the last earlier state from which a withdrawal cannot have come to the present one; empty if none."""
    return next((state for state in reversed(before) if _is_further(state, now)), "")


def _is_further(state: str, now: str) -> bool:
    if state in FINAL:
        return state != now
    stages = {each: number for number, stage in enumerate(STAGES) for each in stage}
    return now in stages and stages.get(state, -1) > stages[now]


def since(moment: datetime) -> str:
    """Write a time for a person."""
    return moment.isoformat(timespec="minutes")


def as_sentence(error: Any) -> str:
    """Write an error's words in one line that a log shows without scrolling."""
    words = " ".join(str(error).split())
    return words if len(words) <= 200 else f"{words[:200]}…"
