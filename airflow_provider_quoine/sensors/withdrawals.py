"""A sensor that waits for a withdrawal's final state."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.assets import WITHDRAWALS, add_withdrawal_event, may_add_events
from airflow_provider_quoine.exchange.errors import QuoineError
from airflow_provider_quoine.exchange.models import WITHDRAWAL_FAILURE_STATES, WITHDRAWAL_SUCCESS_STATES
from airflow_provider_quoine.failures import stop
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.links.withdrawals import QuoineWithdrawalLink, show_link
from airflow_provider_quoine.payments.withdrawals import exchange_of, see, task_name
from airflow_provider_quoine.sensors.base import QuoineWaitSensor
from airflow_provider_quoine.triggers.polling import QuoineWithdrawalTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg
    from airflow.sdk.exceptions import AirflowFailException

    from airflow_provider_quoine.waiting.status_queries import Observation


class QuoineWithdrawalSensor(QuoineWaitSensor):
    """
    Wait until a withdrawal is processed (api-reference 2.2).

    A cancelled, declined or reverted withdrawal fails the task; it is never sent again by itself. A state in neither
    set keeps waiting.

    :param withdrawal_id: the exchange's id.
    :param credentials_variable: Variable with the user's own key, as the onboarding sensor writes it; leave it
        out if the connection itself holds that key.
    :param payment_reference: of the payment, for the asset event and the ledger, which is told how it ended.
    :param success_states: states that end the wait well (decisions, Final states).
    :param failure_states: states that end it badly (decisions, Final states).
    :return: id, amount (str), address and state.
    """

    operator_extra_links = (QuoineWithdrawalLink(),)
    template_fields: Sequence[str] = ("quoine_conn_id", "withdrawal_id", "credentials_variable", "payment_reference")

    def __init__(
        self,
        *,
        withdrawal_id: str | XComArg,
        credentials_variable: str | None = None,
        payment_reference: str = "",
        success_states: Collection[str] = WITHDRAWAL_SUCCESS_STATES,
        failure_states: Collection[str] = WITHDRAWAL_FAILURE_STATES,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.withdrawal_id = withdrawal_id
        self.credentials_variable = credentials_variable
        self.payment_reference = payment_reference
        self.success_states = success_states
        self.failure_states = failure_states
        may_add_events(self, WITHDRAWALS)

    def execute(self, context: Context) -> Any:
        """Show the link to the withdrawal's page, then wait in the chosen mode."""
        # Where the connection cannot be used, the wait itself says so, as its mode has it.
        with suppress(QuoineError):
            show_link(context=context, hook=self._hook(), withdrawal_id=str(self.withdrawal_id))
        return super().execute(context)

    def get_trigger(self) -> QuoineWithdrawalTrigger:
        """
        Return the trigger that waits for the withdrawal.

        :raises PaymentRefusedError: if the payment reference is none.
        """
        self._reference()
        return QuoineWithdrawalTrigger(
            withdrawal_id=str(self.withdrawal_id),
            credentials_variable=self.credentials_variable,
            success_states=self.success_states,
            failure_states=self.failure_states,
            poke_interval=self.poke_interval,
            quoine_conn_id=self.quoine_conn_id,
        )

    def see_end(self, context: Context, seen: Observation) -> None:
        """Write the end into the ledger."""
        if reference := self._reference():
            see(hook=self._hook(), reference=reference, withdrawal=seen.answer, task=task_name(context))

    def tell(self, context: Context, seen: Observation) -> None:
        """Add the event of the final state."""
        add_withdrawal_event(
            context,
            seen.answer,
            exchange=exchange_of(self._hook()),
            reference=self._reference(),
            connection=self.quoine_conn_id,
        )

    def _hook(self) -> QuoineHook:
        return QuoineHook(self.quoine_conn_id, credentials_variable=self.credentials_variable)

    def _reference(self) -> str:
        """Return the payment reference as the ledger has it; empty where there is none."""
        from airflow_provider_quoine.payments.refusals import check_reference

        return check_reference(self.payment_reference) if self.payment_reference else ""

    def failure(self, seen: Observation) -> AirflowFailException:
        """Return the failing end."""
        return stop(
            f"Withdrawal {self.withdrawal_id} ended as {seen.state}: the exchange did not pay it out.",
            done="It was sent once, and is not sent again by itself.",
            next="To pay it after all, start a new run with another payment reference.",
        )

    def result(self, seen: Observation) -> dict[str, Any]:
        """Return the withdrawal."""
        return seen.answer
