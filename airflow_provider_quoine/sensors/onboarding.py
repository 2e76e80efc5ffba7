"""A sensor that waits for an onboarding user to be approved or declined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import PokeReturnValue

from airflow_provider_quoine.assets import USERS, add_event, may_add_events
from airflow_provider_quoine.exchange.models import (
    ONBOARDING_FAILURE_STATUSES,
    ONBOARDING_SUCCESS_STATUSES,
    OnboardingStatus,
)
from airflow_provider_quoine.failures import ONLY_READ, stop
from airflow_provider_quoine.hooks.quoine import QuoineHook, write_secret_variable
from airflow_provider_quoine.payments.withdrawals import exchange_of
from airflow_provider_quoine.sensors.base import QuoineWaitSensor
from airflow_provider_quoine.triggers.polling import QuoineOnboardingStatusTrigger
from airflow_provider_quoine.waiting.status_queries import Progress

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg
    from airflow.sdk.exceptions import AirflowFailException

    from airflow_provider_quoine.waiting.status_queries import Observation

DECISION = "decision"
"""Key of the XCom with the exchange's decision. It is there after a task that has failed as well."""


class QuoineOnboardingStatusSensor(QuoineWaitSensor):
    """
    Wait until a user is APPROVED or DECLINED (api-reference 1.2).

    The exchange hands out the user's key with APPROVED. It is stored in an Airflow Variable, encrypted at rest, and
    nowhere else.

    :param user_id: the exchange's id of the user.
    :param password_variable: Variable with the user's password, as the create operator used it.
    :param credentials_variable: Variable to write ``{"api_id": ..., "api_secret": ...}`` to on APPROVED; by
        default the key is dropped. A name with ``secret`` in it is masked in Airflow's page.
    :param fail_on_declined: whether DECLINED fails the task (never retried). False returns it, for branching;
        a banned user fails the task all the same.
    :return: ``"APPROVED"`` or ``"DECLINED"``.
    """

    template_fields: Sequence[str] = ("quoine_conn_id", "user_id", "password_variable", "credentials_variable")

    def __init__(
        self,
        *,
        user_id: str | XComArg,
        password_variable: str,
        credentials_variable: str | None = None,
        fail_on_declined: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.user_id = user_id
        self.password_variable = password_variable
        self.credentials_variable = credentials_variable
        self.fail_on_declined = fail_on_declined
        may_add_events(self, USERS)

    def get_trigger(self) -> QuoineOnboardingStatusTrigger:
        """Return the trigger that waits for the user."""
        returned: set[str] = set() if self.fail_on_declined else {OnboardingStatus.DECLINED}
        return QuoineOnboardingStatusTrigger(
            user_id=str(self.user_id),
            password_variable=self.password_variable,
            success_states=ONBOARDING_SUCCESS_STATUSES | returned,
            failure_states=ONBOARDING_FAILURE_STATUSES - returned,
            poke_interval=self.poke_interval,
            quoine_conn_id=self.quoine_conn_id,
        )

    def conclude(self, seen: Observation) -> PokeReturnValue:
        """Store the key of an approved user, then end as every sensor does."""
        if self.must_query_again(seen):
            self._store_key(seen)
        return super().conclude(seen)

    def must_query_again(self, seen: Observation) -> bool:
        """Whether there is a key to store. An event never carries it, so the task queries an approved user again."""
        approved = seen.progress == Progress.DONE and seen.state.upper() == OnboardingStatus.APPROVED
        return approved and bool(self.credentials_variable)

    def see_end(self, context: Context, seen: Observation) -> None:
        """Keep the exchange's decision where a failed task has it as well."""
        context["ti"].xcom_push(key=DECISION, value=seen.state.upper())

    def tell(self, context: Context, seen: Observation) -> None:
        """Add the event that the user was approved."""
        if seen.state.upper() == OnboardingStatus.APPROVED:
            # Each exchange counts its users from 1.
            exchange = exchange_of(QuoineHook(self.quoine_conn_id))
            add_event(
                context,
                USERS,
                f"user/{exchange}/{self.user_id}/{OnboardingStatus.APPROVED}",
                exchange=exchange,
                id=str(self.user_id),
                state=str(OnboardingStatus.APPROVED),
                connection=self.quoine_conn_id,
            )

    def failure(self, seen: Observation) -> AirflowFailException:
        """Return that the exchange declined or banned the user."""
        return stop(
            f"The exchange answered {seen.state} for user {self.user_id}.",
            done=ONLY_READ,
            next="The answer gives no reason: ask the exchange.",
        )

    def result(self, seen: Observation) -> str:
        """Return the status."""
        return seen.state.upper()

    def _store_key(self, seen: Observation) -> None:
        if seen.credentials is None:
            raise stop(
                f"The exchange approved user {self.user_id} but handed out no key.",
                done=ONLY_READ,
                next="Ask the exchange for the user's key.",
                details=f"There is nothing to put into Variable {self.credentials_variable!r}.",
            )
        write_secret_variable(
            str(self.credentials_variable),
            seen.credentials.to_json(),
            description=f"API key of Quoine user {self.user_id}, written when the exchange approved the user",
        )
        self.log.info("The key of user %s is in Variable %s.", self.user_id, self.credentials_variable)
