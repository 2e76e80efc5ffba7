"""
### Start for large trades of several pairs

A watcher for each pair looks at every trade, and this DAG starts for each that is larger than the pair's size. All
watchers share one connection to the exchange's stream, however many there are.

**Before you run:** the connection `quoine_default` with the Pusher key that the exchange gave you; set the sizes below;
unpause the DAG, for a paused one has no watcher.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_quoine.assets import take_each_once
from airflow_provider_quoine.triggers.market_events import QuoineLargeTradeTrigger

# [START large_trade]
#: Pair and size in its base currency.
SIZES = {"btcusd": "50", "btcjpy": "50", "ethbtc": "500"}

LARGE_TRADES = [
    Asset(
        f"quoine_{pair}_large_trade",
        watchers=[AssetWatcher(name="trade", trigger=QuoineLargeTradeTrigger(pair=pair, size=size, cooldown=0))],
    )
    for pair, size in SIZES.items()
]

with DAG(
    dag_id="quoine_on_large_trade",
    description="Start for each large trade of several pairs",
    doc_md=__doc__,
    schedule=reduce(or_, LARGE_TRADES),
    max_active_runs=1,
    tags=["quoine", "example"],
):

    @task(inlets=LARGE_TRADES)
    def report(**context: Any) -> list[dict[str, Any]]:
        """Return the trades, with their pairs: those that no earlier run has taken."""
        return take_each_once(context)

    report()
    # [END large_trade]
