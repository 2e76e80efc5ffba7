"""What a person sees of all payments: a list that the database filters, what waits for people, caps and the stop."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from airflow.sdk.exceptions import AirflowNotFoundException
from sqlalchemy import RowMapping, func, select, tuple_

from airflow_provider_quoine.desk.history import readable
from airflow_provider_quoine.desk.tasks import Task, starters
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.policy import Cap, WithdrawalPolicy, start_of_day
from airflow_provider_quoine.payments.records import History, Order, Payment
from airflow_provider_quoine.payments.schema import EVENTS, LATE, LEDGER, PAYMENTS, Kind, Note, Step
from airflow_provider_quoine.payments.transaction import Transaction, as_text, payment_of

PER_PAGE = 50
"""Payments of one page of the list."""
MOST_WAITING = 20
"""Payments in doubt that are shown, the oldest."""
MOST_ACCOUNTS = 20
"""Accounts whose caps are shown: those with the newest payments."""
MOST_CONNECTIONS = 10
"""Connections that are read for that."""

_KEY = (PAYMENTS.c.exchange, PAYMENTS.c.kind, PAYMENTS.c.reference)
_TOLD = (Step.PREPARED, Note.RUN_STARTED, Note.APPROVED, Note.REJECTED, "answered")

_Key = tuple[str, str, str]
"""Of a payment: exchange, kind and reference."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """
    Which payments a person wants to see.

    :param step: where they stand; empty for all.
    :param kind: withdrawal or user; empty for both.
    :param since: begun then or later.
    :param until: begun before.
    :param reference: a part of the reference, in any case.
    """

    step: str = ""
    kind: str = ""
    since: datetime | None = None
    until: datetime | None = None
    reference: str = ""

    @property
    def conditions(self) -> list[Any]:
        """The conditions of the query."""
        found: list[Any] = []
        if self.step:
            found.append(PAYMENTS.c.step == self.step)
        if self.kind:
            found.append(PAYMENTS.c.kind == self.kind)
        if self.since is not None:
            found.append(PAYMENTS.c.created_at >= as_text(self.since))
        if self.until is not None:
            found.append(PAYMENTS.c.created_at < as_text(self.until))
        if text := unicodedata.normalize("NFKC", self.reference).strip():
            found.append(PAYMENTS.c.reference.icontains(text, autoescape=True))
        return found


@dataclass(frozen=True, kw_only=True)
class Line:
    """
    A payment in the list.

    :param payment: as the ledger has it.
    :param begun: when, UTC.
    :param asked_by: who started its run; empty if nobody did, or Airflow does not know the run any more.
    :param approved_by: whose approvals it has.
    :param code_by: who typed the last code.
    :param task: where it was sent last; None if a person has begun it.
    """

    payment: Payment
    begun: datetime
    asked_by: str
    approved_by: tuple[str, ...]
    code_by: str
    task: Task | None


@dataclass(frozen=True, kw_only=True)
class Listed:
    """
    A page of the list.

    :param lines: the newest first.
    :param page: its number, from 1.
    :param count: payments that fit the filter.
    """

    lines: list[Line]
    page: int
    count: int

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return max(1, -(-self.count // PER_PAGE))


def list_payments(ledger: Ledger, wanted: Filter, *, page: int) -> Listed:
    """
    Read a page of the payments, the last begun first.

    :param page: from 1; one that there is not is empty.
    :raises LedgerUnusableError: if the ledger cannot be used.
    """
    conditions = wanted.conditions
    newest = select(PAYMENTS).where(*conditions).order_by(PAYMENTS.c.created_at.desc(), *_KEY)
    with ledger.looking() as at:
        count = at.connection.execute(select(func.count()).select_from(PAYMENTS).where(*conditions)).scalar_one()
        rows = at.connection.execute(newest.limit(PER_PAGE).offset((page - 1) * PER_PAGE)).mappings().all()
        histories = _histories(at, (_key_of(row) for row in rows), _TOLD)
    return Listed(lines=_lines(rows, histories), page=page, count=count)


def _lines(rows: Iterable[RowMapping], histories: dict[_Key, History]) -> list[Line]:
    started = starters(task for row in rows if (task := Task.named(row["task"])))
    return [_line(row, histories.get(_key_of(row), History()), started) for row in rows]


def _line(row: RowMapping, history: History, started: dict[tuple[str, str], str]) -> Line:
    task = Task.named(row["task"])
    asked_by = started.get((task.dag_id, task.run_id)) if task is not None else None
    return Line(
        payment=payment_of(row),
        begun=datetime.fromisoformat(row["created_at"]),
        # Airflow forgets a run that was deleted, and the ledger does not.
        asked_by=asked_by if asked_by is not None else history.asked_by,
        approved_by=tuple(event.actor for event in history.approvals),
        code_by=next((str(each.data.get("by", "")) for each in reversed(history) if each.event == "answered"), ""),
        task=task,
    )


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """
    A payment that waits for a person's decision.

    :param payment: as the ledger has it.
    :param since: when it came to stand so.
    :param said_absent_by: who has said that it does not exist, and waits for a second person.
    :param is_own: whether that was the person who looks, so that somebody else has to say it too.
    :param late_id: another id than the ledger's, with which the exchange has answered late; empty if it has not.
    """

    payment: Payment
    since: datetime
    said_absent_by: tuple[str, ...]
    is_own: bool
    late_id: str


def doubts(ledger: Ledger, *, who: str, user_id: str) -> list[Doubt]:
    """
    Find the payments that a person may settle, the oldest first.

    :param who: the person, as decisions name them.
    :param user_id: Airflow's id of the person.
    """
    with ledger.looking() as at:
        asked = select(EVENTS.c.exchange, EVENTS.c.kind, EVENTS.c.reference).where(
            EVENTS.c.event.in_((Note.ABSENT_ASKED, *LATE))
        )
        # A request that is still being sent waits for nobody, unless its attempt has never come back.
        over = PAYMENTS.c.in_doubt_until.is_(None) | (PAYMENTS.c.in_doubt_until <= as_text(at.now))
        due = (PAYMENTS.c.step == Step.UNKNOWN) | ((PAYMENTS.c.step == Step.SENDING) & over)
        # What a person has recorded may be taken back by two, or the exchange may say otherwise later.
        settled = PAYMENTS.c.step.in_((Step.SENT, Step.HELD))
        again = settled & tuple_(*_KEY).in_(asked)
        # Of those some are settled since, and must keep no other from the page.
        order = (settled, PAYMENTS.c.changed_at)
        oldest = select(PAYMENTS).where(due | again).order_by(*order).limit(MOST_WAITING)
        rows = at.connection.execute(oldest).mappings().all()
        histories = _histories(at, (_key_of(row) for row in rows), None)
    found = []
    for row in rows:
        history = histories.get(_key_of(row), History())
        said = history.said_absent
        late_id = history.another_id(row["exchange_id"])
        if row["step"] not in (Step.SENT, Step.HELD) or said or late_id:
            found.append(
                Doubt(
                    payment=payment_of(row),
                    since=datetime.fromisoformat(row["changed_at"]),
                    said_absent_by=tuple(event.actor for event in said),
                    is_own=bool(said) and history.needs_second_person(who, user_id),
                    late_id=late_id,
                )
            )
    return found


@dataclass(frozen=True, kw_only=True)
class Used:
    """
    A cap and what is used of it.

    :param within: the time, in words.
    :param since: when it began, UTC.
    :param cap: the cap.
    :param amount: bitcoin that count.
    :param number: withdrawals that count.
    """

    within: str
    since: datetime
    cap: Cap
    amount: Decimal
    number: int


@dataclass(frozen=True, kw_only=True)
class Account:
    """
    The caps of an account by a connection.

    :param account: id of the key that signs.
    :param conn_id: connection whose policy has the caps.
    :param caps: in 24 hours and per day; empty if the policy cannot be read.
    :param why_not: why it cannot.
    """

    account: str
    conn_id: str
    caps: tuple[Used, ...]
    why_not: str


def accounts(ledger: Ledger) -> list[Account]:
    """Read the caps of the accounts with the newest withdrawals, and how much of them is used."""
    key = (PAYMENTS.c.conn_id, PAYMENTS.c.account)
    query = select(*key).where(PAYMENTS.c.kind == Kind.WITHDRAWAL, PAYMENTS.c.conn_id != "").group_by(*key)
    newest = query.order_by(func.max(PAYMENTS.c.created_at).desc()).limit(MOST_ACCOUNTS)
    with ledger.looking() as at:
        rows = at.connection.execute(newest).all()
        names = list(dict.fromkeys(row.conn_id for row in rows))[:MOST_CONNECTIONS]
    # Outside of the look: a secrets backend may be slow, and a transaction that stays open is ended.
    policies = {name: _policy(name) for name in names}
    with ledger.looking() as at:
        return [_account(at, row.conn_id, row.account, policies[row.conn_id]) for row in rows if row.conn_id in names]


def _policy(conn_id: str) -> WithdrawalPolicy | str:
    """Read a connection's policy; return why it cannot be read otherwise."""
    try:
        return WithdrawalPolicy.of(QuoineHook(conn_id).settings, account="")
    except (QuoineInputError, AirflowNotFoundException, ValueError) as error:
        return str(error)


def _account(at: Transaction, conn_id: str, account: str, policy: WithdrawalPolicy | str) -> Account:
    if isinstance(policy, str):
        return Account(account=account, conn_id=conn_id, caps=(), why_not=policy)
    windows = (
        ("24 hours", at.now - timedelta(hours=24), policy.in_24_hours),
        (f"today in {policy.timezone}", start_of_day(at.now, policy.timezone), policy.per_day),
    )
    caps = []
    for within, since, cap in windows:
        number, amount = at.reserved(account=account, since=since)
        caps.append(Used(within=within, since=since, cap=cap, amount=amount, number=number))
    return Account(account=account, conn_id=conn_id, caps=tuple(caps), why_not="")


@dataclass(frozen=True, kw_only=True)
class Stop:
    """
    Who has stopped all payments.

    :param at: when, UTC.
    :param by: the person.
    :param why: the reason.
    """

    at: datetime
    by: str
    why: str


def stop_of(ledger: Ledger) -> Stop | None:
    """Return who has stopped all payments; None if they go on."""
    with ledger.looking() as at:
        row = at.connection.execute(select(LEDGER)).mappings().one()
    if not row["stopped_at"]:
        return None
    return Stop(at=datetime.fromisoformat(row["stopped_at"]), by=row["stopped_by"], why=row["stopped_why"])


def payments_asked_about(ledger: Ledger, actors: Iterable[str]) -> dict[str, tuple[Order, History]]:
    """
    Find the payments that tasks ask a person about.

    :param actors: the tasks, as the ledger names them; some hundreds at most.
    :return: by task, the payment and its events.
    """
    names = list(actors)
    if not names:
        # No index is by the actor, so all events would be read.
        return {}
    asked = select(EVENTS).where(EVENTS.c.event.in_((Note.ASKED, Note.APPROVAL_ASKED)), EVENTS.c.actor.in_(names))
    with ledger.looking() as at:
        keys = {row["actor"]: _key_of(row) for row in at.connection.execute(asked.order_by(EVENTS.c.number)).mappings()}
        rows = at.connection.execute(select(PAYMENTS).where(tuple_(*_KEY).in_(list(keys.values())))).mappings().all()
        orders = {_key_of(row): payment_of(row).order for row in rows}
        histories = _histories(at, orders, None)
    return {actor: (orders[key], histories[key]) for actor, key in keys.items() if key in orders}


def _key_of(row: RowMapping) -> _Key:
    return row["exchange"], row["kind"], row["reference"]


def _histories(at: Transaction, keys: Iterable[_Key], told: Iterable[str] | None) -> dict[_Key, History]:
    """Read the events of some payments; only those of some kinds if they are given."""
    wanted = set(keys)
    query = select(EVENTS).where(EVENTS.c.reference.in_({reference for *_, reference in wanted}))
    if told is not None:
        query = query.where(EVENTS.c.event.in_(list(told)))
    rows = defaultdict(list)
    for row in at.connection.execute(query.order_by(EVENTS.c.number)).mappings():
        rows[_key_of(row)].append(row)
    return {key: readable(found) for key, found in rows.items() if key in wanted}
