"""
### Start when the price crosses a level

A watcher in the triggerer looks at every trade of BTC/JPY. When the price comes from below the level to it or above
it, this DAG starts, once; the price has to fall below the level before it can start again, and a minute has to pass.
The run takes the order book as it is then.

It says what happened: `report` returns the event, with the price, the level and the time.

**Before you run:** the connection `quoine_default` with the Pusher key that the exchange gave you; set the level below;
unpause the DAG, for a paused one has no watcher.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_quoine.operators.market_data import QuoineOrderBookSnapshotOperator
from airflow_provider_quoine.triggers.market_events import QuoinePriceCrossTrigger

# [START price_cross]
RISE = Asset(
    "quoine_btcjpy_above_100000",
    watchers=[
        AssetWatcher(name="rise", trigger=QuoinePriceCrossTrigger(pair="btcjpy", level="100000", direction="up"))
    ],
)

with DAG(
    dag_id="quoine_on_price_cross",
    description="Start when the price of BTC/JPY rises to a level",
    doc_md=__doc__,
    schedule=[RISE],
    tags=["quoine", "example"],
):

    @task
    def report(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Return what happened: one event, or several where Airflow joined them into one run."""
        return [event.extra["payload"] for events in triggering_asset_events.values() for event in events]

    report() >> QuoineOrderBookSnapshotOperator(task_id="snapshot", pair="btcjpy")
    # [END price_cross]
