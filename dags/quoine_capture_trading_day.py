"""
### Capture every trading day

Every day at midnight in Tokyo a run begins that captures the order book of a pair until the next midnight, a row every
second, into Parquet files under `date=<day in Tokyo>`. At the day's end `verify` turns red if a part is missing,
changed or doubled, or a gap not stated, and `report` draws coverage, gaps and spread into a picture beside the files.

What is missing of a day is a gap: a run that begins at 10:00, because a person started it or the scheduler was down,
states ten hours of it. A day that is over cannot be captured any more, since the stream has no past: a backfill of it
fails at once and says so. It is no skipped task, because nobody would see then that the day is missing.

**Before you run:** the connection `quoine_default` with the Pusher key that the exchange gave you; the Variable
`quoine_captures`, a folder that triggerer and workers can reach: a path or a URI of an object store; and
`pip install 'airflow-provider-quoine[parquet]'`.
"""

from __future__ import annotations

from datetime import datetime

import pendulum
from airflow.sdk import DAG

from airflow_provider_quoine.forms import PAIR
from airflow_provider_quoine.operators.capture import QuoineCaptureOrderBookOperator
from airflow_provider_quoine.operators.datasets import QuoineCaptureReportOperator, QuoineVerifyCaptureOperator

# [START capture_trading_day]
TOKYO = pendulum.timezone("Asia/Tokyo")


def trading_day(moment: datetime) -> pendulum.DateTime:
    """Return when the day in Tokyo began: its midnight is 15:00 UTC on the day before."""
    return pendulum.instance(moment).in_timezone(TOKYO).start_of("day")


with DAG(
    dag_id="quoine_capture_trading_day",
    description="Capture an order book all day, verify it and draw it",
    doc_md=__doc__,
    schedule="0 0 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz=TOKYO),
    catchup=False,
    # A new day begins while the last one is verified.
    max_active_runs=2,
    params={"pair": PAIR},
    user_defined_macros={"trading_day": trading_day},
    tags=["quoine", "example"],
):
    capture = QuoineCaptureOrderBookOperator(
        task_id="capture",
        pair="{{ params.pair }}",
        path="{{ var.value.quoine_captures }}/date={{ trading_day(dag_run.run_after).to_date_string() }}",
        began_at="{{ trading_day(dag_run.run_after).isoformat() }}",
        duration="{{ trading_day(dag_run.run_after).diff(trading_day(dag_run.run_after).add(days=1)).in_seconds() }}",
        interval=1,
        depth=25,
        part_seconds=300,
        file_format="parquet",
        retries=5,
        retry_delay=pendulum.duration(seconds=30),
    )
    files = "{{ ti.xcom_pull(task_ids='capture')['path'] }}"
    capture >> [
        QuoineVerifyCaptureOperator(task_id="verify", path=files),
        QuoineCaptureReportOperator(task_id="report", path=files, timezone=TOKYO.name),
    ]
# [END capture_trading_day]
