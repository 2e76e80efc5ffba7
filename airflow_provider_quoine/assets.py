"""
Assets whose events say what became of withdrawals, users and payments.

A task that sees it adds an event, in ``extra``: see the documentation's page on asset events. Tasks have an *alias* as
their outlet, because Airflow makes an event of every other outlet whenever the task succeeds, even if nothing happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import Asset, AssetAlias

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

#: Withdrawals that have reached a final state.
WITHDRAWALS = Asset(name="quoine_withdrawals", uri="quoine://withdrawals")
#: Users that the exchange has approved.
USERS = Asset(name="quoine_users", uri="quoine://users")
#: What reconciliation has found.
FINDINGS = Asset(name="quoine_payment_findings", uri="quoine://payment-findings")


def may_add_events(task: BaseOperator, asset: Asset) -> None:
    """
    Let a task add events of an asset, beside its author's outlets.

    :param task: whose constructor is at its end.
    """
    # A new list: the author may have given one list to several tasks.
    task.outlets = [*task.outlets, AssetAlias(asset.name)]
    # Airflow then has the asset from when it reads the DAG. Of two tasks that bring it their first event at the same
    # time, it would fail one.
    task.inlets = [*task.inlets, asset]


def add_event(context: Context, asset: Asset, event_id: str, **extra: str) -> None:
    """
    Add an event, which Airflow writes when the task succeeds.

    :param event_id: the same for all who see the same thing.
    :param extra: nothing secret and nothing personal: Airflow shows it to every viewer.
    """
    context["outlet_events"][AssetAlias(asset.name)].add(asset, extra={"event_id": event_id, **extra})


def add_withdrawal_event(
    context: Context, withdrawal: dict[str, str], *, exchange: str, reference: str, connection: str
) -> None:
    """
    Add the event of a withdrawal's final state.

    :param withdrawal: with id and state.
    :param exchange: its base URL: each exchange counts its withdrawals from 1.
    :param reference: of the payment; empty where the task does not know it.
    """
    id_, state = withdrawal["id"], withdrawal["state"]
    add_event(
        context,
        WITHDRAWALS,
        f"withdrawal/{exchange}/{id_}/{state}",
        exchange=exchange,
        id=id_,
        state=state,
        reference=reference,
        connection=connection,
    )
