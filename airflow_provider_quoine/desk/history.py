"""All that happened to one payment, and whether its rows are as they were written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from airflow.sdk.exceptions import AirflowNotFoundException
from sqlalchemy import RowMapping, select

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.payments.chain import FIRST_HASH
from airflow_provider_quoine.payments.chain import faults as chain_faults
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.records import Event, History, Order, Payment
from airflow_provider_quoine.payments.replay import payment_faults
from airflow_provider_quoine.payments.schema import EVENTS, Step
from airflow_provider_quoine.payments.transaction import Transaction, event_of

MOST_EVENTS = 500
"""Of a payment that are shown, the newest."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """
    What happened to a payment.

    :param events: all that can be read, the oldest first.
    :param shown: the newest of them.
    :param faults: what is wrong with the payment's rows in the ledger.
    """

    events: History
    shown: Sequence[Event]
    faults: list[str]

    def who(self, event: Event) -> str:
        """Return who did it; of an attempt, which has but a number, its task."""
        return self._tasks.get(event.actor, event.actor)

    @cached_property
    def _tasks(self) -> dict[str, str]:
        """Of each attempt."""
        return {str(each.data.get("attempt")): each.actor for each in self.events if each.event == Step.SENDING}


def tell(ledger: Ledger, order: Order) -> Told:
    """
    Read what happened to a payment, and check its rows.

    Each event must have its hash and follow the one before it in the chain, and the payment must follow from its
    events. An event that was removed as a whole shows only where all events are checked.
    """
    of_order = (EVENTS.c.exchange == order.exchange, EVENTS.c.kind == order.kind, EVENTS.c.reference == order.reference)
    in_order = select(EVENTS).where(*of_order).order_by(EVENTS.c.number)
    with ledger.looking() as at:
        rows = at.connection.execute(in_order).mappings().all()
        faults = _chain_faults(at, rows[-MOST_EVENTS:])
        faults += payment_faults(at.connection, reference=order.reference)
    events = readable(rows)
    return Told(events=events, shown=events[-MOST_EVENTS:], faults=faults)


def _chain_faults(at: Transaction, rows: Sequence[RowMapping]) -> list[str]:
    before = [row["number"] - 1 for row in rows]
    known = {0: FIRST_HASH}
    query = select(EVENTS.c.number, EVENTS.c.hash).where(EVENTS.c.number.in_(before))
    known |= {row.number: row.hash for row in at.connection.execute(query)}
    faults: list[str] = []
    for row in rows:
        number = row["number"]
        if number - 1 not in known:
            faults.append(f"Event {number - 1} is missing.")
        faults += chain_faults(
            [dict(row)], head=number, head_hash=row["hash"], after=number - 1, after_hash=known.get(number - 1, "")
        )
    return faults


def readable(rows: Iterable[RowMapping]) -> History:
    """Return the events that can be read: some may have been changed by other means."""
    events: list[Event] = []
    for row in rows:
        try:
            events.append(event_of(row))
        except (TypeError, ValueError):
            continue
    return History(events)


def page_at_exchange(payment: Payment) -> str:
    """Return the address of a withdrawal's page at the exchange; empty if the connection has none."""
    if not (payment.exchange_id and payment.order.conn_id):
        return ""
    try:
        page = QuoineHook(payment.order.conn_id).settings.extras.withdrawal_link or ""
    except (QuoineInputError, AirflowNotFoundException, ValueError):
        return ""
    return page.replace("{id}", payment.exchange_id)
