"""Operators that ask for an authentication code and create bitcoin withdrawals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Variable
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_quoine.hooks.quoine import QuoineHook, read_secret_variable
from airflow_provider_quoine.hooks.withdrawals import (
    WithdrawalOrder,
    send_withdrawal,
    sent_before,
    withdrawal_record,
)
from airflow_provider_quoine.operators.failures import without_retry

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg


class QuoineRequestAuthCodeOperator(BaseOperator):
    """
    Have the exchange send the user an authentication code by e-mail or SMS (api-reference 2.1).

    The code itself never passes through here. A request whose answer is lost is not repeated, since the user
    may have a code already.

    :param user_id: the exchange's id of the user.
    :param credentials_variable: Variable with the user's own key, as the onboarding sensor writes it; leave it
        out if the connection itself holds that key.
    :param quoine_conn_id: connection.
    :return: ``{"sent": bool, "message": str}``; ``sent`` is false where the user has an authenticator app.
    """

    template_fields: Sequence[str] = ("quoine_conn_id", "user_id", "credentials_variable")
    ui_color = "#fef3c7"

    def __init__(
        self,
        *,
        user_id: str | XComArg,
        credentials_variable: str | None = None,
        quoine_conn_id: str = "quoine_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.user_id = user_id
        self.credentials_variable = credentials_variable
        self.quoine_conn_id = quoine_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Ask once."""
        from airflow_provider_quoine.exchange.errors import QuoineError

        hook = QuoineHook(self.quoine_conn_id, credentials_variable=self.credentials_variable)
        with without_retry(), hook.get_conn() as client:
            try:
                asked = client.request_auth_code(user_id=str(self.user_id))
            except QuoineError as error:
                if error.may_have_been_carried_out:
                    raise AirflowFailException(
                        f"{error} A code may have been sent: look for it before you clear this task."
                    ) from None
                raise
        self.log.info("The exchange says: %s", asked.message or ("sent" if asked.sent else "not sent"))
        return {"sent": asked.sent, "message": asked.message}


class QuoineCreateWithdrawalOperator(BaseOperator):
    """
    Create a bitcoin withdrawal with a code that is there already (api-reference 2.1).

    To have a person type the code in the middle of a DAG, use
    :class:`~airflow_provider_quoine.operators.authorization.QuoineAuthorizeWithdrawalOperator`, which keeps the
    code out of Airflow's tables.

    :param amount: bitcoin as a string such as ``"0.5"``; at most 8 decimals.
    :param address: bitcoin address.
    :param auth_code_variable: Variable that holds the authentication code; it is deleted once it was sent,
        because a code is good for one request.
    :param credentials_variable: Variable with the user's own key, as the onboarding sensor writes it; leave it
        out if the connection itself holds that key.
    :param quoine_conn_id: connection.
    :return: id, amount (str), address and state.
    """

    template_fields: Sequence[str] = (
        "quoine_conn_id",
        "amount",
        "address",
        "auth_code_variable",
        "credentials_variable",
    )
    ui_color = "#fde68a"

    def __init__(
        self,
        *,
        amount: str,
        address: str,
        auth_code_variable: str,
        credentials_variable: str | None = None,
        quoine_conn_id: str = "quoine_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.amount = amount
        self.address = address
        self.auth_code_variable = auth_code_variable
        self.credentials_variable = credentials_variable
        self.quoine_conn_id = quoine_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Send at most once per run and task."""
        hook = QuoineHook(self.quoine_conn_id, credentials_variable=self.credentials_variable)
        once = withdrawal_record(context)
        record = once.begin({"amount": str(self.amount), "address": str(self.address)})
        with without_retry():
            if sent := sent_before(record):
                self.log.info("An earlier try of this task sent withdrawal %s.", sent)
                with hook.get_conn() as client:
                    return client.get_withdrawal(withdrawal_id=sent).as_dict()
            order = WithdrawalOrder.from_fields(amount=self.amount, address=self.address)
            code = read_secret_variable(self.auth_code_variable)
            withdrawal = send_withdrawal(hook=hook, once=once, order=order, auth_code=code)
        Variable.delete(self.auth_code_variable)
        self.log.info("The exchange took withdrawal %s.", withdrawal.id)
        return withdrawal.as_dict()
