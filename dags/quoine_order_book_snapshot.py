"""
### Snapshot an order book

Listens to both sides of one pair's order book on the exchange's stream and returns the book: bids and asks best
first, when each side came, best prices, mid, spread, and whether the book was crossed.

The task holds no worker slot while it listens. The exchange sends no book on subscription, only changes: on a
quiet pair the first may be long in coming.

**Before you run:** the connection `quoine_default` with the Pusher key that the exchange gave you.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_quoine.forms import PAIR
from airflow_provider_quoine.operators.market_data import QuoineOrderBookSnapshotOperator

with DAG(
    dag_id="quoine_order_book_snapshot",
    description="Take one order book from the live stream",
    doc_md=__doc__,
    schedule=None,
    params={"pair": PAIR},
    tags=["quoine", "example"],
):
    # [START snapshot]
    QuoineOrderBookSnapshotOperator(task_id="snapshot", pair="{{ params.pair }}")
    # [END snapshot]
