"""What a payment's row has to be after its events. A row that differs was changed by other means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, exists, select

from airflow_provider_quoine.payments.records import SATOSHIS, Event, Head
from airflow_provider_quoine.payments.schema import EVENTS, LATE, PAYMENTS, SENDABLE, SETTLED_BY, Note, Step
from airflow_provider_quoine.payments.transaction import as_text, event_of

DETAILS = ("account", "user_id", "address", "amount")
"""Of the order, as its first event has them."""

REPLAYED = (*DETAILS, "step", "owner", "exchange_id", "policy", "reserved_at", "in_doubt_until", "state")
"""What follows from the events."""

KEY = ("exchange", "kind", "reference")
NOW = ("satoshis", *(name for name in REPLAYED if name != "amount"))
"""The columns of a payment's row that are compared."""

DECISIONS: dict[str, dict[str, Any]] = {
    Step.HELD: {"step": Step.HELD, "exchange_id": None, "state": "", "in_doubt_until": None},
    "released": {},
    "absent": {"step": Step.PREPARED, "exchange_id": None, "state": "", **SETTLED_BY[Step.PREPARED]},
    "exists": {"step": Step.SENT, "state": ""},
}
"""What a person's decision makes of a payment; ``released`` and ``exists`` have the rest in their data."""


def replay(events: Iterable[Event]) -> dict[str, Any]:
    """
    Return the columns of a payment after its events.

    :param events: of one payment, the oldest first.
    :return: of :data:`REPLAYED`; times as the tables have them.
    """
    row: dict[str, Any] = dict.fromkeys(REPLAYED) | {"state": ""}
    for event in events:
        if event.event == Step.PREPARED and "amount" in event.data:
            row.update({name: event.data[name] for name in DETAILS}, step=Step.PREPARED)
        elif event.event == Step.SENDING:
            sending = {"owner": event.data["attempt"], "policy": event.data["policy"], "reserved_at": as_text(event.at)}
            row.update(sending, step=Step.SENDING, in_doubt_until=event.data["in_doubt_until"])
        elif event.event in DECISIONS:
            row.update(DECISIONS[event.event])
            row.update({name: event.data[name] for name in ("step", "exchange_id") if name in event.data})
            if event.event == "exists":
                row["reserved_at"] = row["reserved_at"] or as_text(event.at)
        elif event.event == Note.SEEN:
            row["state"] = event.data["state"]
        elif event.event in SETTLED_BY:
            row.update(SETTLED_BY[Step(event.event)], step=event.event, exchange_id=event.data["exchange_id"])
            # An event of the first schema has no state.
            row["state"] = event.data.get("state", "")
        elif event.event in LATE and row["step"] in SENDABLE:
            row.update(step=Step.UNKNOWN, reserved_at=as_text(event.at))
    return row


def head_faults(connection: Connection, head: RowMapping, pinned: Head | None) -> Iterator[str]:
    """
    Name what is wrong with the ledger's own row.

    :param connection: to the ledger.
    :param head: its row.
    :param pinned: what Airflow remembers.
    """
    if pinned is not None and pinned.number:
        known = connection.execute(select(EVENTS.c.hash).where(EVENTS.c.number == pinned.number)).scalar()
        if (head["identity"], known) != (pinned.identity, pinned.hash):
            yield f"Airflow remembers event {pinned.number}, which is missing or another: the end was removed."
    switched = select(EVENTS.c.event).where(EVENTS.c.event.in_(("stopped", "resumed")), EVENTS.c.reference == "")
    last = connection.execute(switched.order_by(EVENTS.c.number.desc()).limit(1)).scalar()
    if (last == "stopped") != (head["stopped_at"] is not None):
        yield "Whether payments are stopped does not follow from the events: it was edited."


def payment_faults(connection: Connection, *, reference: str = "") -> Iterator[str]:
    """
    Name every payment that does not follow from its events.

    :param connection: to the ledger; it reads row by row.
    :param reference: look at payments with this one only.
    """
    same = and_(*(PAYMENTS.c[name] == EVENTS.c[name] for name in KEY))
    rows = select(EVENTS, *(PAYMENTS.c[name].label(f"now_{name}") for name in NOW)).join(PAYMENTS, same, isouter=True)
    which = EVENTS.c.reference == reference if reference else EVENTS.c.reference != ""
    rows = rows.where(which).order_by(*(EVENTS.c[name] for name in KEY), EVENTS.c.number)
    for _, group in groupby(connection.execute(rows).mappings(), key=lambda row: [row[name] for name in KEY]):
        yield from _differences(list(group))
    without_events = select(PAYMENTS.c.reference).where(~exists().where(same))
    if reference:
        without_events = without_events.where(PAYMENTS.c.reference == reference)
    for reference in connection.execute(without_events).scalars():
        yield f"Payment {reference!r} has no event: its row was added."


def _differences(rows: list[RowMapping]) -> Iterator[str]:
    first = rows[0]
    if first["now_step"] is None:
        yield f"Payment {first['reference']!r} has events and no row: its row was removed."
        return
    amount = f"{Decimal(first['now_satoshis']) / SATOSHIS:f}"
    now = {**{name: first[f"now_{name}"] for name in NOW}, "amount": amount}
    try:
        expected = replay(map(event_of, rows))
    except (TypeError, ValueError, KeyError):
        yield f"Payment {first['reference']!r} has an event that cannot be read."
        return
    if edited := [name for name in REPLAYED if now[name] != expected[name]]:
        yield f"Payment {first['reference']!r} does not follow from its events: {', '.join(edited)} was edited."
