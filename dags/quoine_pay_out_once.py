"""
### Pay out once

A payment has a reference: an invoice's number, a payout's day. Here it becomes the run id of the withdrawal DAG, and
Airflow takes each run id once. Whoever presses *Trigger* twice, or whichever schedule runs twice, gets a second run
that fails at once, and one withdrawal.

The question for the code then stands under *Required Actions* of `quoine_withdraw_bitcoin`, in the run
`payment-<reference>`.

**Before you run:** as for `quoine_withdraw_bitcoin`.
"""

from __future__ import annotations

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG

from airflow_provider_quoine.forms import WITHDRAWAL_FORM, text

with DAG(
    dag_id="quoine_pay_out_once",
    description="Withdraw bitcoin at most once per payment reference, however often it is started",
    doc_md=__doc__,
    schedule=None,
    params={
        "payment_reference": text(
            "Payment reference",
            "What makes this payment the only one of its kind.",
            pattern="^[A-Za-z0-9._-]{1,64}$",
            examples=["invoice-2026-117"],
        ),
        **WITHDRAWAL_FORM,
    },
    tags=["quoine", "example"],
):
    # [START pay_out_once]
    TriggerDagRunOperator(
        task_id="withdraw",
        trigger_dag_id="quoine_withdraw_bitcoin",
        trigger_run_id="payment-{{ params.payment_reference }}",
        conf={field: f"{{{{ params.{field} }}}}" for field in WITHDRAWAL_FORM},
        wait_for_completion=True,
        deferrable=True,
    )
    # [END pay_out_once]
