"""Puts thousands of payments with all that happens to one into a ledger, faster than by its own steps."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, insert, update

from airflow_provider_quoine.payments.chain import FIRST_HASH, hash_of
from airflow_provider_quoine.payments.records import Order
from airflow_provider_quoine.payments.schema import EVENTS, LEDGER, PAYMENTS, Kind, Note, Step
from airflow_provider_quoine.payments.transaction import as_text
from tests.support.one_task import ADDRESS

YEAR = timedelta(days=365)
#: One payment in so many is unknown; the others were sent.
ONE_IN_DOUBT_OF = 200


def order_of(number: int) -> Order:
    """One of the payments."""
    return Order(
        exchange="https://exchange.example",
        kind=Kind.WITHDRAWAL,
        reference=f"invoice {number:05}/2026",
        account=f"account-{number % 7}",
        user_id=str(number % 100),
        address=ADDRESS,
        conn_id="quoine_default",
    )


def fill(engine: Engine, count: int) -> None:
    """Fill an empty ledger with payments of a year, each with five events or six of a chain that is whole."""
    now, head, before = datetime.now(UTC), 0, FIRST_HASH
    rows, events = [], []
    for number in range(count):
        at = as_text(now - YEAR * (count - number) / count)
        row = _row(number, at)
        rows.append(row)
        for name, actor, data in _story(row, at):
            head += 1
            event: dict[str, Any] = {
                "number": head,
                "at": at,
                "exchange": row["exchange"],
                "kind": row["kind"],
                "reference": row["reference"],
                "event": str(name),
                "actor": actor,
                "data": json.dumps(data, sort_keys=True, ensure_ascii=False),
                "hash_before": before,
            }
            before = hash_of(event)
            events.append({**event, "hash": before})
    with engine.begin() as connection:
        connection.execute(insert(PAYMENTS), rows)
        connection.execute(insert(EVENTS), events)
        connection.execute(update(LEDGER).values(head=head, head_hash=before))


def _row(number: int, at: str) -> dict[str, Any]:
    order, unknown = order_of(number), number % ONE_IN_DOUBT_OF == 0
    return {
        "exchange": order.exchange,
        "kind": str(order.kind),
        "reference": order.reference,
        "account": order.account,
        "user_id": order.user_id,
        "address": order.address,
        "satoshis": order.satoshis,
        "conn_id": order.conn_id,
        "step": str(Step.UNKNOWN if unknown else Step.SENT),
        "owner": f"attempt {number}",
        "exchange_id": None if unknown else str(1_000_000 + number),
        "state": "" if unknown else "processed",
        "policy": "policy",
        "reason": "the answer was lost" if unknown else "",
        "task": f"withdraw / manual__{at} / authorize, try 1",
        **dict.fromkeys(("reserved_at", "created_at", "changed_at"), at),
        "in_doubt_until": at if unknown else None,
    }


def _story(row: dict[str, Any], at: str) -> list[tuple[str, str, dict[str, Any]]]:
    task, owner = row["task"], row["owner"]
    approval = {"user_id": "7", "connection": "quoine_default", "policy": "policy", "started_by": "dora", "task": task}
    details = {name: row[name] for name in ("account", "user_id", "address")}
    end: list[tuple[str, str, dict[str, Any]]] = (
        [(Step.UNKNOWN, owner, {"exchange_id": None, "state": "", "reason": row["reason"]})]
        if row["step"] == Step.UNKNOWN
        else [
            (Step.SENT, owner, {"exchange_id": row["exchange_id"], "state": "pending", "reason": ""}),
            (Note.SEEN, task, {"state": "processed", "before": "pending"}),
        ]
    )
    return [
        (Step.PREPARED, task, {**details, "amount": "0"}),
        (Note.APPROVED, "carol", approval),
        ("answered", task, {"by": "ann", "chose": "Send"}),
        (Step.SENDING, task, {"attempt": owner, "policy": "policy", "in_doubt_until": at}),
        *end,
    ]
