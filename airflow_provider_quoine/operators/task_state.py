"""What a task keeps in Airflow's task state store: where its payment is. It has no authority: the ledger has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import NEVER_EXPIRE  # type: ignore[attr-defined]  # there, but not in its stub

if TYPE_CHECKING:
    from airflow.sdk import Context
    from pydantic import JsonValue

    from airflow_provider_quoine.payments.records import Order

PAYMENT = "quoine_payment"
"""Key of the copy that leads a person from the task's page to the payment."""


def name_payment(context: Context, order: Order) -> None:
    """
    Write down which payment a task is about.

    Airflow refuses the write if it has given the task to another try meanwhile, which keeps an old one from sending
    even before the ledger does.
    """
    named: JsonValue = {"kind": str(order.kind), "reference": order.reference, "exchange": order.exchange}
    context["task_state_store"].set(PAYMENT, named, retention=NEVER_EXPIRE)
