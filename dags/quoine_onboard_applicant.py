"""
### Onboard an applicant from the page

Sends an application to the exchange and waits until it says APPROVED or DECLINED. Nobody starts it by hand: the page
*Quoine*, *Applicants*, *New applicant* takes the form and the documents, checks them, keeps them encrypted, and starts
a run with a reference. So the run has no personal data. The application is removed as soon as the user exists.

The tag `quoine-applicants` has the page offer this DAG.

**Before you run:** the connection `quoine_default` with the vendor's key. With workers on several hosts, also
`[quoine] applications_path`.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG

from airflow_provider_quoine.forms import APPLICANTS_TAG, APPLICATION_FORM
from airflow_provider_quoine.operators.onboarding import QuoineCreateOnboardingUserOperator
from airflow_provider_quoine.sensors.onboarding import QuoineOnboardingStatusSensor

with DAG(
    dag_id="quoine_onboard_applicant",
    description="Create a user from an application, and wait for APPROVED or DECLINED",
    doc_md=__doc__,
    schedule=None,
    params=APPLICATION_FORM,
    tags=["quoine", "example", APPLICANTS_TAG],
):
    # [START onboard_applicant]
    create_user = QuoineCreateOnboardingUserOperator(
        task_id="create_user",
        application="{{ params.application }}",
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
    # [END onboard_applicant]
