"""DAGs of one task each, for tests of what the pages show of a task's result."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_quoine.operators.capture import QuoineCaptureExecutionsOperator, QuoineCaptureOrderBookOperator
from airflow_provider_quoine.operators.market_data import (
    QuoineOrderBookSnapshotOperator,
    QuoineProductSnapshotOperator,
)

with DAG("book", schedule=None):
    QuoineOrderBookSnapshotOperator(task_id="task", pair="btcjpy")

with DAG("ticker", schedule=None):
    QuoineProductSnapshotOperator(task_id="task", pair="btcjpy")

with DAG("book_capture", schedule=None, params={"path": "/nowhere"}):
    QuoineCaptureOrderBookOperator(
        task_id="task", pair="btcjpy", path="{{ params.path }}", interval=0.1, duration=1, part_seconds=0.5
    )

with DAG("executions_capture", schedule=None, params={"path": "/nowhere"}):
    QuoineCaptureExecutionsOperator(task_id="task", pair="btcjpy", path="{{ params.path }}", duration=1)
