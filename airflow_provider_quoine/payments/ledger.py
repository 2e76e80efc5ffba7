"""
The ledger of payments: at most one per reference, whatever Airflow forgets, repeats or runs twice.

prepared → sending → sent | refused | unknown, and held by a person. Each step is one conditional change in one
transaction. The protocol's rules:

- *One sender.* ``prepared`` becomes ``sending`` by one conditional change, which names the attempt as the owner.
- *Own results.* An attempt writes its result only over its own ``sending``.
- *Unknown stops.* ``sending`` and ``unknown`` are never sendable.
- *Doubt window.* ``absent`` and ``hold`` are refused until no request can be under way any more.
- *Hold before paying by hand.* A person takes the payment before paying outside of Airflow.
- *Late attempts do not send.* The sender checks the time between ``sending`` and the first byte; that is
  :mod:`~airflow_provider_quoine.payments.attempt`'s part.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, RowMapping, and_, func, insert, select, text, update

from airflow_provider_quoine.payments.chain import faults, hash_of
from airflow_provider_quoine.payments.schema import (
    EVENTS,
    IN_DOUBT,
    LEDGER,
    PAYMENTS,
    RESERVED,
    SENDABLE,
    Kind,
    Step,
)

SATOSHIS = 100_000_000
"""Per bitcoin."""


class LedgerUnusableError(Exception):
    """The ledger cannot be used, so nothing is sent; the text says why and what to do."""


class PaymentRefusedError(Exception):
    """The ledger does not allow it. Nothing was sent and nothing was changed; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """
    What a reference stands for. It never changes.

    :param exchange: base URL of the exchange.
    :param kind: withdrawal or user.
    :param reference: unique per exchange and kind.
    :param account: id of the key that signs.
    :param user_id: whose money it is; empty where that is the key's owner.
    :param address: bitcoin address; empty for a user.
    :param amount: bitcoin; 0 for a user.
    """

    exchange: str
    kind: Kind
    reference: str
    account: str
    user_id: str = ""
    address: str = ""
    amount: Decimal = Decimal(0)

    @property
    def satoshis(self) -> int:
        """The amount in the smallest unit, exact."""
        return int(self.amount * SATOSHIS)

    @property
    def details(self) -> dict[str, str]:
        """What must stay the same, in words for a person."""
        # From the smallest unit: 0.5 and 0.50 are one amount.
        amount = f"{Decimal(self.satoshis) / SATOSHIS:f}"
        return {"account": self.account, "user_id": self.user_id, "address": self.address, "amount": amount}


@dataclass(frozen=True, kw_only=True)
class Payment:
    """
    A payment as the ledger has it.

    :param order: what it is.
    :param step: where it stands; a word that no version knows is kept as it is and is never sendable.
    :param owner: the attempt that made it ``sending``.
    :param exchange_id: the exchange's id, once it is known.
    :param in_doubt_until: until when its request may be under way.
    :param policy: fingerprint of the policy that allowed the last send.
    :param reason: why it stands where it stands, in words.
    :param task: where in Airflow it was sent last, for a person.
    """

    order: Order
    step: str
    owner: str | None
    exchange_id: str | None
    in_doubt_until: datetime | None
    policy: str | None
    reason: str
    task: str


@dataclass(frozen=True, kw_only=True)
class Head:
    """
    The last event of a ledger at some time, by which the ledger is known again.

    :param identity: of the ledger.
    :param number: of the event; 0 if there was none.
    :param hash: of the event.
    """

    identity: str
    number: int
    hash: str


class Pin(Protocol):
    """Where Airflow remembers which ledger its payments are in, and how far it had come."""

    def read(self) -> Head | None:
        """Return what was written last."""

    def write(self, head: Head) -> None:
        """Remember a ledger's last event."""


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

    def find(self, order: Order) -> Payment | None:
        """Return the payment of an order's reference."""
        row = self.connection.execute(select(PAYMENTS).where(_is(order))).mappings().one_or_none()
        return None if row is None else _payment(row)

    def find_or_add(self, order: Order, *, actor: str) -> Payment:
        """
        Return the payment of an order's reference; a new one is ``prepared``.

        :raises PaymentRefusedError: if the reference stands for another payment.
        """
        found = self.find(order)
        if found is None:
            self.connection.execute(insert(PAYMENTS).values(_new(order, self.now, actor)))
            self.append(order, Step.PREPARED, actor=actor, **order.details)
            return _existing(self, order)
        _refuse_another(found, order)
        return found

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
            PAYMENTS.c.reserved_at >= _text(since),
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
        condition = and_(_is(order), PAYMENTS.c.step.in_(if_step))
        if if_owner is not None:
            condition = and_(condition, PAYMENTS.c.owner == if_owner)
        changed = self.connection.execute(
            update(PAYMENTS).where(condition).values(changed_at=_text(self.now), **values)
        ).rowcount
        return bool(changed == 1)

    def append(self, order: Order | None, event: str, *, actor: str, **data: Any) -> None:
        """
        Append an event to the chain; nothing secret and nothing personal.

        :param order: which payment it is about; None for the ledger itself.
        :param actor: the person or the task.
        """
        row = {
            "number": self._head + 1,
            "at": _text(self.now),
            "exchange": order.exchange if order else "",
            "kind": str(order.kind) if order else "",
            "reference": order.reference if order else "",
            "event": event,
            "actor": actor,
            "data": json.dumps(data, sort_keys=True, ensure_ascii=False),
            "hash_before": self._head_hash,
        }
        row["hash"] = hash_of(row)
        self.connection.execute(insert(EVENTS).values(row))
        self._head, self._head_hash = row["number"], row["hash"]
        self.connection.execute(update(LEDGER).values(head=self._head, head_hash=self._head_hash))


class Ledger:
    """
    The payments of one Airflow.

    Every change is refused where the ledger is not the one that Airflow remembers, or an older state of it. Before a
    byte leaves, and whenever a person has decided, Airflow is made to remember the ledger's last event.

    :param engine: of a database with the tables of :mod:`~airflow_provider_quoine.payments.schema`.
    :param pin: Airflow's memory of the ledger.
    :param clock: tells the database's time.
    """

    def __init__(self, engine: Engine, *, pin: Pin, clock: Callable[[Connection], datetime] | None = None) -> None:
        self._engine = engine
        self._pin = pin
        self._clock = clock or _database_time

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """
        Lock the ledger, so that writers follow each other; commit at the end, or nothing.

        :raises LedgerUnusableError: if it is not the ledger that Airflow remembers, or an older state of it.
        """
        with self._locked() as at:
            _check_pin(at, self._pin.read())
            yield at

    @contextmanager
    def _remembered(self) -> Iterator[Transaction]:
        """Do as :meth:`transaction`, and have Airflow remember it after the commit."""
        with self.transaction() as at:
            yield at
        # Under the lock again, so that Airflow's memory never goes back.
        with self._locked() as at:
            self._pin.write(at.head)

    @contextmanager
    def _locked(self) -> Iterator[Transaction]:
        with self._engine.begin() as connection:
            head = connection.execute(select(LEDGER).with_for_update()).mappings().one()
            yield Transaction(connection, head, self._clock(connection))

    def prepare(self, order: Order, *, actor: str) -> Payment:
        """
        Find a reference's payment, or begin it. Nothing is sent by this.

        :return: the payment: ``prepared``, ``refused`` (it may be sent again), or ``sent`` with its id.
        :raises PaymentRefusedError: if it is in doubt, held, or another payment than this.
        """
        with self.transaction() as at:
            found = at.find_or_add(order, actor=actor)
            if found.step not in SENDABLE | {Step.SENT}:
                raise PaymentRefusedError(_why_not(found))
            return found

    def start_sending(
        self,
        order: Order,
        *,
        attempt: str,
        task: str,
        in_flight: timedelta,
        allow: Callable[[Transaction], str],
    ) -> None:
        """
        Become the one who sends: ``prepared`` or ``refused`` becomes ``sending``.

        :param attempt: names the attempt, unique for ever.
        :param in_flight: how long from now its request may be under way at most.
        :param allow: reads the policy anew and returns its fingerprint, or raises; called in the transaction.
        :raises PaymentRefusedError: if another attempt or a person was faster, or payments are stopped.
        """
        with self._remembered() as at:
            if at.stopped_why is not None:
                raise PaymentRefusedError(
                    f"Payments are stopped: {at.stopped_why}. Nothing was sent. Once `airflow quoine payments resume` "
                    "was given, clear the task."
                )
            policy = allow(at)
            until = _text(at.now + in_flight)
            became = at.change(
                order,
                if_step=SENDABLE,
                step=Step.SENDING,
                owner=attempt,
                task=task,
                reserved_at=_text(at.now),
                in_doubt_until=until,
                policy=policy,
                reason="",
            )
            if not became:
                found = at.find(order)
                raise PaymentRefusedError(_why_not(found) if found else "The payment was not prepared.")
            at.append(order, Step.SENDING, actor=task, attempt=attempt, policy=policy, in_doubt_until=until)

    def finish(
        self, order: Order, *, attempt: str, step: Step, exchange_id: str | None = None, reason: str = ""
    ) -> bool:
        """
        Write an attempt's result over its own ``sending``, and over nothing else.

        :param step: ``sent`` with the exchange's id, ``refused``, ``unknown``, or ``prepared`` if no byte left.
        :return: whether it was still its own; if not, a person has settled it meanwhile, and that stands.
        """
        with self.transaction() as at:
            doubt: dict[str, Any] = {} if step in IN_DOUBT else {"in_doubt_until": None}
            wrote = at.change(
                order,
                if_step=frozenset({Step.SENDING}),
                if_owner=attempt,
                step=step,
                exchange_id=exchange_id,
                reason=reason,
                **doubt,
            )
            event = str(step) if wrote else f"late_{step}"
            at.append(order, event, actor=attempt, exchange_id=exchange_id, reason=reason)
            return wrote

    def hold(self, order: Order, *, who: str, why: str) -> None:
        """
        Take a payment out of every task's hands, before somebody pays it elsewhere. No task need know it yet.

        :raises PaymentRefusedError: if it is sent already, or its request may still be under way.
        """
        with self._remembered() as at:
            found = at.find_or_add(order, actor=who)
            if found.step in IN_DOUBT:
                _refuse_in_doubt(found, at.now)
            elif found.step not in SENDABLE:
                raise PaymentRefusedError(_why_not(found))
            at.change(order, if_step=SENDABLE | IN_DOUBT, step=Step.HELD, reason=why, in_doubt_until=None)
            at.append(order, Step.HELD, actor=who, why=why)

    def release(self, order: Order, *, who: str, why: str) -> None:
        """
        Give a held payment back to its task.

        :raises PaymentRefusedError: if it is not held.
        """
        with self._remembered() as at:
            if not at.change(order, if_step=frozenset({Step.HELD}), step=Step.PREPARED, reason=why):
                raise PaymentRefusedError(f"The payment is {_existing(at, order).step}, not held. Nothing was changed.")
            at.append(order, "released", actor=who, why=why)

    def exists(self, order: Order, *, exchange_id: str, who: str, why: str) -> None:
        """
        Record that the exchange carried a payment out, or that it was paid by hand while it was held.

        :raises PaymentRefusedError: if it is neither in doubt nor held, nor settled so before.
        """
        with self._remembered() as at:
            found = _existing(at, order)
            if found.step == Step.SENT and not _settled_by_a_person(at, order):
                raise PaymentRefusedError(
                    f"The exchange itself answered with id {found.exchange_id}. Nothing was changed."
                )
            if found.step not in IN_DOUBT | {Step.HELD, Step.SENT}:
                raise PaymentRefusedError(f"The payment is {found.step}: there is nothing to settle.")
            at.change(
                order,
                if_step=IN_DOUBT | {Step.HELD, Step.SENT},
                step=Step.SENT,
                exchange_id=exchange_id,
                reason=why,
                in_doubt_until=None,
                reserved_at=func.coalesce(PAYMENTS.c.reserved_at, _text(at.now)),
            )
            at.append(order, "exists", actor=who, exchange_id=exchange_id, before=found.exchange_id, why=why)

    def absent(self, order: Order, *, who: str, why: str) -> None:
        """
        Record that the exchange did not carry a payment out, so that its task may send it.

        :raises PaymentRefusedError: if it is not in doubt, or its request may still be under way.
        """
        with self._remembered() as at:
            found = _existing(at, order)
            if found.step not in IN_DOUBT:
                raise PaymentRefusedError(f"The payment is {found.step}, so there is no doubt to settle.")
            _refuse_in_doubt(found, at.now)
            at.change(order, if_step=IN_DOUBT, step=Step.PREPARED, reason=why, in_doubt_until=None)
            at.append(order, "absent", actor=who, why=why)

    def stop(self, *, who: str, why: str) -> None:
        """Stop all payments: from this commit on nobody starts to send."""
        with self._remembered() as at:
            at.connection.execute(update(LEDGER).values(stopped_at=_text(at.now), stopped_by=who, stopped_why=why))
            at.append(None, "stopped", actor=who, why=why)

    def resume(self, *, who: str) -> None:
        """Let payments go on."""
        with self._remembered() as at:
            at.connection.execute(update(LEDGER).values(stopped_at=None, stopped_by=None, stopped_why=None))
            at.append(None, "resumed", actor=who)

    def find(self, order: Order) -> Payment | None:
        """Return the payment of an order's reference, without locking."""
        with self._engine.connect() as connection:
            row = connection.execute(select(PAYMENTS).where(_is(order))).mappings().one_or_none()
        return None if row is None else _payment(row)

    def faults(self) -> list[str]:
        """Name every event that was edited, removed, added or put elsewhere."""
        with self._engine.connect() as connection:
            head = connection.execute(select(LEDGER)).mappings().one()
            events = connection.execute(select(EVENTS).order_by(EVENTS.c.number)).mappings()
            return list(faults(map(dict, events), head=head["head"], head_hash=head["head_hash"]))


def _database_time(connection: Connection) -> datetime:
    # SQLite's file is on this host, so its time is this host's; a server has one of its own.
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now.astimezone(UTC)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _is(order: Order) -> Any:
    return and_(
        PAYMENTS.c.exchange == order.exchange,
        PAYMENTS.c.kind == order.kind,
        PAYMENTS.c.reference == order.reference,
    )


def _new(order: Order, now: datetime, task: str) -> dict[str, Any]:
    return {
        "exchange": order.exchange,
        "kind": str(order.kind),
        "reference": order.reference,
        "step": str(Step.PREPARED),
        "account": order.account,
        "user_id": order.user_id,
        "address": order.address,
        "satoshis": order.satoshis,
        "reason": "",
        "task": task,
        "created_at": _text(now),
        "changed_at": _text(now),
    }


def _payment(row: RowMapping) -> Payment:
    order = Order(
        exchange=row["exchange"],
        kind=Kind(row["kind"]),
        reference=row["reference"],
        account=row["account"],
        user_id=row["user_id"],
        address=row["address"],
        amount=Decimal(row["satoshis"]) / SATOSHIS,
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
    )


def _existing(at: Transaction, order: Order) -> Payment:
    found = at.find(order)
    if found is None:
        raise PaymentRefusedError(f"There is no payment {order.reference!r} in the ledger.")
    return found


def _check_pin(at: Transaction, pinned: Head | None) -> None:
    if pinned is None:
        return
    if pinned.identity != at.identity:
        raise LedgerUnusableError(
            f"This ledger ({at.identity}) is not the one that this Airflow's payments are in ({pinned.identity}). "
            "Nothing was sent. Configure the right one in [quoine] ledger_conn_id, or restore it."
        )
    if not at.has(pinned):
        raise LedgerUnusableError(
            f"This ledger is older than what Airflow has seen: event {pinned.number} is missing or another. It was "
            "restored from a backup, so payments made since are not in it. Nothing was sent. Restore a newer one, "
            "or reconcile it with the exchange."
        )


def _settled_by_a_person(at: Transaction, order: Order) -> bool:
    mine = and_(EVENTS.c.exchange == order.exchange, EVENTS.c.kind == order.kind, EVENTS.c.reference == order.reference)
    # A late result is written down, and changes nothing.
    mine = and_(mine, EVENTS.c.event.not_like("late%"))
    last = select(EVENTS.c.event).where(mine).order_by(EVENTS.c.number.desc()).limit(1)
    return str(at.connection.execute(last).scalar_one()) == "exists"


def _refuse_another(found: Payment, order: Order) -> None:
    changed = [name for name, value in order.details.items() if found.order.details[name] != value]
    if changed:
        first = ", ".join(f"{name} {found.order.details[name] or 'none'}" for name in changed)
        now = ", ".join(f"{name} {order.details[name] or 'none'}" for name in changed)
        raise PaymentRefusedError(
            f"The payment reference {order.reference!r} stands for a payment with {first}; this one has {now}. Nothing "
            "was sent. Give another payment another reference."
        )


def _refuse_in_doubt(found: Payment, now: datetime) -> None:
    if found.in_doubt_until is not None and now < found.in_doubt_until:
        seconds = (found.in_doubt_until - now).total_seconds()
        raise PaymentRefusedError(
            f"Its request may still be on its way. Look at the exchange again in {seconds:.0f} s. Nothing was changed."
        )


def _why_not(found: Payment) -> str:
    reference = found.order.reference
    if found.step == Step.SENT:
        return f"The payment {reference!r} was sent already: it is {found.exchange_id} at the exchange."
    if found.step == Step.HELD:
        return f"A person holds the payment {reference!r}: {found.reason}. Nothing was sent by this attempt."
    until = f" (in doubt until {found.in_doubt_until.isoformat()})" if found.in_doubt_until else ""
    return (
        f"The payment {reference!r} is {found.step}{until}: it may exist at the exchange. Nothing was sent by this "
        "attempt. Look it up there, then settle it: airflow quoine payments exists or absent."
    )
