"""What the operators that withdraw share: the record, the policy, and the wait for the end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_quoine.exchange.models import WITHDRAWAL_FAILURE_STATES, WITHDRAWAL_SUCCESS_STATES
from airflow_provider_quoine.failures import without_retry
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.links.withdrawals import QuoineWithdrawalLink, show_link
from airflow_provider_quoine.payments.send_once import Step
from airflow_provider_quoine.payments.withdrawals import (
    look_up_sent,
    rehearse_withdrawal,
    send_withdrawal,
    withdrawal_record,
)
from airflow_provider_quoine.triggers.polling import QuoineWithdrawalTrigger
from airflow_provider_quoine.waiting.status_queries import Look, Progress, WithdrawalWatch, judge, look_from_event

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_quoine.exchange.models import Withdrawal
    from airflow_provider_quoine.payments.send_once import SendOnce


class WithdrawalTask(BaseOperator):
    """
    A task that sends at most one withdrawal per run, whatever is retried or cleared.

    :param amount: bitcoin as a string such as ``"0.5"``; at most 8 decimals.
    :param address: bitcoin address that the connection's policy allows.
    :param credentials_variable: Variable with the user's own key, as the onboarding sensor writes it; leave it
        out if the connection itself holds that key.
    :param wait_for_completion: go on to the final state in the same task, deferred. Cancelled, declined and
        reverted fail, and nothing is sent again.
    :param poke_interval: seconds between two looks while it waits.
    :param completion_timeout: how long it waits.
    :param dry_run: do everything but send; the result's ``id`` is None and its state ``dry_run``.
    :param quoine_conn_id: connection; its policy says where bitcoin may go and how much.
    """

    template_fields: Sequence[str] = ("quoine_conn_id", "amount", "address", "credentials_variable")
    operator_extra_links = (QuoineWithdrawalLink(),)
    ui_color = "#fde68a"

    def __init__(
        self,
        *,
        amount: str,
        address: str,
        credentials_variable: str | None = None,
        wait_for_completion: bool = False,
        poke_interval: float = 60,
        completion_timeout: timedelta = timedelta(days=1),
        dry_run: bool = False,
        quoine_conn_id: str = "quoine_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.amount = amount
        self.address = address
        self.credentials_variable = credentials_variable
        self.wait_for_completion = wait_for_completion
        self.poke_interval = poke_interval
        self.completion_timeout = completion_timeout
        self.send_nothing = dry_run
        self.quoine_conn_id = quoine_conn_id

    @property
    def hook(self) -> QuoineHook:
        """The hook that signs with the user's own key."""
        return QuoineHook(self.quoine_conn_id, credentials_variable=self.credentials_variable)

    def begin(self, context: Context) -> tuple[SendOnce, dict[str, Any]]:
        """Open the record before anything else can fail."""
        once = withdrawal_record(context)
        return once, once.begin({"amount": str(self.amount).strip(), "address": str(self.address).strip()})

    def send(self, context: Context, once: SendOnce, auth_code: str) -> Any:
        """Send once and go on; a dry run checks the same and sends nothing."""
        if self.send_nothing:
            checked = rehearse_withdrawal(hook=self.hook, amount=self.amount, address=self.address)
            self.log.info("Dry run: the withdrawal was checked and not sent.")
            return checked
        withdrawal = send_withdrawal(
            hook=self.hook, once=once, amount=self.amount, address=self.address, auth_code=auth_code
        )
        self.log.info("The exchange took withdrawal %s.", withdrawal.id)
        return self._go_on(context, withdrawal)

    def go_on_if_sent(self, context: Context, record: dict[str, Any]) -> Any:
        """Go on with what an earlier try sent; None if none did."""
        if record["step"] != Step.SENT:
            return None
        with without_retry():
            return self._go_on(context, look_up_sent(hook=self.hook, record=record))

    def _go_on(self, context: Context, withdrawal: Withdrawal) -> Any:
        show_link(context=context, hook=self.hook, withdrawal_id=withdrawal.id)
        if not self.wait_for_completion:
            return withdrawal.as_dict()
        watch = WithdrawalWatch(
            quoine_conn_id=self.quoine_conn_id,
            credentials_variable=self.credentials_variable,
            withdrawal_id=withdrawal.id,
            success_states=tuple(sorted(WITHDRAWAL_SUCCESS_STATES)),
            failure_states=tuple(sorted(WITHDRAWAL_FAILURE_STATES)),
        )
        progress = judge(withdrawal.state, watch.success_states, watch.failure_states)
        if progress != Progress.WAITING:
            # To defer for what has ended is to resume at once, which Airflow can take for a failure.
            return _conclude(Look(progress=progress, state=withdrawal.state, answer=withdrawal.as_dict()))
        self.defer(
            trigger=QuoineWithdrawalTrigger(poke_interval=self.poke_interval, **vars(watch)),
            method_name="withdrawal_complete",
            timeout=self.completion_timeout,
        )
        return None

    def withdrawal_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """
        End with the withdrawal's final state.

        :raises AirflowFailException: if the exchange did not pay it out.
        """
        return _conclude(look_from_event(event))


def _conclude(look: Look) -> dict[str, Any]:
    if look.progress == Progress.FAILED:
        raise AirflowFailException(
            f"Withdrawal {look.answer.get('id')} ended as {look.state}: the exchange did not pay it out. This task "
            "does not send it again, also not when it is cleared; to pay after all, start a new run."
        )
    return look.answer
