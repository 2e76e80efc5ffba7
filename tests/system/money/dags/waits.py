"""DAGs that wait in the triggerer, with a short time-out."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from airflow_provider_quoine.sensors.onboarding import QuoineOnboardingStatusSensor
from airflow_provider_quoine.sensors.withdrawals import QuoineWithdrawalSensor

for soft_fail in (False, True):
    common: dict[str, Any] = {
        "task_id": "wait",
        "quoine_conn_id": "money",
        "deferrable": True,
        "poke_interval": 1,
        "timeout": 3,
        "soft_fail": soft_fail,
    }
    with DAG(f"wait_for_withdrawal_{soft_fail}", schedule=None, params={"user_id": "", "withdrawal_id": ""}):
        QuoineWithdrawalSensor(
            withdrawal_id="{{ params.withdrawal_id }}",
            credentials_variable="money_key_{{ params.user_id }}",
            **common,
        )
    with DAG(f"wait_for_user_{soft_fail}", schedule=None, params={"user_id": ""}):
        QuoineOnboardingStatusSensor(user_id="{{ params.user_id }}", password_variable="money_password", **common)
