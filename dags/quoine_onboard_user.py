"""
### Onboard a user

Sends the form and the three documents to the exchange and waits until it says APPROVED or DECLINED.

The user's password is made here and kept in an encrypted Variable; the key that the exchange hands out with
APPROVED goes into another one, `quoine_user_<id>_api_secret`, where the withdrawal DAG finds it. Neither is ever a
parameter of the run, because those can be read by everybody who may see the DAG. That includes the name and
the phone number that you type here.

**Before you run:** the connection `quoine_default` with the vendor's key, and documents that the workers can read.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG

from airflow_provider_quoine.forms import ONBOARDING_FIELDS, ONBOARDING_FORM
from airflow_provider_quoine.operators.onboarding import QuoineCreateOnboardingUserOperator
from airflow_provider_quoine.sensors.onboarding import QuoineOnboardingStatusSensor

with DAG(
    dag_id="quoine_onboard_user",
    description="Create a user at the exchange and wait for APPROVED or DECLINED",
    doc_md=__doc__,
    schedule=None,
    params=ONBOARDING_FORM,
    tags=["quoine", "example"],
):
    # [START onboard_user]
    create_user = QuoineCreateOnboardingUserOperator(
        task_id="create_user",
        **ONBOARDING_FIELDS,
        password_variable="quoine_password_{{ run_id }}",
        generate_password=True,
    )

    wait_for_approval = QuoineOnboardingStatusSensor(
        task_id="wait_for_approval",
        user_id=create_user.output,
        password_variable="quoine_password_{{ run_id }}",
        credentials_variable=f"quoine_user_{create_user.output}_api_secret",
        deferrable=True,
        poke_interval=15,
        timeout=pendulum.duration(days=7),
    )
    # [END onboard_user]
