"""
### Capture the book while its spread is wide

A watcher looks at the order book of BTC/JPY. When best ask minus best bid grows above the bound, this DAG starts and
writes the book into files, a row every second for ten minutes: what the market did next, for the desk to look at later.
It starts again when the spread was at the bound or below it in between, and the ten minutes have passed.

`report` returns the event, with the spread, the two prices and the time.

**Before you run:** the connection `quoine_default` with the Pusher key that the exchange gave you; the Variable
`quoine_captures` with a folder that the triggerer can write to, a path or a URI of an object store; set the bound
below; unpause the DAG, for a paused one has no watcher.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_quoine.assets import take_each_once
from airflow_provider_quoine.forms import minutes
from airflow_provider_quoine.operators.capture import QuoineCaptureOrderBookOperator
from airflow_provider_quoine.triggers.market_events import QuoineSpreadTrigger

# [START wide_spread]
WIDE = Asset(
    "quoine_btcjpy_spread_above_5000",
    watchers=[AssetWatcher(name="spread", trigger=QuoineSpreadTrigger(pair="btcjpy", bound="5000", cooldown=600))],
)

with DAG(
    dag_id="quoine_on_wide_spread",
    description="Capture the order book of BTC/JPY when its spread grows wide",
    doc_md=__doc__,
    schedule=[WIDE],
    params={"minutes": minutes(10)},
    max_active_runs=1,
    tags=["quoine", "example"],
):

    @task(inlets=[WIDE])
    def report(**context: Any) -> list[dict[str, Any]]:
        """Return what happened: what no earlier run has taken."""
        return take_each_once(context)

    report() >> QuoineCaptureOrderBookOperator(
        task_id="capture",
        pair="btcjpy",
        path="{{ var.value.quoine_captures }}",
        interval=1,
        duration="{{ params.minutes * 60 }}",
        retries=3,
    )
    # [END wide_spread]
