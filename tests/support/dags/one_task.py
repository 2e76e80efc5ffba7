"""DAGs of one task each, for tests that run a task try by try."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Asset

from airflow_provider_quoine.forms import APPLICANTS_TAG, APPLICATION_FORM
from airflow_provider_quoine.operators.approval import QuoineApproveWithdrawalOperator
from airflow_provider_quoine.operators.authorization import QuoineAuthorizeWithdrawalOperator
from airflow_provider_quoine.operators.onboarding import QuoineCreateOnboardingUserOperator
from airflow_provider_quoine.operators.reconciliation import QuoineNotifyUnknownOutcomesOperator
from airflow_provider_quoine.operators.withdrawals import QuoineCreateWithdrawalOperator, QuoineRequestAuthCodeOperator
from airflow_provider_quoine.sensors.onboarding import QuoineOnboardingStatusSensor
from airflow_provider_quoine.sensors.withdrawals import QuoineWithdrawalSensor
from tests.support.notifier import Telling

#: Airflow would retry each task at once. A task that is failed and not up for retry was stopped by the provider.
RETRIED: dict[str, Any] = {"task_id": "task", "retries": 3, "retry_delay": timedelta(0)}

USER = ["first_name", "last_name", "phone", "email_address", "country"]
USER += ["id_document", "proof_address", "bank_statement"]
for generate in (False, True):
    with DAG(f"create_user_{generate}", schedule=None, params=dict.fromkeys([*USER, "password"], "")):
        QuoineCreateOnboardingUserOperator(
            **{field: f"{{{{ params.{field} }}}}" for field in USER},
            password_variable="{{ params.password }}",
            generate_password=generate,
            unknown_outcome_notifiers=[Telling("{{ exception }}")],
            **RETRIED,
        )

with DAG("create_applicant", schedule=None, params=APPLICATION_FORM, tags=[APPLICANTS_TAG]):
    QuoineCreateOnboardingUserOperator(
        application="{{ params.application }}",
        password_variable="quoine_password_{{ run_id }}",
        generate_password=True,
        **RETRIED,
    )

for variable in (None, "kept_key"):
    for fail_on_declined in (False, True):
        with DAG(f"wait_for_user_{variable}_{fail_on_declined}", schedule=None, params={"user_id": ""}):
            QuoineOnboardingStatusSensor(
                user_id="{{ params.user_id }}",
                password_variable="user_password",
                credentials_variable=variable,
                fail_on_declined=fail_on_declined,
                poke_interval=0.05,
                timeout=120,
                **RETRIED,
            )

with DAG("wait_for_withdrawal", schedule=None, params={"id": ""}):
    QuoineWithdrawalSensor(
        withdrawal_id="{{ params.id }}", credentials_variable="user_key", deferrable=True, poke_interval=0.05, **RETRIED
    )

with DAG("request_code", schedule=None, params={"user_id": ""}):
    QuoineRequestAuthCodeOperator(user_id="{{ params.user_id }}", credentials_variable="user_key", **RETRIED)

ORDER: dict[str, Any] = {
    "payment_reference": "{{ params.payment_reference }}",
    "amount": "{{ params.amount }}",
    "address": "{{ params.address }}",
    "credentials_variable": "user_key",
    **RETRIED,
}
FORM: dict[str, Any] = {"payment_reference": "", "amount": "", "address": ""}
NEEDED, DOUBT = Telling("{{ task.subject }}"), Telling("{{ exception }}")
#: One list for several tasks, as an author may have it.
OUTLETS = [Asset("an_outlet_of_the_author")]
#: The last one is the first DAG with another name.
WAYS: dict[str, dict[str, Any]] = {
    "": {},
    "_dry": {"dry_run": True},
    "_waiting": {"wait_for_completion": True, "poke_interval": 0.05},
    "_with_outlet": {"wait_for_completion": True, "poke_interval": 0.05, "outlets": OUTLETS},
    "_copied": {},
}
for name, how in WAYS.items():
    with DAG(f"withdraw{name}", schedule=None, params=FORM):
        QuoineCreateWithdrawalOperator(auth_code_variable="user_code", **ORDER, **how)
    with DAG(f"authorize{name}", schedule=None, params=FORM | {"user_id": ""}):
        QuoineAuthorizeWithdrawalOperator(user_id="{{ params.user_id }}", **ORDER, **how)

with DAG("authorize_telling", schedule=None, params=FORM | {"user_id": ""}):
    QuoineAuthorizeWithdrawalOperator(
        user_id="{{ params.user_id }}", notifiers=NEEDED, unknown_outcome_notifiers=[DOUBT], **ORDER
    )

for name, dry in {"": False, "_dry": True}.items():
    with DAG(f"withdraw_telling{name}", schedule=None, params=FORM):
        QuoineCreateWithdrawalOperator(
            auth_code_variable="user_code", unknown_outcome_notifiers=[DOUBT], dry_run=dry, **ORDER
        )

for name, message in {"": DOUBT.message, "_broken": "{{ 1 / 0 }}"}.items():
    with DAG(f"notify_unknown_outcomes{name}", schedule=None):
        QuoineNotifyUnknownOutcomesOperator(task_id="task", notifiers=[Telling(message)])

for whose, users in {"": None, "_by_carol": [{"id": "carol", "name": "carol"}]}.items():
    with DAG(f"approve{whose}", schedule=None, params=FORM | {"user_id": ""}):
        QuoineApproveWithdrawalOperator(
            user_id="{{ params.user_id }}",
            assigned_users=users,
            quoine_conn_id="{{ var.value.get('connection', 'quoine_default') }}",
            **ORDER,
        )

NATIVE: dict[str, Any] = {"params": {"payment_reference": "", "amount": ""}, "render_template_as_native_obj": True}
with DAG("withdraw_native", schedule=None, **NATIVE):
    QuoineCreateWithdrawalOperator(
        auth_code_variable="user_code",
        **ORDER | {"address": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"},
    )

with DAG("withdraw_native_in_quotes", schedule=None, **NATIVE):
    QuoineCreateWithdrawalOperator(
        auth_code_variable="user_code",
        **ORDER | {"amount": "'{{ params.amount }}'", "address": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"},
    )

with DAG("withdraw_by_variable", schedule=None, params=FORM):
    by_variable = {"payment_reference": "{{ var.value.reference }}", "amount": "{{ var.value.payout }}"}
    QuoineCreateWithdrawalOperator(auth_code_variable="user_code", **ORDER | by_variable)

with DAG("authorize_by_variable", schedule=None, params=FORM | {"user_id": ""}):
    QuoineAuthorizeWithdrawalOperator(user_id="{{ params.user_id }}", **ORDER | {"amount": "{{ var.value.payout }}"})

with DAG("authorize_over_variable", schedule=None, params=FORM | {"user_id": ""}):
    QuoineAuthorizeWithdrawalOperator(
        user_id="{{ params.user_id }}", quoine_conn_id="{{ var.value.connection }}", **ORDER
    )
