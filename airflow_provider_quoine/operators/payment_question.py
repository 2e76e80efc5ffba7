"""The base of the operators that ask a person about a payment on Airflow's page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.exceptions import HITLTimeoutError
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.execution_time.comms import CreateHITLDetailPayload

from airflow_provider_quoine.failures import stop
from airflow_provider_quoine.operators.notifying import notify
from airflow_provider_quoine.operators.payment_task import PaymentTask

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_quoine.payments.withdrawals import WithdrawalPayment

#: Exactly what is sent. A person's answer counts for this and for nothing else.
ABOUT = """\
- payment: {reference}
- amount: **{amount} BTC**
- address: {address}
- for user {user_id}
- connection: {connection}, account {account} at {exchange}
"""


class PaymentQuestion(PaymentTask, HITLOperator):
    """A task that asks about one payment. There is no default answer: without one the task fails."""

    template_fields: Sequence[str] = PaymentTask.template_fields

    #: Whose money it is.
    user_id: Any

    def about(self, payment: WithdrawalPayment) -> str:
        """Return the lines of the question that say what is sent."""
        return ABOUT.format(
            reference=as_it_is(payment.ledger_order.reference),
            amount=payment.order.amount,
            address=as_it_is(str(payment.order.address)),
            user_id=as_it_is(str(self.user_id or "the key's owner")),
            connection=as_it_is(self.quoine_conn_id),
            account=as_it_is(payment.ledger_order.account),
            exchange=as_it_is(payment.ledger_order.exchange),
        )

    def put_question(self, context: Context) -> str:
        """
        Put the question on Airflow's page. If it is there already, this deletes the answer from Airflow's tables.

        :return: the question as it stands there.
        """
        from airflow.sdk.api.datamodels._generated import HITLUser
        from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

        # Not upsert_hitl_detail, which drops Airflow's answer.
        question: Any = SUPERVISOR_COMMS.send(
            CreateHITLDetailPayload(
                ti_id=context["ti"].id,
                options=self.options,
                subject=self.subject,
                body=self.body,
                defaults=self.defaults,
                multiple=self.multiple,
                params=self.serialized_params,
                assigned_users=[HITLUser(id=user["id"], name=user["name"]) for user in self.assigned_users or []],
            )
        )
        return str(getattr(question, "body", None) or "")

    def show_text(self, context: Context, question: str) -> None:
        """
        Put the text of this question in place of an earlier one's.

        :param question: as :meth:`put_question` returned it.
        """
        if question != self.body:
            # Airflow 3.3 keeps the first text, whatever is put there.
            self.write(context, body=self.body)

    def write(self, context: Context, **changes: Any) -> None:
        """Have the API server change the question; where it does not, the task goes on."""
        from airflow_provider_quoine.api_server import QuoineApiServerError, write_question

        try:
            write_question(context["ti"].id, **changes)
        except QuoineApiServerError as error:
            self.log.warning("The question on Airflow's page stays as it was. %s", error)

    def refuse_another_question(self, question: str, payment: WithdrawalPayment) -> None:
        """
        Stop if a question is about another withdrawal than this.

        Templates are rendered again after the answer. Airflow 3.3 keeps the text of a task's first question when the
        task asks again, in later tries too.

        :param question: as it stands on Airflow's page, or as it was asked.
        """
        about = self.about(payment)
        if about not in question:
            asked = "; ".join(line.removeprefix("- ") for line in question.splitlines() if line.startswith("- "))
            now = "; ".join(line.removeprefix("- ") for line in about.splitlines())
            raise stop(
                "A person was asked about another withdrawal than this task is about now.",
                next="Start a new run.",
                details=f"A person was asked about {asked or 'something else'}\nNow this task is about {now}\n"
                "A template, the connection or the DAG has changed meanwhile. Nothing was sent.",
            )

    def answered(self, context: Context, event: dict[str, Any] | None) -> tuple[str, dict[str, Any]]:
        """
        Return which option was chosen, and by whom.

        :param event: with which Airflow resumed the task.
        :raises AirflowFailException: if nobody answered in time, or the event is no answer.
        """
        try:
            answer = HITLOperator.execute_complete(self, context, event or {})
            (option,) = answer["chosen_options"]
        except HITLTimeoutError:
            raise stop(
                f"Nobody answered within {self.response_timeout}.", next="Clear this task to ask again."
            ) from None
        except (KeyError, AttributeError, ValueError) as error:
            raise stop(
                "Airflow resumed this task without a person's answer.",
                next="Clear this task to ask again.",
                details=f"{type(error).__name__}: {error}",
            ) from None
        return option, dict(answer.get("responded_by_user") or {})

    def wait_for_answer(self, context: Context) -> None:
        """Tell the notifiers that a person is needed, and wait. A notifier that fails is logged and stops nothing."""
        notify(self.notifiers, context)
        told, self.notifiers = self.notifiers, []
        try:
            HITLOperator.execute(self, context)
        finally:
            self.notifiers = told

    def skip(self, by: str, option: str) -> None:
        """Skip what comes after this task, because a person wants it."""
        raise AirflowSkipException(f"{by} chose {option}: nothing was sent.")


def as_it_is(text: str) -> str:
    """Return a text as Markdown's code, so that no sign in it changes what the page shows."""
    return f"`{' '.join(text.split()).replace('`', '?')}`"
