"""DAGs that wait in every mode, for the test that all modes end alike."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from airflow_provider_quoine.sensors.onboarding import QuoineOnboardingStatusSensor
from airflow_provider_quoine.sensors.withdrawals import QuoineWithdrawalSensor

MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
}

for mode, how in MODES.items():
    for soft_fail in (False, True):
        common = {"poke_interval": 0.3, "timeout": 3, "soft_fail": soft_fail, "retries": 0, **how}
        with DAG(f"wait_for_withdrawal_{mode}_{soft_fail}", schedule=None, params={"id": "0"}):
            QuoineWithdrawalSensor(
                task_id="wait", withdrawal_id="{{ params.id }}", credentials_variable="user_key", **common
            )
        with DAG(f"wait_for_user_{mode}_{soft_fail}", schedule=None, params={"id": "0"}):
            QuoineOnboardingStatusSensor(
                task_id="wait",
                user_id="{{ params.id }}",
                password_variable="user_password",
                credentials_variable=f"kept_secret_{mode}",
                **common,
            )
