"""The operators under test, with a person who puts codes in front of their tries, and what strikes their worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Variable
from airflow.sdk.log import mask_secret

from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.operators.authorization import QuoineAuthorizeWithdrawalOperator
from airflow_provider_quoine.operators.withdrawals import QuoineCreateWithdrawalOperator
from tests.system.money.strikes import arm

if TYPE_CHECKING:
    from airflow.sdk import Context


def put_code(context: Context) -> None:
    """
    Put a code into its Variable, as the person does in front of each try.

    Before Airflow's own retry there is no person. A new code is put there all the same: it gives a product that
    would send twice every chance. Where the exchange has not looked at the first code, that one has to last.
    """
    from airflow_provider_quoine.sandbox.control import SandboxControl

    params, try_number = context["params"], context["ti"].try_number
    if params["code_lasts"] and try_number == 2:
        return
    user_id, hook = params["user_id"], QuoineHook("money", credentials_variable=f"money_key_{params['user_id']}")
    with hook.get_conn() as client:
        client.request_auth_code(user_id=user_id)
    code = SandboxControl(hook.settings.base_url).latest_code(user_id)
    mask_secret(code)
    wrong = params["wrong_code"] and try_number == 1
    Variable.set(f"money_code_{user_id}", "000000000000" if wrong else code)


class Withdraw(QuoineCreateWithdrawalOperator):
    """Withdraws, and is struck."""

    def execute(self, context: Context) -> Any:
        """Send at most once."""
        put_code(context)
        return super().execute(arm(context))


class Authorize(QuoineAuthorizeWithdrawalOperator):
    """Asks for a code, withdraws, and is struck."""

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Take the code and send."""
        return super().execute_complete(arm(context), event)
