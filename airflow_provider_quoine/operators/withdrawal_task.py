"""The base of the operators that withdraw: the payment, the sending, and the wait for the final state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.assets import WITHDRAWALS, add_withdrawal_event, may_add_events
from airflow_provider_quoine.exchange.models import WITHDRAWAL_FAILURE_STATES, WITHDRAWAL_SUCCESS_STATES
from airflow_provider_quoine.failures import in_words, stop
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.links.withdrawals import QuoineWithdrawalLink, show_link
from airflow_provider_quoine.operators.notifying import telling_of_doubt
from airflow_provider_quoine.operators.payment_task import PaymentTask
from airflow_provider_quoine.operators.task_state import name_payment
from airflow_provider_quoine.payments.refusals import check_reference
from airflow_provider_quoine.payments.withdrawals import exchange_of, see, task_name
from airflow_provider_quoine.triggers.polling import QuoineWithdrawalTrigger, read_observation
from airflow_provider_quoine.waiting.status_queries import Observation, Progress

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier, Context

    from airflow_provider_quoine.exchange.models import Withdrawal
    from airflow_provider_quoine.payments.withdrawals import WithdrawalPayment


def as_timedelta(duration: timedelta) -> timedelta:
    """Make a plain timedelta of a pendulum duration: a task that waits cannot hand Airflow a subclass."""
    return timedelta(seconds=duration.total_seconds())


class WithdrawalTask(PaymentTask):
    """
    A task that sends a payment at most once, whatever is retried, cleared, deleted or copied.

    The other parameters are those of :class:`~airflow_provider_quoine.operators.payment_task.PaymentTask`.

    :param wait_for_completion: wait for the final state in the same task, deferred. Cancelled, declined and
        reverted fail, and nothing is sent again.
    :param poke_interval: seconds between two queries while it waits.
    :param completion_timeout: longest wait.
    :param unknown_outcome_notifiers: Airflow's notifiers, called when nobody knows whether it was sent, by the task
        itself or by its next attempt. Their templates have the failure's lines as ``exception``.
    :param dry_run: do everything but send; the result's ``id`` is None and its state ``dry_run``.
    """

    operator_extra_links = (QuoineWithdrawalLink(),)
    ui_color = "#fde68a"

    def __init__(
        self,
        *,
        wait_for_completion: bool = False,
        poke_interval: float = 60,
        completion_timeout: timedelta = timedelta(days=1),
        dry_run: bool = False,
        unknown_outcome_notifiers: Sequence[BaseNotifier] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wait_for_completion = wait_for_completion
        self.poke_interval = poke_interval
        self.completion_timeout = as_timedelta(completion_timeout)
        # Not dry_run, which is a method of every operator.
        self.is_dry_run = dry_run
        self.unknown_outcome_notifiers = unknown_outcome_notifiers
        may_add_events(self, WITHDRAWALS)

    def begin(self, context: Context, payment: WithdrawalPayment) -> Withdrawal | None:
        """Find or begin the payment; if it was sent before, return the withdrawal."""
        # A dry run leaves no trace, so it tells nobody either.
        with telling_of_doubt(() if self.is_dry_run else self.unknown_outcome_notifiers, context):
            return payment.begin()

    def send(self, context: Context, payment: WithdrawalPayment, auth_code: str) -> Any:
        """Send once and go on; a dry run checks the same and sends nothing."""
        if self.is_dry_run:
            checked = payment.dry_run()
            self.log.info("Dry run: the withdrawal was checked and not sent.")
            return checked
        with telling_of_doubt(self.unknown_outcome_notifiers, context):
            withdrawal = payment.send(auth_code, fence=lambda: name_payment(context, payment.ledger_order))
        self.log.info("The exchange took withdrawal %s.", withdrawal.id)
        return self.go_on(context, payment, withdrawal)

    def go_on(self, context: Context, payment: WithdrawalPayment, withdrawal: Withdrawal) -> Any:
        """Return a withdrawal that was sent, or wait for its final state first."""
        show_link(context=context, hook=payment.hook, withdrawal_id=withdrawal.id)
        if not self.wait_for_completion:
            return withdrawal.as_dict()
        trigger = QuoineWithdrawalTrigger(
            withdrawal_id=withdrawal.id,
            credentials_variable=self.credentials_variable,
            success_states=WITHDRAWAL_SUCCESS_STATES,
            failure_states=WITHDRAWAL_FAILURE_STATES,
            poke_interval=self.poke_interval,
            quoine_conn_id=self.quoine_conn_id,
        )
        progress = trigger.query.progress_of(withdrawal.state)
        if progress != Progress.WAITING:
            # A task that defers for a final state resumes at once, which Airflow can take for a failure.
            seen = Observation(progress=progress, state=withdrawal.state, answer=withdrawal.as_dict())
            return self._conclude(context, seen)
        self.defer(trigger=trigger, method_name="withdrawal_complete", timeout=self.completion_timeout)
        return None

    def withdrawal_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """
        End with the withdrawal's final state.

        :raises AirflowFailException: if the exchange did not pay it out.
        :raises QuoineError: if the exchange refused to answer.
        """
        with in_words():
            return self._conclude(context, read_observation(event))

    def _conclude(self, context: Context, seen: Observation) -> dict[str, Any]:
        hook = QuoineHook(self.quoine_conn_id, credentials_variable=self.credentials_variable)
        reference = check_reference(self.payment_reference)
        if not self.is_dry_run:
            see(hook=hook, reference=reference, withdrawal=seen.answer, task=task_name(context))
        if seen.progress == Progress.FAILED:
            raise stop(
                f"Withdrawal {seen.answer.get('id')} ended as {seen.state}: the exchange did not pay it out.",
                done="It was sent once. This task does not send it again, also not when it is cleared.",
                next="To pay after all, start a new run with another payment reference.",
            )
        add_withdrawal_event(
            context,
            seen.answer,
            exchange=exchange_of(hook),
            reference=reference,
            connection=self.quoine_conn_id,
        )
        return seen.answer
