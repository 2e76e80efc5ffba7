"""
### Wait for a price

Waits until the best bid of the pair is at the level or above it, then takes the order book. If the bid is there
already, the wait ends with the first look; if it is not there in time, the task is skipped, and so is what comes after.

The wait holds no worker slot.

**Before you run:** the connection `quoine_default` with the Pusher key that the exchange gave you.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG

from airflow_provider_quoine.forms import PAIR, text
from airflow_provider_quoine.operators.market_data import QuoineOrderBookSnapshotOperator
from airflow_provider_quoine.sensors.market_events import QuoinePriceSensor

with DAG(
    dag_id="quoine_wait_for_price",
    description="Wait until the best bid reaches a level, then take the order book",
    doc_md=__doc__,
    schedule=None,
    params={
        "pair": PAIR,
        "level": text("Level", "Plain digits such as 61000, in the pair's second currency."),
    },
    tags=["quoine", "example"],
):
    # [START wait_for_price]
    wait = QuoinePriceSensor(
        task_id="wait",
        pair="{{ params.pair }}",
        level="{{ params.level }}",
        direction="up",
        price="best_bid",
        timeout=pendulum.duration(hours=1),
        soft_fail=True,
    )
    wait >> QuoineOrderBookSnapshotOperator(task_id="snapshot", pair="{{ params.pair }}")
    # [END wait_for_price]
