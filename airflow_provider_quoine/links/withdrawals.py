"""The link from a task to its withdrawal's page at the exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk.bases.operatorlink import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey

    from airflow_provider_quoine.hooks.quoine import QuoineHook


class QuoineWithdrawalLink(BaseOperatorLink):
    """
    The withdrawal's page at the exchange. The connection's field "Withdrawal page" holds its address.

    The link is there as soon as the exchange has accepted the withdrawal, while the task still waits.
    """

    name = "Withdrawal at the exchange"
    xcom_key = "quoine_withdrawal_link"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address that :func:`show_link` stored, or an empty one."""
        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""


def show_link(*, context: Context, hook: QuoineHook, withdrawal_id: str) -> None:
    """Store the link now. Airflow itself would do so only at the task's end."""
    page = hook.settings.extras.withdrawal_link
    if page:
        context["ti"].xcom_push(key=QuoineWithdrawalLink.xcom_key, value=page.replace("{id}", withdrawal_id))
