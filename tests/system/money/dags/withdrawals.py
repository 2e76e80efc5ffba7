"""DAGs that withdraw; the run's parameters choose the fault in the first try."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from tests.system.money.operators import Authorize, Withdraw

PARAMS = {"payment_reference": "", "user_id": "", "amount": "", "conn": "money", "moment": "", "signal": "SIGKILL"}
CODES = {"code_lasts": False, "wrong_code": False}
ORDER: dict[str, Any] = {
    "task_id": "withdraw",
    "payment_reference": "{{ params.payment_reference }}",
    "amount": "{{ params.amount }}",
    "address": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
    "credentials_variable": "money_key_{{ params.user_id }}",
    "quoine_conn_id": "{{ params.conn if ti.try_number == 1 else 'money' }}",
    "retry_delay": timedelta(seconds=1),
}
CODE = "money_code_{{ params.user_id }}"

for retries in (0, 1):
    with DAG(f"withdraw_{retries}", schedule=None, params=PARAMS | CODES):
        Withdraw(auth_code_variable=CODE, retries=retries, **ORDER)
    with DAG(f"authorize_{retries}", schedule=None, params=PARAMS):
        Authorize(user_id="{{ params.user_id }}", retries=retries, **ORDER)

#: Time-out of the wait for the final state, in seconds.
WAITS = {"withdraw_and_wait": 120, "withdraw_and_wait_briefly": 3}
for dag_id, seconds in WAITS.items():
    with DAG(dag_id, schedule=None, params=PARAMS | CODES):
        Withdraw(
            auth_code_variable=CODE,
            wait_for_completion=True,
            poke_interval=1,
            completion_timeout=timedelta(seconds=seconds),
            **ORDER,
        )
