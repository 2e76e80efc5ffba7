"""
Assets whose events say what became of withdrawals, users, payments and captures; and how a task takes each event once.

A task that sees it adds an event, in ``extra``: see the documentation's page on asset events. Tasks have an *alias* as
their outlet, because Airflow makes an event of every other outlet whenever the task succeeds, even if nothing happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias
from airflow.sdk.exceptions import AirflowSkipException

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

#: Withdrawals that have reached a final state.
WITHDRAWALS = Asset(name="quoine_withdrawals", uri="quoine://withdrawals")
#: Users that the exchange has approved.
USERS = Asset(name="quoine_users", uri="quoine://users")
#: What reconciliation has found.
FINDINGS = Asset(name="quoine_payment_findings", uri="quoine://payment-findings")
#: Captures of market streams that have ended, with their manifest.
CAPTURES = Asset(name="quoine_captures", uri="quoine://captures")


def may_add_events(task: BaseOperator, asset: Asset) -> None:
    """
    Let a task add events of an asset, beside its author's outlets.

    :param task: whose constructor is at its end.
    """
    # Of two tasks that bring an asset, or an alias, its first event at the same time, Airflow fails one. So it has the
    # asset as an inlet from when it reads the DAG, and each DAG an alias of its own.
    # New lists: the author may have given one list to several tasks.
    task.outlets = [*task.outlets, AssetAlias(f"{asset.name}/{task.dag_id}")]
    task.inlets = [*task.inlets, asset]


def add_event(context: Context, asset: Asset, event_id: str, **extra: str) -> None:
    """
    Add an event, which Airflow writes when the task succeeds.

    :param event_id: the same for all who see the same thing.
    :param extra: nothing secret and nothing personal: Airflow shows it to every viewer.
    """
    aliases = (outlet for outlet in context["task"].outlets if isinstance(outlet, AssetAlias))
    alias = next(each for each in aliases if each.name.partition("/")[0] == asset.name)
    context["outlet_events"][alias].add(asset, extra={"event_id": event_id, **extra})


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


MOST_TAKEN = 200
"""Ids of events that a task keeps for each asset: those of the events that it has taken last."""


def take_each_once(context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    Return the events that started a run, each in one run only, for tasks of DAGs that start on assets.

    Which ones the task has taken is kept in Airflow's state of each asset, so the assets must be among the task's
    ``inlets``. A run that is retried or cleared gets the same ones again. The DAG needs ``max_active_runs=1``: two runs
    at the same time could take the same event.

    :return: the payloads of market events, and the ``extra`` of this module's; nothing if no event started the run, as
        in a run that a person started.
    :raises AirflowSkipException: if events started the run, and earlier runs have taken them all.
    """
    run, task = context["run_id"], context["ti"]
    key = f"quoine/taken/{task.dag_id}/{task.task_id}"
    came = {asset: events for asset, events in context["triggering_asset_events"].items() if isinstance(asset, Asset)}
    mine: dict[str, dict[str, Any]] = {}
    for asset, events in came.items():
        store = context["asset_state_store"][asset]
        taken: dict[str, str] = dict(store.get(key) or {})
        for event in (event.extra.get("payload", event.extra) for event in events):
            if taken.setdefault(event["event_id"], run) == run:
                mine.setdefault(event["event_id"], event)
        store.set(key, dict(list(taken.items())[-MOST_TAKEN:]))
    if came and not mine:
        raise AirflowSkipException("Earlier runs have taken all events of this one.")
    return list(mine.values())
