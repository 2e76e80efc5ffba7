"""
### Start when the price crosses a level

A watcher in the triggerer looks at every trade of BTC/JPY. When the price comes from below the level to it or above
it, this DAG starts, once; the price has to fall below the level before it can start again, and a minute has to pass.
The run takes the order book as it is then.

`report` returns what happened: the event, with the price, the level and the time. A crossing that happened while the
triggerer was away comes late, with `seen_after_gap`. The same event may come twice: then the run is skipped.

**Before you run:** the connection `quoine_default` with the Pusher key that the exchange gave you; set the level below;
unpause the DAG, for a paused one has no watcher.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_quoine.assets import take_each_once
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
    max_active_runs=1,
    tags=["quoine", "example"],
):

    @task(inlets=[RISE])
    def report(**context: Any) -> list[dict[str, Any]]:
        """Return what happened: what no earlier run has taken."""
        return take_each_once(context)

    report() >> QuoineOrderBookSnapshotOperator(task_id="snapshot", pair="btcjpy")
    # [END price_cross]
