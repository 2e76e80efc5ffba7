"""A sensor that waits for a withdrawal's final state."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.exchange.models import WITHDRAWAL_FAILURE_STATES, WITHDRAWAL_SUCCESS_STATES
from airflow_provider_quoine.sensors.base import QuoineWaitSensor
from airflow_provider_quoine.triggers.polling import QuoineWithdrawalTrigger
from airflow_provider_quoine.waiting.status_queries import WithdrawalWatch

if TYPE_CHECKING:
    from airflow.sdk import XComArg

    from airflow_provider_quoine.waiting.status_queries import Look


class QuoineWithdrawalSensor(QuoineWaitSensor):
    """
    Wait until a withdrawal is processed (api-reference 2.2).

    A cancelled, declined or reverted withdrawal fails the task; it is never sent again by itself. A state that
    is in neither set keeps waiting.

    :param withdrawal_id: the exchange's id.
    :param credentials_variable: Variable with the user's own key, as the onboarding sensor writes it; leave it
        out if the connection itself holds that key.
    :param success_states: states that end the wait well (decided: facts, Withdrawals).
    :param failure_states: states that end it badly (decided: facts, Withdrawals).
    :return: id, amount (str), address and state.
    """

    trigger_type = QuoineWithdrawalTrigger
    template_fields: Sequence[str] = ("quoine_conn_id", "withdrawal_id", "credentials_variable")

    def __init__(
        self,
        *,
        withdrawal_id: str | XComArg,
        credentials_variable: str | None = None,
        success_states: Collection[str] = WITHDRAWAL_SUCCESS_STATES,
        failure_states: Collection[str] = WITHDRAWAL_FAILURE_STATES,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.withdrawal_id = withdrawal_id
        self.credentials_variable = credentials_variable
        self.success_states = success_states
        self.failure_states = failure_states

    def get_watch(self) -> WithdrawalWatch:
        """Return the withdrawal to look at."""
        return WithdrawalWatch(
            quoine_conn_id=self.quoine_conn_id,
            credentials_variable=self.credentials_variable,
            withdrawal_id=str(self.withdrawal_id),
            success_states=tuple(sorted(self.success_states)),
            failure_states=tuple(sorted(self.failure_states)),
        )

    def failure_message(self, look: Look) -> str:
        """Say how the withdrawal ended."""
        return (
            f"Withdrawal {self.withdrawal_id} ended as {look.state}: the exchange did not pay it out. It is not "
            "sent again by itself; to pay it after all, start a new run."
        )

    def result(self, look: Look) -> dict[str, Any]:
        """Return the withdrawal."""
        return look.answer
