"""
### Pay out every day

Every morning at 09:00 in Tokyo, a payment falls due. Its reference is `payout-<day in Tokyo>`, so each day is paid at
most once: a retry, a cleared task, a second run on the same day, a backfill or a copy of this DAG finds the day's
payment and pays nothing again.

If the connection wants approvals, up to two people are asked for them. A person types the code under *Required
Actions*, until the evening. When you switch this DAG on, Airflow starts the
newest run that is due at once.

**Before you run:** as for `quoine_withdraw_bitcoin`, and the Variable `quoine_daily_payout` says what is paid:
`{"user_id": "25", "amount": "0.5", "address": "bc1q..."}`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pendulum
from airflow.sdk import DAG, chain

from airflow_provider_quoine.operators.approval import QuoineApproveWithdrawalOperator
from airflow_provider_quoine.operators.authorization import QuoineAuthorizeWithdrawalOperator

# [START daily_payout]
TOKYO = pendulum.timezone("Asia/Tokyo")


def day_in_tokyo(moment: datetime) -> str:
    """Return the calendar day: at 09:00 in Tokyo it is still midnight in London."""
    return pendulum.instance(moment).in_timezone(TOKYO).to_date_string()


with DAG(
    dag_id="quoine_daily_payout",
    description="Withdraw bitcoin every day, each day at most once",
    doc_md=__doc__,
    schedule="0 9 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz=TOKYO),
    catchup=False,
    max_active_runs=1,
    user_defined_macros={"day_in_tokyo": day_in_tokyo},
    tags=["quoine", "example"],
):
    payment: dict[str, Any] = {
        "payment_reference": "payout-{{ day_in_tokyo(dag_run.run_after) }}",
        "user_id": "{{ var.json.quoine_daily_payout.user_id }}",
        "amount": "{{ var.json.quoine_daily_payout.amount }}",
        "address": "{{ var.json.quoine_daily_payout.address }}",
        "credentials_variable": "quoine_user_{{ var.json.quoine_daily_payout.user_id }}_api_secret",
        "response_timeout": pendulum.duration(hours=9),
        "retries": 2,
    }
    approvals = [QuoineApproveWithdrawalOperator(task_id=f"approve_{n}", **payment) for n in (1, 2)]
    chain(*approvals, QuoineAuthorizeWithdrawalOperator(task_id="pay_out", wait_for_completion=True, **payment))
# [END daily_payout]
