"""Operators that ask for an authentication code and create bitcoin withdrawals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Variable

from airflow_provider_quoine.exchange.budget.rules import Priority
from airflow_provider_quoine.failures import stop, without_retry
from airflow_provider_quoine.hooks.quoine import QuoineHook, read_secret_variable
from airflow_provider_quoine.operators.withdrawal_task import WithdrawalTask

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg


class QuoineRequestAuthCodeOperator(BaseOperator):
    """
    Have the exchange send the user an authentication code by e-mail or SMS (api-reference 2.1).

    The task never sees the code. A request whose answer is lost is not repeated, because the user may have a code
    already.

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
        with without_retry(), hook.get_conn(priority=Priority.URGENT) as client:
            try:
                asked = client.request_auth_code(user_id=str(self.user_id))
            except QuoineError as error:
                if error.may_have_been_carried_out:
                    raise stop(
                        "The exchange's answer to the request for a code was lost.",
                        done="A code may have been sent to the user.",
                        next="Look for the code before you clear this task.",
                        details=f"{error} A code may have been sent: look for it before you clear this task.",
                    ) from None
                raise
        self.log.info("The exchange says: %s", asked.message or ("sent" if asked.sent else "not sent"))
        return {"sent": asked.sent, "message": asked.message}


class QuoineCreateWithdrawalOperator(WithdrawalTask):
    """
    Create a bitcoin withdrawal with an authentication code from a Variable (api-reference 2.1).

    To have a person type the code in the middle of a DAG, use
    :class:`~airflow_provider_quoine.operators.authorization.QuoineAuthorizeWithdrawalOperator`. The other
    parameters are those of :class:`~airflow_provider_quoine.operators.withdrawal_task.WithdrawalTask`.

    :param auth_code_variable: Variable that holds the authentication code. It is deleted once the code was sent,
        because a code is good for one request. It is kept if the exchange surely did not check the code (no
        connection, request limit), so that a retry finds it.
    :return: id, amount (str), address and state.
    """

    template_fields: Sequence[str] = (*WithdrawalTask.template_fields, "auth_code_variable")

    def __init__(self, *, auth_code_variable: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.auth_code_variable = auth_code_variable

    def execute(self, context: Context) -> Any:
        """Send at most once."""
        with without_retry():
            payment = self.payment(context, dry_run=self.is_dry_run)
            if sent := self.begin(context, payment):
                return self.go_on(context, payment, sent)
            payment.check_policy()
            payment.approvals.check()
            try:
                return self.send(context, payment, read_secret_variable(self.auth_code_variable))
            finally:
                if payment.has_sent:
                    Variable.delete(self.auth_code_variable)
