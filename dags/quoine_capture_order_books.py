"""
### Capture order books for an hour

Writes the order books of several pairs into files, a row every second: bids and asks best first, how old each side
was, and whether the book was stale or crossed. One task per pair; all of them together use one connection to the stream
and no worker slot.

The files come in parts of a minute while the capture goes on. If the triggerer is restarted, it goes on where they end,
and states the time between as a gap. Each task returns where its files are and what they hold.

**Before you run:** the connection `quoine_default` with the Pusher key that the exchange gave you, and a folder that
the triggerer can write to: a path or a URI of an object store.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param, get_current_context, task

from airflow_provider_quoine.forms import PAIRS, minutes, text
from airflow_provider_quoine.operators.capture import QuoineCaptureOrderBookOperator

with DAG(
    dag_id="quoine_capture_order_books",
    description="Capture the order books of several pairs into files",
    doc_md=__doc__,
    schedule=None,
    params={
        "pairs": PAIRS,
        "path": text("Folder", "A path or URI that the triggerer can write to, such as s3://connection@bucket/x."),
        "minutes": minutes(60),
        "interval": Param(1, type="number", title="Interval (s)", description="Seconds between two rows, such as 0.5."),
    },
    tags=["quoine", "example"],
):

    @task
    def pairs() -> list[str]:
        """List the pairs of the form, for one task each."""
        return list(get_current_context()["params"]["pairs"])

    # [START capture]
    QuoineCaptureOrderBookOperator.partial(
        task_id="capture",
        path="{{ params.path }}",
        interval="{{ params.interval }}",
        duration="{{ params.minutes * 60 }}",
        depth=10,
        file_format="jsonl.gz",
        retries=3,
    ).expand(pair=pairs())
    # [END capture]
