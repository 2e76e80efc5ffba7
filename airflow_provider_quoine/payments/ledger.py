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
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

from sqlalchemy import URL, Connection, Engine, RowMapping, and_, func, insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_quoine.exchange.models import is_issued_id
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


DECIDES = frozenset({*Step, "exists", "absent", "released"})
"""Events that say where a payment stands."""

_REFERENCE = re.compile(r"[^\W_-][^\x00-\x1f\x7f-\x9f]{0,199}")


class PaymentError(Exception):
    """A payment cannot go on by itself; the text says why and what to do. It is never retried."""


class LedgerUnusableError(PaymentError):
    """The ledger cannot be used, so nothing is sent."""

    @classmethod
    def unreachable(cls, url: URL, error: Exception) -> LedgerUnusableError:
        """
        Say that a database cannot be reached, or failed.

        :param url: of the database; its password is not shown.
        """
        words = str(getattr(error, "orig", None) or error).strip()
        return cls(
            f"The ledger of payments in {url.render_as_string()} cannot be reached, or it failed. Nothing is sent "
            "without it; a request that was under way before stays in doubt. Once the database answers, clear the "
            f"task. The database's own words: {words}"
        )


class PaymentRefusedError(PaymentError):
    """The ledger does not allow it. Nothing was sent and nothing was changed."""


class PaymentInDoubtError(PaymentError):
    """It was sent, and the exchange may have carried it out."""


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
    def name(self) -> str:
        """The payment, for a message."""
        return f"The payment {self.reference!r}" if self.kind == Kind.WITHDRAWAL else f"The new user {self.reference}"

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


@dataclass(frozen=True, kw_only=True)
class Event:
    """
    What happened to a payment, or to the ledger.

    :param number: in the chain, from 1.
    :param at: UTC.
    :param event: a step, or a person's decision.
    :param actor: the person, the task, or the attempt.
    :param data: the rest.
    """

    number: int
    at: datetime
    event: str
    actor: str
    data: dict[str, Any]


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
        try:
            with self._engine.begin() as connection:
                head = connection.execute(select(LEDGER).with_for_update()).mappings().one()
                yield Transaction(connection, head, self._clock(connection))
        except SQLAlchemyError as error:
            raise LedgerUnusableError.unreachable(self._engine.url, error) from error

    def prepare(self, order: Order, *, actor: str) -> Payment:
        """
        Find a reference's payment, or begin it. Nothing is sent by this.

        :return: the payment: ``prepared``, ``refused`` (it may be sent again), or ``sent`` with its id.
        :raises PaymentRefusedError: if it is in doubt, held, or another payment than this.
        """
        with self.transaction() as at:
            found = at.find_or_add(order, actor=actor)
            _refuse_unsendable(found)
            return found

    def look(self, order: Order) -> Payment | None:
        """
        Find a reference's payment as :meth:`prepare` does, and begin none.

        :raises PaymentRefusedError: as :meth:`prepare`.
        """
        with self.transaction() as at:
            found = at.find(order)
            if found is not None:
                _refuse_another(found, order)
                _refuse_unsendable(found)
            return found

    def note(self, order: Order, event: str, *, actor: str, **data: Any) -> None:
        """Append an event that changes nothing, such as a question to a person; nothing secret and nothing personal."""
        with self.transaction() as at:
            at.append(order, event, actor=actor, **data)

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
                raise PaymentRefusedError(
                    f"{order.name} is {_existing(at, order).step}, not held. Nothing was changed."
                )
            at.append(order, "released", actor=who, why=why)

    def exists(self, order: Order, *, exchange_id: str, who: str, why: str) -> None:
        """
        Record that the exchange carried a payment out, or that it was paid by hand while it was held.

        :param exchange_id: positive whole number.
        :raises PaymentRefusedError: if it is neither in doubt nor held, nor settled so before.
        """
        if not is_issued_id(exchange_id):
            raise PaymentRefusedError(f"{exchange_id!r:.80} is no id of the exchange. Nothing was changed.")
        with self._remembered() as at:
            found = _existing(at, order)
            if found.step == Step.SENT and not _settled_by_a_person(at, order):
                raise PaymentRefusedError(
                    f"The exchange itself answered with id {found.exchange_id}. Nothing was changed."
                )
            if found.step not in IN_DOUBT | {Step.HELD, Step.SENT}:
                raise PaymentRefusedError(
                    f"{order.name} is {found.step}: there is nothing to settle. Nothing was changed."
                )
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
                raise PaymentRefusedError(
                    f"{order.name} is {found.step}, so there is no doubt to settle. Nothing was changed."
                )
            _refuse_in_doubt(found, at.now)
            at.change(order, if_step=IN_DOUBT, step=Step.PREPARED, reason=why, in_doubt_until=None)
            at.append(order, "absent", actor=who, why=why)

    def stop(self, *, who: str, why: str) -> None:
        """Stop all payments: from this commit on nobody starts to send."""
        with self._remembered() as at:
            at.connection.execute(update(LEDGER).values(stopped_at=_text(at.now), stopped_by=who, stopped_why=why))
            at.append(None, "stopped", actor=who, why=why)

    def resume(self, *, who: str, why: str) -> None:
        """Let payments go on."""
        with self._remembered() as at:
            at.connection.execute(update(LEDGER).values(stopped_at=None, stopped_by=None, stopped_why=None))
            at.append(None, "resumed", actor=who, why=why)

    def find(self, order: Order) -> Payment | None:
        """Return the payment of an order's reference, without locking."""
        with self._engine.connect() as connection:
            row = connection.execute(select(PAYMENTS).where(_is(order))).mappings().one_or_none()
        return None if row is None else _payment(row)

    def named(self, reference: str, kind: Kind) -> list[Payment]:
        """Return the payments of a reference, of every exchange."""
        return self._payments(PAYMENTS.c.reference == reference, PAYMENTS.c.kind == kind)

    def unfinished(self) -> list[Payment]:
        """Return the payments that are neither sent nor refused, the oldest first."""
        return self._payments(PAYMENTS.c.step.not_in({Step.SENT, Step.REFUSED}))

    def all(self) -> list[Payment]:
        """Return all payments, the oldest first."""
        return self._payments()

    def _payments(self, *conditions: Any) -> list[Payment]:
        query = select(PAYMENTS).where(*conditions).order_by(PAYMENTS.c.changed_at)
        with self._engine.connect() as connection:
            return [_payment(row) for row in connection.execute(query).mappings()]

    def history(self, order: Order) -> list[Event]:
        """Return the events of a payment, the oldest first."""
        mine = and_(
            EVENTS.c.exchange == order.exchange, EVENTS.c.kind == order.kind, EVENTS.c.reference == order.reference
        )
        with self._engine.connect() as connection:
            rows = connection.execute(select(EVENTS).where(mine).order_by(EVENTS.c.number)).mappings().all()
        return [
            Event(
                number=row["number"],
                at=datetime.fromisoformat(row["at"]),
                event=row["event"],
                actor=row["actor"],
                data=json.loads(row["data"]),
            )
            for row in rows
        ]

    @property
    def identity(self) -> str:
        """Which ledger this is."""
        with self._engine.connect() as connection:
            return str(connection.execute(select(LEDGER.c.identity)).scalar_one())

    def faults(self) -> list[str]:
        """Name every event that was edited, removed, added or put elsewhere."""
        with self._engine.connect() as connection:
            head = connection.execute(select(LEDGER)).mappings().one()
            # A year's events do not fit into memory at once.
            in_parts = connection.execution_options(yield_per=1000)
            events = in_parts.execute(select(EVENTS).order_by(EVENTS.c.number)).mappings()
            return list(faults(map(dict, events), head=head["head"], head_hash=head["head_hash"]))


def check_reference(reference: Any) -> str:
    """
    Check a payment reference, as a template has rendered it.

    :return: the reference, without blanks around it.
    :raises PaymentRefusedError: if it is no text, is empty, is too long or cannot be typed as an argument.
    """
    text = reference.strip() if isinstance(reference, str) else ""
    # "None" is what a template makes of a value that is missing.
    if text == "None" or not _REFERENCE.fullmatch(text):
        raise PaymentRefusedError(
            f"{reference!r:.80} is no payment reference, so nothing was sent. Give text of at most 200 characters that "
            "begins with a letter or a digit and is unique to the payment, such as an invoice's number."
        )
    return text


def how_to_settle(order: Order) -> str:
    """Return the steps by which a person settles an unknown outcome."""
    where = shlex.quote(order.reference) + (" --kind user" if order.kind == Kind.USER else "")
    command = "airflow quoine payments"
    return (
        f"Look it up at the exchange. If it exists: {command} exists {where} --id ID --why WHY. If it does not: "
        f"{command} absent {where} --why WHY. Then clear this task."
    )


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
            "restored from a backup, so payments made since are not in it. Nothing was sent. Restore a newer one, or "
            "follow 'A ledger from a backup' in the documentation of payments."
        )


def _settled_by_a_person(at: Transaction, order: Order) -> bool:
    mine = and_(EVENTS.c.exchange == order.exchange, EVENTS.c.kind == order.kind, EVENTS.c.reference == order.reference)
    # Late results and notes are written down, and change nothing.
    mine = and_(mine, EVENTS.c.event.in_(DECIDES))
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


def _refuse_unsendable(found: Payment) -> None:
    if found.step not in SENDABLE | {Step.SENT}:
        raise PaymentRefusedError(_why_not(found))


def _refuse_in_doubt(found: Payment, now: datetime) -> None:
    if found.in_doubt_until is not None and now < found.in_doubt_until:
        seconds = (found.in_doubt_until - now).total_seconds()
        raise PaymentRefusedError(
            f"Its request may still be on its way. Look at the exchange again in {seconds:.0f} s. Nothing was changed."
        )


def _why_not(found: Payment) -> str:
    order = found.order
    if found.step == Step.SENT:
        return f"{order.name} was sent already: it is {found.exchange_id} at the exchange."
    if found.step == Step.HELD:
        return (
            f"A person holds {order.name[0].lower()}{order.name[1:]}: {found.reason}. Nothing was sent by this "
            "attempt. It goes on once it is released (airflow quoine payments release) or recorded as paid (exists)."
        )
    until = f" (in doubt until {found.in_doubt_until.isoformat(timespec='seconds')})" if found.in_doubt_until else ""
    because = f" Why: {found.reason}" if found.reason else ""
    return (
        f"{order.name} is {found.step}{until}: its outcome is unknown, and it may exist at the exchange. Nothing was "
        f"sent by this attempt. {how_to_settle(order)} It was sent by {found.task}.{because}"
    )
