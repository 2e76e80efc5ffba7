"""DAGs that wait in every mode, for the test that all modes end alike."""

from __future__ import annotations

from itertools import product
from typing import Any

from airflow.sdk import DAG

from airflow_provider_quoine.sensors.onboarding import QuoineOnboardingStatusSensor
from airflow_provider_quoine.sensors.withdrawals import QuoineWithdrawalSensor

MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
}

#: Seconds: enough for a busy machine, or so few that the wait ends by them.
TIMEOUTS = {"": 60, "_briefly": 1}

for (mode, how), soft_fail in product(MODES.items(), (False, True)):
    common = {"poke_interval": 0.3, "timeout": TIMEOUTS[""], "soft_fail": soft_fail, "retries": 0, **how}
    for length, timeout in TIMEOUTS.items():
        with DAG(f"wait_for_withdrawal{length}_{mode}_{soft_fail}", schedule=None, params={"id": "0"}):
            QuoineWithdrawalSensor(
                task_id="wait",
                withdrawal_id="{{ params.id }}",
                credentials_variable="user_key",
                **common | {"timeout": timeout},
            )
    with DAG(f"wait_for_user_{mode}_{soft_fail}", schedule=None, params={"id": "0"}):
        QuoineOnboardingStatusSensor(
            task_id="wait",
            user_id="{{ params.id }}",
            password_variable="user_password",
            credentials_variable=f"kept_secret_{mode}",
            **common,
        )
