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
    The withdrawal's page, as the connection's field "Withdrawal page" gives its address.

    It is there as soon as the exchange has taken the withdrawal, while the task still waits.
    """

    name = "Withdrawal at the exchange"
    xcom_key = "quoine_withdrawal_link"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address that :func:`show_link` left, or an empty one."""
        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""


def show_link(*, context: Context, hook: QuoineHook, withdrawal_id: str) -> None:
    """Put the link on the task now: Airflow itself would only at the task's end."""
    page = hook.settings.extras.withdrawal_link
    if page:
        context["ti"].xcom_push(key=QuoineWithdrawalLink.xcom_key, value=page.replace("{id}", withdrawal_id))
