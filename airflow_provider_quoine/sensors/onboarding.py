"""A sensor that waits for an onboarding user to be approved or declined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import PokeReturnValue
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_quoine.exchange.models import (
    ONBOARDING_FAILURE_STATUSES,
    ONBOARDING_SUCCESS_STATUSES,
    OnboardingStatus,
)
from airflow_provider_quoine.hooks.quoine import write_secret_variable
from airflow_provider_quoine.sensors.base import QuoineWaitSensor
from airflow_provider_quoine.triggers.polling import QuoineOnboardingStatusTrigger
from airflow_provider_quoine.waiting.status_queries import OnboardingStatusWatch, Progress

if TYPE_CHECKING:
    from airflow.sdk import XComArg

    from airflow_provider_quoine.waiting.status_queries import Look


class QuoineOnboardingStatusSensor(QuoineWaitSensor):
    """
    Wait until a user is APPROVED or DECLINED (api-reference 1.2).

    The key that the exchange hands out with APPROVED goes into an Airflow Variable, encrypted at rest, and
    nowhere else.

    :param user_id: the exchange's id of the user.
    :param password_variable: Variable with the user's password, as the create operator used it.
    :param credentials_variable: Variable to write ``{"api_id": ..., "api_secret": ...}`` to on APPROVED; by
        default the key is dropped. A name with ``secret`` in it is masked in Airflow's page.
    :param fail_on_declined: whether DECLINED fails the task (never retried). False returns it, for branching;
        a banned user fails the task all the same.
    :return: ``"APPROVED"`` or ``"DECLINED"``.
    """

    trigger_type = QuoineOnboardingStatusTrigger
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

    def get_watch(self) -> OnboardingStatusWatch:
        """Return the user to look at."""
        returned: set[str] = set() if self.fail_on_declined else {OnboardingStatus.DECLINED}
        return OnboardingStatusWatch(
            quoine_conn_id=self.quoine_conn_id,
            user_id=str(self.user_id),
            password_variable=self.password_variable,
            success_states=tuple(sorted(ONBOARDING_SUCCESS_STATUSES | returned)),
            failure_states=tuple(sorted(ONBOARDING_FAILURE_STATUSES - returned)),
        )

    def conclude(self, look: Look) -> PokeReturnValue:
        """Store the key if there is one to store, then end as every sensor does."""
        if self._has_key_to_store(look):
            self._store(look)
        return super().conclude(look)

    def needs_own_look(self, look: Look) -> bool:
        """The key never travels in an event, so an approved user is looked at once more from here."""
        return self._has_key_to_store(look)

    def failure_message(self, look: Look) -> str:
        """Say that the exchange declined the user."""
        return f"The exchange answered {look.state} for user {self.user_id}; the answer gives no reason, so ask it."

    def result(self, look: Look) -> str:
        """Return the status."""
        return look.state.upper()

    def _has_key_to_store(self, look: Look) -> bool:
        approved = look.progress == Progress.DONE and look.state.upper() == OnboardingStatus.APPROVED
        return approved and bool(self.credentials_variable)

    def _store(self, look: Look) -> None:
        if look.credentials is None:
            raise AirflowFailException(
                f"The exchange approved user {self.user_id} but handed out no key, so there is nothing to put into "
                f"Variable {self.credentials_variable!r}. Ask the exchange for the user's key."
            )
        write_secret_variable(
            str(self.credentials_variable),
            look.credentials.to_json(),
            description=f"API key of Quoine user {self.user_id}, written when the exchange approved the user",
        )
        self.log.info("The key of user %s is in Variable %s.", self.user_id, self.credentials_variable)
