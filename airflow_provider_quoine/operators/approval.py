"""An operator that has a person approve a withdrawal, before its code is requested."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.failures import stop, without_retry
from airflow_provider_quoine.operators.payment_question import PaymentQuestion, as_it_is
from airflow_provider_quoine.operators.withdrawal_task import as_timedelta

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_provider_quoine.payments.withdrawals import WithdrawalPayment

APPROVE, REJECT = "Approve", "Reject"
BODY = """\
You are asked to approve this withdrawal:

{about}
{rules}

**{approve}** lets the withdrawal go on: the exchange is asked for a code, and a person types it. **{reject}** ends it:
nothing is sent, and approvals that others have given count no more.
"""
RULES = """\
It needs {needed} more. {askers}Nobody's approval counts twice. Where it does not count, this question comes again and
says why: reload the page if it stays grey after your answer."""
REFUSED = """\
**The last approval does not count.** {reason}

"""


class QuoineApproveWithdrawalOperator(PaymentQuestion):
    """
    Ask one person to approve a withdrawal, if the connection wants approvals (decisions, Approvals).

    A connection says in *Approvals* how many people must approve each withdrawal. Put as many of these tasks, one
    after another, before the task that withdraws, with the same fields. A task ends at once where no approval is
    missing. It holds no worker slot while it waits. Names, times and the policy's fingerprint stand in the ledger.

    An approval counts for one payment, connection and policy: whatever changes afterwards needs new ones. It does not
    count if the person has started the run, or another run for the payment, or has approved it already; the task then
    asks again. The other parameters are those of :class:`~airflow_provider_quoine.operators.payment_task.PaymentTask`.

    :param user_id: the exchange's id of the user, the same as in the task that withdraws; leave it out where that
        task has none.
    :param response_timeout: time that the person has.
    :param assigned_users: users who may answer; by default everybody with the permission.
    :param notifiers: Airflow's notifiers, called when a person is needed.
    :return: the number of approvals that are still missing.
    """

    template_fields: Sequence[str] = (*PaymentQuestion.template_fields, "user_id")
    ui_color = "#fef3c7"

    def __init__(
        self,
        *,
        user_id: str | XComArg = "",
        response_timeout: timedelta = timedelta(hours=8),
        **kwargs: Any,
    ) -> None:
        # Airflow passes the DAG's parameters in; the person is asked for nothing but the choice.
        kwargs.pop("params", None)
        super().__init__(
            subject="Approve this withdrawal?",
            options=[APPROVE, REJECT],
            # Airflow would take a default as the answer when the person's time is over.
            defaults=None,
            response_timeout=as_timedelta(response_timeout),
            **kwargs,
        )
        self.user_id = user_id

    def execute(self, context: Context) -> int:
        """Ask a person, unless no approval is missing or the payment was sent already."""
        with without_retry():
            payment = self.payment(context, user_id=str(self.user_id))
            if payment.prepare():
                self.log.info("The payment was sent already.")
                return 0
            payment.check_policy()
            return self._ask(context, payment)

    def _ask(self, context: Context, payment: WithdrawalPayment, refused: str = "") -> int:
        missing = payment.approvals.missing()
        if not missing:
            self.log.info("No approval is missing.")
            return 0
        about, askers = self.about(payment), payment.approvals.askers()
        rules = RULES.format(
            needed=f"{missing} approval" if missing == 1 else f"{missing} approvals",
            askers="".join(f"{as_it_is(name)} {why} and cannot approve. " for name, why in askers.items()),
        )
        self.subject = f"Approve a withdrawal of {payment.order.amount} BTC?"
        self.body = BODY.format(about=about, rules=rules, approve=APPROVE, reject=REJECT)
        if refused:
            self.body = REFUSED.format(reason=as_it_is(refused)) + self.body
        question = self.put_question(context)
        self.refuse_another_question(question, payment)
        payment.approvals.ask(about)
        self.show_text(context, question)
        self.wait_for_answer(context)
        return missing

    def execute_complete(self, context: Context, event: dict[str, Any]) -> int:
        """Write the answer into the ledger; ask again if it does not count."""
        from airflow_provider_quoine.payments.approvals import Person

        option, answered_by = self.answered(context, event)
        person = Person(user_id=str(answered_by.get("id") or ""), name=str(answered_by.get("name") or ""))
        if not person.user_id or not person.name:
            raise stop(
                "Airflow does not say who answered, so nobody has approved.",
                next="Clear this task to ask again.",
            )
        # The fields are rendered again by now, and the policy may have changed.
        with without_retry():
            payment = self.payment(context, user_id=str(self.user_id))
            if option == REJECT:
                # It counts whatever has become of the payment meanwhile.
                payment.approvals.reject(person)
                self.skip(person.name, REJECT)
            if payment.prepare():
                return 0
            self.refuse_another_question(payment.approvals.asked_about(), payment)
            payment.check_policy()
            if refused := payment.approvals.approve(person):
                self.log.warning("%s Nothing was sent; asking again.", refused)
                return self._ask(context, payment, refused)
        self.log.info("%s has approved payment %s.", person.name, payment.ledger_order.reference)
        return payment.approvals.missing()
