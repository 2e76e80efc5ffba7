"""The operators under test, with a new authentication code for each try, and interruptions of their worker."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Variable
from airflow.sdk.log import mask_secret

from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.operators.authorization import QuoineAuthorizeWithdrawalOperator
from airflow_provider_quoine.operators.withdrawals import QuoineCreateWithdrawalOperator
from airflow_provider_quoine.payments import attempt, ledger
from tests.system.money.interruptions import SEND_WITHIN, interrupt_first_try

if TYPE_CHECKING:
    from airflow.sdk import Context

# In the processes that run these operators, and in no other.
attempt.SEND_WITHIN = SEND_WITHIN  # type: ignore[attr-defined]  # its name for the one of the ledger
# In these tests a task tells before its doubt ends, or is dead.
ledger.TELLS_WITHIN = timedelta(0)


def put_code(context: Context) -> None:
    """
    Put a code into its Variable before each try, as a person would.

    Before Airflow's own retry, no person is involved. A new code is provided nevertheless, so that a faulty operator
    would succeed in sending twice. If the exchange has not seen the first code, that code is kept.
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
    """Withdraws, and is interrupted."""

    def execute(self, context: Context) -> Any:
        """Send at most once."""
        put_code(context)
        return super().execute(interrupt_first_try(context))


class Authorize(QuoineAuthorizeWithdrawalOperator):
    """Asks for a code, withdraws, and is interrupted."""

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Take the code and send."""
        return super().execute_complete(interrupt_first_try(context), event)
