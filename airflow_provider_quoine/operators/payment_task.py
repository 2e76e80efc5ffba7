"""The base of the operators that are about one payment."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.api.datamodels._generated import DagRunType

from airflow_provider_quoine.failures import check_all
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.operators.task_state import name_payment
from airflow_provider_quoine.payments.refusals import check_reference
from airflow_provider_quoine.payments.withdrawals import WithdrawalPayment, task_name

if TYPE_CHECKING:
    from airflow.sdk import Context


NOBODY = "Anonymous"
"""Airflow's name of everybody who has not logged in, where that is not needed."""


class PaymentTask(BaseOperator):
    """
    A task about one payment.

    :param payment_reference: what makes this payment the only one of its kind at the exchange, such as an invoice's
        number. Whatever run, task or DAG has the same reference finds this payment. It must name nobody.
    :param amount: bitcoin as a string such as ``"0.5"``; at most 8 decimals.
    :param address: bitcoin address that the connection's policy allows.
    :param credentials_variable: Variable with the user's own key, as the onboarding sensor writes it; leave it
        out if the connection itself holds that key.
    :param quoine_conn_id: connection; its policy holds the allowed addresses, the bounds and the approvals.
    """

    template_fields: Sequence[str] = (
        "quoine_conn_id",
        "payment_reference",
        "amount",
        "address",
        "credentials_variable",
    )

    def __init__(
        self,
        *,
        payment_reference: str,
        amount: str,
        address: str,
        credentials_variable: str | None = None,
        quoine_conn_id: str = "quoine_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.payment_reference = payment_reference
        self.amount = amount
        self.address = address
        self.credentials_variable = credentials_variable
        self.quoine_conn_id = quoine_conn_id

    def payment(self, context: Context, *, user_id: str = "", dry_run: bool = False) -> WithdrawalPayment:
        """
        Make the payment from the rendered fields; nothing is begun yet.

        :param user_id: whose money it is; empty where the operator does not know it.
        :param dry_run: begin nothing in the ledger, and send nothing.
        """
        from airflow_provider_quoine.exchange.errors import QuoineInputError

        try:
            payment = WithdrawalPayment(
                hook=QuoineHook(self.quoine_conn_id, credentials_variable=self.credentials_variable),
                reference=self.payment_reference,
                user_id=user_id,
                amount=self.amount,
                address=self.address,
                task=task_name(context),
                started_by=_starter_of(context),
                dry_run=dry_run,
            )
        except QuoineInputError as error:
            # A person learns of all that is wrong at once.
            check_all((partial(_again, error), partial(check_reference, self.payment_reference)))
            raise
        name_payment(context, payment.ledger_order)
        return payment


def _again(error: Exception) -> None:
    raise error


def _starter_of(context: Context) -> str | None:
    """Return who started the run; empty for a schedule or an event, None if Airflow does not say."""
    run: Any = context["dag_run"]
    # A backfill that starts a run of the schedule again leaves its starter as it was.
    if run.run_type == DagRunType.BACKFILL and not run.run_id.startswith(f"{DagRunType.BACKFILL}__"):
        return None
    name = str(getattr(run, "triggering_user_name", None) or "")
    return None if name == NOBODY else name
