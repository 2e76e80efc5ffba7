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

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_quoine.exchange.models import is_issued_id
from airflow_provider_quoine.payments.chain import faults as chain_faults
from airflow_provider_quoine.payments.records import Head, History, Order, Payment, Pin
from airflow_provider_quoine.payments.refusals import (
    LedgerUnusableError,
    PaymentRefusedError,
    refuse_another,
    refuse_in_doubt,
    refuse_unsendable,
    why_not,
)
from airflow_provider_quoine.payments.replay import head_faults, payment_faults
from airflow_provider_quoine.payments.schema import (
    EVENTS,
    EXPORTED,
    IN_DOUBT,
    LATE,
    LEDGER,
    PAYMENTS,
    READING,
    SENDABLE,
    SETTLED_BY,
    Kind,
    Note,
    Step,
    late,
)
from airflow_provider_quoine.payments.transaction import (
    Transaction,
    as_text,
    clean,
    database_time,
    history_of,
    is_for,
    late_ids,
    names_of,
    payment_of,
)

SEND_WITHIN = timedelta(seconds=5)
"""Between ``sending`` in the ledger and the first byte of the request (decisions, Payments)."""
TELLS_WITHIN = timedelta(minutes=1)
"""After its request can be under way no more: so long a task may take to tell people of an unknown outcome itself."""
READ_AT_ONCE = 1000
"""Events that are in memory."""


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
        self._clock = clock or database_time

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """
        Lock the ledger, so that writers follow each other; commit at the end, or nothing.

        :raises LedgerUnusableError: if it is not the ledger that Airflow remembers, or an older state of it.
        """
        with self._locked() as at:
            at.check(self._pin.read())
            yield at

    @contextmanager
    def _remembered(self) -> Iterator[Transaction]:
        """Do as :meth:`transaction`, and have Airflow remember it after the commit."""
        with self.transaction() as at:
            yield at
        # Under the lock again, so that Airflow's memory never goes back.
        with self._locked() as at:
            try:
                # Another ledger may have been remembered meanwhile, where none was before.
                at.check(self._pin.read())
                self._pin.write(at.head)
                at.check(self._pin.read())
            except SQLAlchemyError as error:
                raise LedgerUnusableError.forgotten(error) from error

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
        :raises PaymentRefusedError: if it is in doubt, held, or another payment than this; if it may be paid twice;
            or if payments are stopped.
        """
        with self.transaction() as at:
            found = at.find_or_add(order, actor=actor)
            refuse_unsendable(found)
            if found.step == Step.SENT:
                at.refuse_paid_twice(found)
            else:
                at.refuse_if_stopped()
            return found

    def look(self, order: Order) -> Payment | None:
        """
        Find a reference's payment as :meth:`prepare` does, and begin none.

        :raises PaymentRefusedError: as :meth:`prepare`.
        """
        with self.transaction() as at:
            found = at.find(order)
            if found is not None:
                if not at.may_have_other_details(found):
                    refuse_another(found, order)
                refuse_unsendable(found)
                at.refuse_paid_twice(found)
            return found

    def note(self, order: Order, event: str, *, actor: str, **data: Any) -> None:
        """Append an event that changes nothing, such as a question to a person; nothing secret and nothing personal."""
        with self.transaction() as at:
            at.append(order, event, actor=actor, **data)

    def note_run(self, order: Order, *, started_by: str, task: str) -> None:
        """
        Write down that a person has started a run for a payment, once for each person; nothing if it was not begun.

        Airflow is made to remember it, because whoever asks for a payment must not approve it, in any run.

        :param task: where in Airflow the run is, for a person.
        """
        if self.find(order) is None or self.history(order).has_asked(started_by):
            return
        with self._remembered() as at:
            at.append(order, Note.RUN_STARTED, actor=task, started_by=started_by)

    def reject(self, order: Order, *, who: str, user_id: str, task: str) -> None:
        """
        Write down that a person has rejected a payment: the approvals given so far count no more.

        :param user_id: Airflow's id of the person.
        :param task: where in Airflow it was, for a person.
        """
        with self._remembered() as at:
            at.append(order, Note.REJECTED, actor=who, user_id=user_id, task=task)

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
            at.refuse_if_stopped()
            at.refuse_changed(order)
            policy = allow(at)
            until = as_text(at.now + in_flight)
            became = at.change(
                order,
                if_step=SENDABLE,
                step=Step.SENDING,
                owner=attempt,
                task=task,
                reserved_at=as_text(at.now),
                in_doubt_until=until,
                policy=policy,
                reason="",
            )
            if not became:
                found = at.find(order)
                raise PaymentRefusedError(why_not(found) if found else "The payment was not prepared.")
            at.append(order, Step.SENDING, actor=task, attempt=attempt, policy=policy, in_doubt_until=until)

    def finish(
        self,
        order: Order,
        *,
        attempt: str,
        step: Step,
        exchange_id: str | None = None,
        state: str = "",
        reason: str = "",
    ) -> bool:
        """
        Write an attempt's result over its own ``sending``, and over nothing else.

        :param step: ``sent`` with the exchange's id, ``refused``, ``unknown``, or ``prepared`` if no byte left.
        :param state: the exchange's word for where it stands there.
        :return: whether that is in the ledger now. It is not if a person has settled the payment meanwhile; a request
            that may have been carried out after that makes it ``unknown`` again, where it would be sent once more. Nor
            is it if the id is another payment's, because one of the two may not exist: this one is ``unknown`` then.
        """
        wanted = step
        with self.transaction() as at:
            if exchange_id and (other := at.other_payment(order, exchange_id)):
                step, reason = Step.UNKNOWN, f"the exchange answered with id {exchange_id}, which is payment {other!r}"
                exchange_id, state = None, ""
            if step in SENDABLE and at.history(order).has_late_answer:
                step, reason = Step.UNKNOWN, f"another attempt's request was answered late; this one: {step} {reason}"
            wrote = at.change(
                order,
                if_step=frozenset({Step.SENDING}),
                if_owner=attempt,
                step=step,
                exchange_id=exchange_id,
                state=state,
                reason=reason,
                **SETTLED_BY[step],
            )
            event = str(step) if wrote else late(step)
            if event in LATE:
                why = f"attempt {attempt} answered after a person had settled it: {step} {exchange_id or reason}"
                at.change(order, if_step=SENDABLE, step=Step.UNKNOWN, reason=why, reserved_at=as_text(at.now))
            at.append(order, event, actor=attempt, exchange_id=exchange_id, state=state, reason=reason)
            return wrote and step == wanted

    def still_sends(self, order: Order, *, attempt: str) -> bool:
        """Whether a payment is still ``sending`` by this attempt, and payments are not stopped."""
        with self._reading() as connection:
            row = connection.execute(select(PAYMENTS.c.step, PAYMENTS.c.owner).where(is_for(order))).one()
            stopped = connection.execute(select(LEDGER.c.stopped_at)).scalar_one()
        return (row.step, row.owner) == (Step.SENDING, attempt) and not stopped

    def confirm(self, order: Order, *, exchange_id: str, task: str) -> None:
        """
        Write down that a task goes on with the id that a person has recorded: it can be corrected no more.

        :param exchange_id: as the task has looked it up.
        :param task: where in Airflow it is, for a person.
        :raises PaymentRefusedError: if a person has corrected it, or taken it back, meanwhile; or if it may be paid
            twice.
        """
        with self.transaction() as at:
            at.refuse_changed(order)
            found = at.get(order)
            if (found.step, found.exchange_id) != (Step.SENT, exchange_id):
                raise PaymentRefusedError(
                    f"A person has decided otherwise about {order.name[0].lower()}{order.name[1:]} while this task "
                    f"looked up {exchange_id}. Nothing was sent by this attempt. Clear the task."
                )
            at.refuse_paid_twice(found)
            if at.history(order).may_be_corrected:
                at.append(order, Note.CONFIRMED, actor=task, exchange_id=exchange_id)

    def see(self, order: Order, *, exchange_id: str, state: str, actor: str) -> None:
        """
        Write down in which state the exchange has a payment, if that is new.

        :param exchange_id: under which it was seen; nothing is written if the ledger has another.
        :param state: the exchange's word.
        :param actor: the task.
        """
        with self.transaction() as at:
            at.see(order, exchange_id=exchange_id, state=state, actor=actor)

    def hold(self, order: Order, *, who: str, why: str) -> None:
        """
        Take a payment out of every task's hands, before somebody pays it elsewhere. No task need know it yet.

        One that a person has recorded as paid is held again, as long as no task has gone on with that.

        :raises PaymentRefusedError: if it is sent already, or its request may still be under way.
        """
        with self._remembered() as at:
            found = at.find_or_add(order, actor=who)
            by_a_person = found.step == Step.SENT and at.history(order).may_be_corrected
            if found.step in IN_DOUBT or by_a_person:
                refuse_in_doubt(found, at.now)
            elif found.step not in SENDABLE:
                raise PaymentRefusedError(why_not(found))
            at.change(
                order,
                if_step=SENDABLE | IN_DOUBT | {Step.SENT},
                step=Step.HELD,
                exchange_id=None,
                state="",
                reason=why,
                in_doubt_until=None,
            )
            at.append(order, Step.HELD, actor=who, why=why)

    def release(self, order: Order, *, who: str, why: str) -> None:
        """
        Give a held payment back to its task; one that was in doubt is in doubt again.

        A payment that was not in doubt may have other details from then on: nothing of it is at the exchange.

        :raises PaymentRefusedError: if it is not held.
        """
        with self._remembered() as at:
            found = at.get(order)
            if found.step != Step.HELD:
                raise PaymentRefusedError(f"{order.name} is {found.step}, not held. Nothing was changed.")
            history = at.history(order)
            step = Step.UNKNOWN if history.was_in_doubt() or history.has_late_answer else Step.PREPARED
            at.change(order, if_step=frozenset({Step.HELD}), step=step, reason=why)
            at.append(order, "released", actor=who, why=why, step=step)

    def exists(self, order: Order, *, exchange_id: str, who: str, why: str, compared: bool = False) -> None:
        """
        Record that the exchange carried a payment out, or that it was paid by hand while it was held.

        The id that the ledger has already may be given with other names by which it is looked up, and changes those.
        An id that a person has recorded while the request was on its way may be corrected after the exchange's answer.

        :param exchange_id: positive whole number.
        :param compared: whether amount and address were seen to be the same at the exchange.
        :raises PaymentRefusedError: if it is neither in doubt nor held, nor settled so before; or if a task has gone
            on with the id.
        """
        if not is_issued_id(exchange_id):
            raise PaymentRefusedError(f"{exchange_id!r:.80} is no id of the exchange. Nothing was changed.")
        with self._remembered() as at:
            found = at.get(order)
            names = names_of(order)
            if (found.step, found.exchange_id) == (Step.SENT, exchange_id) and names != names_of(found.order):
                at.keep_names(order)
                renamed = {"before": names_of(found.order), "compared": compared, **names}
                at.append(order, Note.RENAMED, actor=who, why=why, **renamed)
                return
            history = at.history(order)
            if task := history.confirmed_by:
                raise PaymentRefusedError(
                    f"{order.name} is {found.exchange_id}, and {task} has gone on with that. Nothing was changed."
                )
            if found.step == Step.SENT and not (history.may_be_corrected or history.another_id(found.exchange_id)):
                raise PaymentRefusedError(
                    f"The exchange itself answered with id {found.exchange_id}. Nothing was changed."
                )
            if found.step not in IN_DOUBT | {Step.HELD, Step.SENT}:
                raise PaymentRefusedError(
                    f"{order.name} is {found.step}: there is nothing to settle. Nothing was changed."
                )
            if other := at.other_payment(order, exchange_id):
                raise PaymentRefusedError(
                    f"{exchange_id} is the payment {other!r} already, so it is not this one. Nothing was changed."
                )
            at.keep_names(order)
            at.change(
                order,
                if_step=IN_DOUBT | {Step.HELD, Step.SENT},
                step=Step.SENT,
                exchange_id=exchange_id,
                state="",
                reason=why,
                reserved_at=func.coalesce(PAYMENTS.c.reserved_at, as_text(at.now)),
            )
            before = found.exchange_id
            at.append(order, "exists", actor=who, exchange_id=exchange_id, before=before, why=why, compared=compared)

    def absent(self, order: Order, *, who: str, why: str, user_id: str = "") -> bool:
        """
        Record that the exchange did not carry a payment out, so that its task may send it.

        A payment that people have approved needs two people to say so.

        :param user_id: Airflow's id of the person, by whom the page knows one who has another name by now.
        :return: whether it is settled; if not, a second person has to say the same.
        :raises PaymentRefusedError: if it is not in doubt, or its request may still be under way.
        """
        with self._remembered() as at:
            found = at.get(order)
            history = at.history(order)
            if found.step not in IN_DOUBT and not history.may_be_taken_back:
                raise PaymentRefusedError(
                    f"{order.name} is {found.step}, so there is no doubt to settle. Nothing was changed."
                )
            refuse_in_doubt(found, at.now)
            if history.needs_second_person(who, user_id):
                if all(event.actor != clean(who) for event in history.said_absent):
                    at.append(order, Note.ABSENT_ASKED, actor=who, why=why, user_id=user_id)
                return False
            at.change(
                order,
                if_step=frozenset({Step(found.step)}),
                step=Step.PREPARED,
                exchange_id=None,
                state="",
                reason=why,
                **SETTLED_BY[Step.PREPARED],
            )
            at.append(order, "absent", actor=who, why=why)
            return True

    def stop(self, *, who: str, why: str) -> None:
        """
        Stop all payments: once this has returned, nobody begins to send.

        It returns after the commit, and after the seconds in which an attempt that began before may still send.
        """
        with self._remembered() as at:
            stopped = {"stopped_at": as_text(at.now), "stopped_by": clean(who), "stopped_why": clean(why)}
            at.connection.execute(update(LEDGER).values(stopped))
            at.append(None, "stopped", actor=who, why=why)
            begun = at.newest_sending()
        if begun is not None:
            # No longer than that, also where the clock was set back meanwhile.
            left = min(SEND_WITHIN, begun + SEND_WITHIN - at.now)
            time.sleep(max(0.0, left.total_seconds()))

    def resume(self, *, who: str, why: str) -> None:
        """Let payments go on."""
        with self._remembered() as at:
            at.connection.execute(update(LEDGER).values(stopped_at=None, stopped_by=None, stopped_why=None))
            at.append(None, "resumed", actor=who, why=why)

    def exported(self, *, who: str, **what: Any) -> Head:
        """
        Write down which events somebody has exported.

        :param what: the period, and the first and the last event.
        :return: the event that says so.
        """
        with self._remembered() as at:
            at.append(None, EXPORTED, actor=who, **what)
            return at.head

    def check(self) -> str:
        """
        Check that this is the ledger that Airflow remembers, and hold nobody up.

        :return: why payments are stopped; empty if they are not.
        :raises LedgerUnusableError: if it is another ledger, or an older state of it.
        """
        with self.looking() as at:
            return at.stopped_why or ""

    @contextmanager
    def looking(self) -> Iterator[Transaction]:
        """
        Look at one state of the ledger, and hold nobody up; nothing may be changed in it.

        :raises LedgerUnusableError: as :meth:`check`.
        """
        # Before the ledger, which may only be further by then.
        pinned = self._pin.read()
        with self._reading() as connection:
            head = connection.execute(select(LEDGER)).mappings().one()
            at = Transaction(connection, head, self._clock(connection))
            at.check(pinned)
            yield at

    def find(self, order: Order) -> Payment | None:
        """Return the payment of an order's reference, without locking."""
        with self._reading() as connection:
            row = connection.execute(select(PAYMENTS).where(is_for(order))).mappings().one_or_none()
        return None if row is None else payment_of(row)

    def named(self, reference: str, kind: Kind) -> list[Payment]:
        """Return the payments of a reference, of every exchange."""
        return self._payments(PAYMENTS.c.reference == reference, PAYMENTS.c.kind == kind)

    def unfinished(self) -> list[Payment]:
        """Return the payments that are neither sent nor refused, or may be paid twice, the oldest first."""
        twice = [is_for(order) for order in self.late_ids()]
        return self._payments(or_(PAYMENTS.c.step.not_in({Step.SENT, Step.REFUSED}), *twice))

    def late_ids(self) -> dict[Order, str]:
        """Return the payments that may be paid twice, each with the other id; see :func:`.transaction.late_ids`."""
        with self._reading() as connection:
            return late_ids(connection)

    def untold_doubts(self) -> list[Payment]:
        """
        Return the payments in doubt of which nobody was told, the oldest first.

        One whose request may be under way is not among them, nor one whose task may be about to tell people itself.

        :raises LedgerUnusableError: as :meth:`check`.
        """
        with self.looking() as at:
            until = PAYMENTS.c.in_doubt_until
            over = or_(until.is_(None), until <= as_text(at.now - TELLS_WITHIN))
            query = select(PAYMENTS).where(PAYMENTS.c.step.in_(IN_DOUBT), over).order_by(PAYMENTS.c.changed_at)
            found = [payment_of(row) for row in at.connection.execute(query).mappings().all()]
            return [payment for payment in found if at.history(payment.order).has_untold_doubt]

    def all(self) -> list[Payment]:
        """Return all payments, the oldest first."""
        return self._payments()

    def _payments(self, *conditions: Any) -> list[Payment]:
        query = select(PAYMENTS).where(*conditions).order_by(PAYMENTS.c.changed_at)
        with self._reading() as connection:
            return [payment_of(row) for row in connection.execute(query).mappings()]

    def history(self, order: Order) -> History:
        """Return the events of a payment, the oldest first."""
        with self._reading() as connection:
            return history_of(connection, order)

    def span(self, *, since: datetime, until: datetime) -> tuple[Head, int, int]:
        """
        Find the events of a period.

        A clock that was set back does not tear them apart: all from the first to the last one belong to it.

        :param until: is not in it.
        :return: the last event of the ledger, and the numbers of the first and the last one of the period; the last one
            is one less than the first if there is none.
        """
        number, at = EVENTS.c.number, EVENTS.c.at
        within = select(func.min(number), func.max(number)).where(at >= as_text(since), at < as_text(until))
        earlier = select(func.max(number)).where(at < as_text(since))
        with self.transaction() as found:
            first, last = found.connection.execute(within).one()
            if first is None:
                last = found.connection.execute(earlier).scalar() or 0
            return found.head, first or last + 1, last

    def events(self, first: int, last: int) -> Iterator[dict[str, Any]]:
        """Give the columns of some events, in their order."""
        # By parts: who takes them may be slow, and a query that stays open keeps SQLite's log growing.
        for start in range(first, last + 1, READ_AT_ONCE):
            part = EVENTS.c.number.between(start, min(start + READ_AT_ONCE - 1, last))
            with self._reading() as connection:
                rows = connection.execute(select(EVENTS).where(part).order_by(EVENTS.c.number)).mappings().all()
            yield from map(dict, rows)

    def hashes(self, numbers: list[int]) -> dict[int, str]:
        """Return the hashes of some events; of those that there are."""
        query = select(EVENTS.c.number, EVENTS.c.hash).where(EVENTS.c.number.in_(numbers))
        with self._reading() as connection:
            return {row.number: row.hash for row in connection.execute(query)}

    @property
    def identity(self) -> str:
        """Which ledger this is."""
        with self._reading() as connection:
            return str(connection.execute(select(LEDGER.c.identity)).scalar_one())

    def faults(self) -> list[str]:
        """
        Name every event that was edited, removed, added or put elsewhere, and every payment that does not follow from
        its events.
        """
        with self._reading() as connection:
            head = connection.execute(select(LEDGER)).mappings().one()
            # A year's events do not fit into memory at once.
            in_parts = connection.execution_options(yield_per=1000)
            events = in_parts.execute(select(EVENTS).order_by(EVENTS.c.number)).mappings()
            of_chain = chain_faults(map(dict, events), head=head["head"], head_hash=head["head_hash"])
            return [*of_chain, *head_faults(connection, head, self._pin.read()), *payment_faults(in_parts)]

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.execution_options(**{READING: True}).connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise LedgerUnusableError.unreachable(self._engine.url, error) from error
