"""One locked look at the ledger, and how its rows become records."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, func, insert, or_, select, text, tuple_, update

from airflow_provider_quoine.payments.chain import hash_of
from airflow_provider_quoine.payments.records import SATOSHIS, Event, Head, History, Order, Payment
from airflow_provider_quoine.payments.refusals import (
    LedgerUnusableError,
    PaymentRefusedError,
    paid_twice,
    refuse_another,
)
from airflow_provider_quoine.payments.schema import EVENTS, LEDGER, PAYMENTS, RESERVED, Kind, Note, Step, late


class Transaction:
    """
    One locked look at the ledger; everything in it happens at once or not at all.

    :ivar now: the database's time, UTC.
    :ivar identity: which ledger this is.
    :ivar stopped_why: why payments are stopped; None if they are not.
    """

    def __init__(self, connection: Connection, head: RowMapping, now: datetime) -> None:
        self.connection = connection
        self.now = now
        self.identity = str(head["identity"])
        self._head = head["head"]
        self._head_hash = head["head_hash"]
        self.stopped_why: str | None = head["stopped_why"] if head["stopped_at"] else None

    @property
    def head(self) -> Head:
        """The last event."""
        return Head(identity=self.identity, number=self._head, hash=self._head_hash)

    def has(self, head: Head) -> bool:
        """Whether this ledger has an event that was its last one once."""
        if not head.number:
            return head.identity == self.identity
        known = select(EVENTS.c.hash).where(EVENTS.c.number == head.number)
        return head.identity == self.identity and self.connection.execute(known).scalar() == head.hash

    def check(self, pinned: Head | None) -> None:
        """
        Check that this is the ledger that Airflow remembers.

        :param pinned: what Airflow remembers.
        :raises LedgerUnusableError: if it is another one, or an older state of it.
        """
        if pinned is None:
            return
        if pinned.identity != self.identity:
            raise LedgerUnusableError(
                f"This ledger ({self.identity}) is not the one that this Airflow's payments are in "
                f"({pinned.identity}). Nothing was sent. Configure the right one in [quoine] ledger_conn_id, or "
                "restore it."
            )
        if not self.has(pinned):
            raise LedgerUnusableError(
                f"This ledger is older than what Airflow has seen: event {pinned.number} is missing or another. It "
                "was restored from a backup, so payments made since are not in it. Nothing was sent. Restore a newer "
                "one, or follow 'A ledger from a backup' in the documentation of payments."
            )

    def find(self, order: Order) -> Payment | None:
        """Return the payment of an order's reference."""
        row = self.connection.execute(select(PAYMENTS).where(is_for(order))).mappings().one_or_none()
        return None if row is None else payment_of(row)

    def get(self, order: Order) -> Payment:
        """
        Return the payment of an order's reference.

        :raises PaymentRefusedError: if there is none.
        """
        found = self.find(order)
        if found is None:
            raise PaymentRefusedError(f"There is no payment {order.reference!r} in the ledger.")
        return found

    def refuse_changed(self, order: Order) -> None:
        """
        Refuse an order whose payment has other details by now: they may change as long as nothing was sent.

        :raises PaymentRefusedError: saying which details.
        """
        found = self.find(order)
        if found is not None:
            refuse_another(found, order)

    def may_have_other_details(self, found: Payment) -> bool:
        """Whether a person has released a payment of which nothing is at the exchange."""
        return found.step == Step.PREPARED and self.history(found.order).is_released

    def find_or_add(self, order: Order, *, actor: str) -> Payment:
        """
        Return the payment of an order's reference; a new one is ``prepared``.

        :raises PaymentRefusedError: if the reference stands for another payment.
        """
        found = self.find(order)
        if found is None:
            self.connection.execute(insert(PAYMENTS).values(_new(order, self.now, actor)))
        elif found.order.details != order.details and self.may_have_other_details(found):
            self.connection.execute(update(PAYMENTS).where(is_for(order)).values(_details(order)))
            self.keep_names(order)
        else:
            refuse_another(found, order)
            self.keep_names(order)
            return found
        self.append(order, Step.PREPARED, actor=actor, **order.details)
        return self.get(order)

    def refuse_if_stopped(self) -> None:
        """
        Refuse to send while payments are stopped.

        :raises PaymentRefusedError: saying why they are stopped.
        """
        if self.stopped_why is not None:
            raise PaymentRefusedError(
                f"Payments are stopped: {self.stopped_why}. Nothing was sent. Once they go on again (Airflow's page "
                "Quoine, or `airflow quoine payments resume`), clear the task."
            )

    def refuse_paid_twice(self, found: Payment) -> None:
        """
        Refuse to go on with a payment that the exchange has answered with another id than is recorded.

        :raises PaymentRefusedError: naming the id in the answer.
        """
        if late_id := self.history(found.order).another_id(found.exchange_id):
            raise PaymentRefusedError(paid_twice(late_id), payment=found)

    def newest_sending(self) -> datetime | None:
        """Return when the newest of those that are ``sending`` now began."""
        newest = select(func.max(PAYMENTS.c.reserved_at)).where(PAYMENTS.c.step == Step.SENDING)
        begun = self.connection.execute(newest).scalar()
        return datetime.fromisoformat(begun) if begun else None

    def other_payment(self, order: Order, exchange_id: str) -> str:
        """Return the reference of another payment with an id of the exchange; empty if there is none."""
        other = select(PAYMENTS.c.reference).where(
            PAYMENTS.c.exchange == order.exchange,
            PAYMENTS.c.kind == order.kind,
            PAYMENTS.c.exchange_id == exchange_id,
            PAYMENTS.c.reference != order.reference,
        )
        return str(self.connection.execute(other.limit(1)).scalar() or "")

    def keep_names(self, order: Order) -> None:
        """Keep the names by which a payment is looked up, if the order has them: they may have changed since."""
        if order.conn_id:
            names = names_of(order)
            others = or_(*(PAYMENTS.c[name] != value for name, value in names.items()))
            self.connection.execute(update(PAYMENTS).where(is_for(order), others).values(names))

    def history(self, order: Order) -> History:
        """Return the events of a payment."""
        return history_of(self.connection, order)

    def reserved(self, *, account: str, since: datetime) -> tuple[int, Decimal]:
        """
        Count what was paid, or may have been, from an account.

        :param since: UTC.
        :return: how many withdrawals, and bitcoin in all.
        """
        counted = and_(
            PAYMENTS.c.kind == Kind.WITHDRAWAL,
            PAYMENTS.c.account == account,
            PAYMENTS.c.step.in_(RESERVED),
            PAYMENTS.c.reserved_at >= as_text(since),
        )
        number, satoshis = self.connection.execute(
            select(func.count(), func.coalesce(func.sum(PAYMENTS.c.satoshis), 0)).where(counted)
        ).one()
        return int(number), Decimal(int(satoshis)) / SATOSHIS

    def change(self, order: Order, *, if_step: frozenset[Step], if_owner: str | None = None, **values: Any) -> bool:
        """
        Change a payment if it stands where it has to.

        :param if_owner: the attempt whose ``sending`` it must be.
        :return: whether it did.
        """
        condition = and_(is_for(order), PAYMENTS.c.step.in_(if_step))
        if if_owner is not None:
            condition = and_(condition, PAYMENTS.c.owner == if_owner)
        changed = self.connection.execute(
            update(PAYMENTS).where(condition).values(changed_at=as_text(self.now), **_cleaned(values))
        ).rowcount
        return bool(changed == 1)

    def see(self, order: Order, *, exchange_id: str | None, state: str, actor: str) -> None:
        """
        Write down in which state the exchange has a payment, if that is new.

        :param exchange_id: under which it was seen: a person may have corrected the id meanwhile.
        """
        found = self.find(order)
        if found is None or found.exchange_id != exchange_id or found.state == clean(state):
            return
        if self.change(order, if_step=frozenset({Step.SENT}), state=state):
            self.append(order, Note.SEEN, actor=actor, state=state, before=found.state)

    def append(self, order: Order | None, event: str, *, actor: str, **data: Any) -> None:
        """
        Append an event to the chain; nothing secret and nothing personal.

        :param order: which payment it is about; None for the ledger itself.
        :param actor: the person or the task.
        """
        row = {
            "number": self._head + 1,
            "at": as_text(self.now),
            "exchange": order.exchange if order else "",
            "kind": str(order.kind) if order else "",
            "reference": order.reference if order else "",
            "event": event,
            "actor": clean(actor),
            "data": json.dumps(_cleaned(data), sort_keys=True, ensure_ascii=False),
            "hash_before": self._head_hash,
        }
        row["hash"] = hash_of(row)
        self.connection.execute(insert(EVENTS).values(row))
        self._head, self._head_hash = row["number"], row["hash"]
        self.connection.execute(update(LEDGER).values(head=self._head, head_hash=self._head_hash))


def database_time(connection: Connection) -> datetime:
    """Return the database's time, UTC."""
    # SQLite's file is on this host, so its time is this host's; a server has one of its own.
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now.astimezone(UTC)


def clean(text: str) -> str:
    """Return a text that databases take and consoles show: no lone surrogates, no control characters but line feeds."""
    taken = text.encode(errors="replace").decode()
    return "".join(sign if sign.isprintable() or sign == "\n" else " " if sign.isspace() else "?" for sign in taken)


def _cleaned(values: dict[str, Any]) -> dict[str, Any]:
    return {name: clean(value) if isinstance(value, str) else value for name, value in values.items()}


def as_text(moment: datetime) -> str:
    """Return a time as the tables have it."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def is_for(order: Order) -> Any:
    """Return the condition by which a payment's row is found."""
    return and_(
        PAYMENTS.c.exchange == order.exchange,
        PAYMENTS.c.kind == order.kind,
        PAYMENTS.c.reference == order.reference,
    )


def history_of(connection: Connection, order: Order) -> History:
    """Return the events of a payment, the oldest first."""
    of_order = and_(
        EVENTS.c.exchange == order.exchange, EVENTS.c.kind == order.kind, EVENTS.c.reference == order.reference
    )
    rows = connection.execute(select(EVENTS).where(of_order).order_by(EVENTS.c.number)).mappings()
    return History(event_of(row) for row in rows)


def late_ids(connection: Connection, *which: Any) -> dict[Order, str]:
    """
    Find the payments that the exchange has answered with another id than is recorded: they may be paid twice.

    :param which: conditions of their events.
    :return: by payment, the id in the answer.
    """
    answered = select(EVENTS.c.exchange, EVENTS.c.kind, EVENTS.c.reference).where(
        EVENTS.c.event == late(Step.SENT), *which
    )
    key = tuple_(PAYMENTS.c.exchange, PAYMENTS.c.kind, PAYMENTS.c.reference)
    rows = connection.execute(select(PAYMENTS).where(key.in_(answered))).mappings().all()
    found = {payment.order: payment.exchange_id for payment in map(payment_of, rows)}
    ids = {order: history_of(connection, order).another_id(recorded) for order, recorded in found.items()}
    return {order: late_id for order, late_id in ids.items() if late_id}


def _new(order: Order, now: datetime, task: str) -> dict[str, Any]:
    return {
        **_details(order),
        "exchange": order.exchange,
        "kind": str(order.kind),
        "reference": order.reference,
        "step": str(Step.PREPARED),
        "reason": "",
        "task": task,
        "created_at": as_text(now),
        "changed_at": as_text(now),
        **names_of(order),
    }


def _details(order: Order) -> dict[str, Any]:
    return {
        "account": order.account,
        "user_id": order.user_id,
        "address": order.address,
        "satoshis": order.satoshis,
    }


def names_of(order: Order) -> dict[str, str]:
    """Return the columns by which a payment is looked up."""
    return {"conn_id": order.conn_id, "credentials_variable": order.credentials_variable}


def payment_of(row: RowMapping) -> Payment:
    """Return the payment in a row."""
    order = Order(
        exchange=row["exchange"],
        kind=Kind(row["kind"]),
        reference=row["reference"],
        account=row["account"],
        user_id=row["user_id"],
        address=row["address"],
        amount=Decimal(row["satoshis"]) / SATOSHIS,
        conn_id=row["conn_id"],
        credentials_variable=row["credentials_variable"],
    )
    until = row["in_doubt_until"]
    return Payment(
        order=order,
        step=row["step"],
        owner=row["owner"],
        exchange_id=row["exchange_id"],
        in_doubt_until=datetime.fromisoformat(until) if until else None,
        policy=row["policy"],
        reason=row["reason"],
        task=row["task"],
        state=row["state"],
    )


def event_of(row: RowMapping) -> Event:
    """Return the event in a row."""
    return Event(
        number=row["number"],
        at=datetime.fromisoformat(row["at"]),
        event=row["event"],
        actor=row["actor"],
        data=json.loads(row["data"]),
    )
