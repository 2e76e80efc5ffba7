"""
### Withdraw bitcoin

Has the exchange send the user an authentication code, shows you amount and address, takes the code that you type
under *Required Actions*, withdraws, and waits until the exchange has paid. If the connection wants approvals, up to
two other people are asked first.

The code is wiped from Airflow before it is used. A payment reference is paid at most once, whatever is retried,
cleared, deleted or triggered again: a second run with the same reference finds the first one's withdrawal. With
another amount, address or user it is refused.

**Before you run:** the connection's field *Withdrawal addresses* allows the address, and the user was onboarded with
`quoine_onboard_user`, which left the user's key in the Variable `quoine_user_<id>_api_secret`.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import DAG, chain

from airflow_provider_quoine.forms import WITHDRAWAL_FORM
from airflow_provider_quoine.operators.approval import QuoineApproveWithdrawalOperator
from airflow_provider_quoine.operators.authorization import QuoineAuthorizeWithdrawalOperator
from airflow_provider_quoine.sensors.withdrawals import QuoineWithdrawalSensor

with DAG(
    dag_id="quoine_withdraw_bitcoin",
    description="Withdraw bitcoin for an onboarded user, with a code that a person types",
    doc_md=__doc__,
    schedule=None,
    params=WITHDRAWAL_FORM,
    tags=["quoine", "example"],
):
    USER_KEY = "quoine_user_{{ params.user_id }}_api_secret"

    # [START withdraw]
    payment: dict[str, Any] = {
        "payment_reference": "{{ params.payment_reference }}",
        "user_id": "{{ params.user_id }}",
        "amount": "{{ params.amount }}",
        "address": "{{ params.address }}",
        "credentials_variable": USER_KEY,
        "retries": 2,
    }
    approvals = [QuoineApproveWithdrawalOperator(task_id=f"approve_{n}", **payment) for n in (1, 2)]

    authorize_withdrawal = QuoineAuthorizeWithdrawalOperator(task_id="authorize_withdrawal", **payment)

    wait_for_withdrawal = QuoineWithdrawalSensor(
        task_id="wait_for_withdrawal",
        withdrawal_id="{{ ti.xcom_pull('authorize_withdrawal')['id'] }}",
        payment_reference="{{ params.payment_reference }}",
        credentials_variable=USER_KEY,
        deferrable=True,
        poke_interval=15,
        timeout=pendulum.duration(days=1),
    )

    chain(*approvals, authorize_withdrawal, wait_for_withdrawal)
    # [END withdraw]
