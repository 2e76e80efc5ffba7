"""
### From a new user to a withdrawal

The whole chain: check what the form says about the withdrawal, create the user, wait for APPROVED, keep the user's key,
look at the order book, ask other people if the connection wants approvals, have the exchange send a code, ask a person
for it, withdraw, and wait until the exchange has paid. Nobody copies a key.

When `authorize_withdrawal` waits, its question is under *Required Actions*.

**Before you run:** the connection `quoine_default` with the vendor's key and the Pusher key, and documents that the
workers can read.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import DAG, chain, get_current_context, task

from airflow_provider_quoine.forms import (
    AMOUNT,
    ONBOARDING_FIELDS,
    ONBOARDING_FORM,
    PAIR,
    PAYMENT_REFERENCE,
    check_withdrawal,
    text,
)
from airflow_provider_quoine.operators.approval import QuoineApproveWithdrawalOperator
from airflow_provider_quoine.operators.authorization import QuoineAuthorizeWithdrawalOperator
from airflow_provider_quoine.operators.market_data import QuoineOrderBookSnapshotOperator
from airflow_provider_quoine.operators.onboarding import QuoineCreateOnboardingUserOperator
from airflow_provider_quoine.sensors.onboarding import QuoineOnboardingStatusSensor
from airflow_provider_quoine.sensors.withdrawals import QuoineWithdrawalSensor

with DAG(
    dag_id="quoine_onboard_and_withdraw",
    description="Onboard a user, look at the market, and withdraw with a code that a person types",
    doc_md=__doc__,
    schedule=None,
    params={
        **ONBOARDING_FORM,
        "payment_reference": PAYMENT_REFERENCE,
        "amount": AMOUNT,
        "withdrawal_address": text("Withdrawal address", "Bitcoin address to pay to; the connection must allow it."),
        "pair": PAIR,
    },
    tags=["quoine", "example"],
):

    @task
    def check_input() -> None:
        """Say what is wrong with the withdrawal before a user is created for it."""
        check_withdrawal(get_current_context()["params"], address="withdrawal_address")

    # [START chain]
    create_user = QuoineCreateOnboardingUserOperator(
        task_id="create_user",
        **ONBOARDING_FIELDS,
        password_variable="quoine_password_{{ run_id }}",
        generate_password=True,
    )
    user_id = create_user.output
    user_key = f"quoine_user_{user_id}_api_secret"

    wait_for_approval = QuoineOnboardingStatusSensor(
        task_id="wait_for_approval",
        user_id=user_id,
        password_variable="quoine_password_{{ run_id }}",
        credentials_variable=user_key,
        deferrable=True,
        poke_interval=15,
        timeout=pendulum.duration(days=7),
    )

    snapshot = QuoineOrderBookSnapshotOperator(task_id="snapshot", pair="{{ params.pair }}")

    payment: dict[str, Any] = {
        "payment_reference": "{{ params.payment_reference }}",
        "user_id": user_id,
        "amount": "{{ params.amount }}",
        "address": "{{ params.withdrawal_address }}",
        "credentials_variable": user_key,
        "retries": 2,
    }
    approvals = [QuoineApproveWithdrawalOperator(task_id=f"approve_{n}", **payment) for n in (1, 2)]

    authorize_withdrawal = QuoineAuthorizeWithdrawalOperator(task_id="authorize_withdrawal", **payment)

    wait_for_withdrawal = QuoineWithdrawalSensor(
        task_id="wait_for_withdrawal",
        withdrawal_id="{{ ti.xcom_pull('authorize_withdrawal')['id'] }}",
        payment_reference="{{ params.payment_reference }}",
        credentials_variable=user_key,
        deferrable=True,
        poke_interval=15,
        timeout=pendulum.duration(days=1),
    )

    check_input() >> create_user
    chain(wait_for_approval, snapshot, *approvals, authorize_withdrawal, wait_for_withdrawal)
    # [END chain]
