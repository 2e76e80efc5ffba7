"""
### Raise an alarm when an order book falls silent

A watcher waits for either side of BTC/JPY's book to change. When nothing has come for five minutes, this DAG starts
and fails, so that whatever your Airflow does about failures (callbacks, e-mail) tells the person on call. There is one
run for each silence.

The alarm says whether there was a connection: without one nobody can know what the market does.

**Before you run:** the connection `quoine_default` with the Pusher key that the exchange gave you; unpause the DAG, for
a paused one has no watcher.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_quoine.assets import take_each_once
from airflow_provider_quoine.triggers.market_events import QuoineSilentBookTrigger

# [START silent_book]
SILENCE = Asset(
    "quoine_btcjpy_book_silent",
    watchers=[AssetWatcher(name="silence", trigger=QuoineSilentBookTrigger(pair="btcjpy", seconds=300))],
)

with DAG(
    dag_id="quoine_on_silent_book",
    description="Fail, and so raise an alarm, when the order book of BTC/JPY falls silent",
    doc_md=__doc__,
    schedule=[SILENCE],
    max_active_runs=1,
    tags=["quoine", "example"],
):

    @task(retries=0, inlets=[SILENCE])
    def alarm(**context: Any) -> None:
        """Fail with words for the person on call, once for each silence."""
        for silence in take_each_once(context):
            reason = "though connected" if silence["connected"] else "because there is no connection to the stream"
            raise AirflowFailException(
                f"Nothing has come of {silence['pair']}'s book for {silence['silent_seconds']:g} s, {reason}."
            )

    alarm()
    # [END silent_book]
