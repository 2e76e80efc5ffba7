"""DAGs that withdraw; the run's parameters choose the fault in the first try."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Variable, task

from airflow_provider_quoine.operators.reconciliation import QuoineNotifyUnknownOutcomesOperator
from tests.system.money.operators import Authorize, Withdraw
from tests.system.money.telling import Telling

PARAMS: dict[str, Any] = {"payment_reference": "", "user_id": "", "amount": "", "conn": "money"}
PARAMS |= {"moment": "", "signal": "SIGKILL", "spare_worker": False}
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

with DAG("withdraw_telling", schedule=None, params=PARAMS | CODES):
    Withdraw(auth_code_variable=CODE, retries=0, unknown_outcome_notifiers=[Telling("task")], **ORDER)
with DAG("notify_unknown_outcomes", schedule=None):
    QuoineNotifyUnknownOutcomesOperator(task_id="notify", notifiers=[Telling("sweep")])

#: Time-out of the wait for the final state, in seconds.
WAITS = {"withdraw_and_wait": 900, "withdraw_and_wait_briefly": 3}
for dag_id, seconds in WAITS.items():
    with DAG(dag_id, schedule=None, params=PARAMS | CODES):
        Withdraw(
            auth_code_variable=CODE,
            wait_for_completion=True,
            poke_interval=1,
            completion_timeout=timedelta(seconds=seconds),
            **ORDER,
        )

#: Runs of the first three are deleted, each in another way; the last one runs from the command line only.
for dag_id in ("withdraw_deleted", "withdraw_cleaned", "withdraw_dag_deleted", "withdraw_tried"):
    with DAG(dag_id, schedule=None, params=PARAMS | CODES):
        Withdraw(auth_code_variable=CODE, retries=0, **ORDER)

#: A person renames the task by changing the Variable.
with DAG("withdraw_renamed", schedule=None, params=PARAMS | CODES):
    name = Variable.get("money_task", default="withdraw")
    Withdraw(auth_code_variable=CODE, retries=0, **ORDER | {"task_id": name})


@task
def list_payments() -> list[dict[str, str]]:
    """Read the payments that are due now."""
    payments: list[dict[str, str]] = json.loads(Variable.get("money_payments"))
    return payments


with DAG("withdraw_mapped", schedule=None, params=PARAMS | CODES):
    # One by one, because a user has one code at a time.
    Withdraw.partial(
        auth_code_variable=CODE,
        retries=0,
        max_active_tis_per_dagrun=1,
        **{name: value for name, value in ORDER.items() if name not in ("payment_reference", "amount")},
    ).expand_kwargs(list_payments())
