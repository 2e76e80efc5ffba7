"""
### Compare the payments with the exchange

Every morning at 06:00 in Tokyo, each payment that is not final is looked up at the exchange, and each one that became
final in the last days. `reconcile` turns red if one may be paid twice, is missing, changed, gone backwards, stuck or in
doubt for too long, or cannot be looked up; the table in its log says what to do. `emit_findings` then makes an asset
event of each.

It only reads, and waits behind everything that is urgent.

**Before you run:** the connections and Variables with which the payments were sent.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG

from airflow_provider_quoine.operators.reconciliation import QuoineEmitFindingsOperator, QuoineReconcilePaymentsOperator

# [START reconcile_payments]
with DAG(
    dag_id="quoine_reconcile_payments",
    description="Look up every open payment at the exchange, and say what is wrong",
    doc_md=__doc__,
    schedule="0 6 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="Asia/Tokyo"),
    catchup=False,
    max_active_runs=1,
    tags=["quoine", "example"],
):
    reconcile = QuoineReconcilePaymentsOperator(
        task_id="reconcile",
        stuck_after=pendulum.duration(hours=24),
        retries=2,
        retry_delay=pendulum.duration(minutes=10),
    )
    # A teardown runs after a failure too, and the run ends as the reconciliation has.
    reconcile >> QuoineEmitFindingsOperator(task_id="emit_findings").as_teardown()
# [END reconcile_payments]
