"""The one place that sends withdrawals."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.hooks.send_once import SendOnce, Step

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_quoine.exchange.models import Withdrawal
    from airflow_provider_quoine.hooks.quoine import QuoineHook

#: Key of the record in Airflow's task state store.
RECORD_KEY = "quoine_withdrawal"


@dataclass(frozen=True, kw_only=True)
class WithdrawalOrder:
    """
    What to pay and where to.

    :param amount: bitcoin, positive, at most 8 decimals.
    :param address: bitcoin address.
    """

    amount: Decimal
    address: str

    @classmethod
    def from_fields(cls, *, amount: str, address: str) -> WithdrawalOrder:
        """
        Read and check an operator's rendered fields.

        :raises QuoineInputError: if the amount is no exact positive amount, or there is no address.
        """
        from airflow_provider_quoine.exchange.errors import QuoineInputError
        from airflow_provider_quoine.exchange.models import parse_amount

        if not isinstance(address, str) or not address.strip():
            raise QuoineInputError("There is no address to withdraw to. Fill in the field 'address'.")
        return cls(amount=parse_amount(amount), address=address.strip())


def withdrawal_record(context: Context) -> SendOnce:
    """Return the record of this run's and task's withdrawal."""
    return SendOnce(
        store=context["task_state_store"],
        key=RECORD_KEY,
        try_number=context["ti"].try_number,
        what="withdrawal",
        way_out="Look at the exchange whether the withdrawal exists before anything is sent again.",
    )


def send_withdrawal(*, hook: QuoineHook, once: SendOnce, order: WithdrawalOrder, auth_code: str) -> Withdrawal:
    """
    Send a withdrawal. Nothing else in this package does.

    :param hook: whose key signs: the user's own (facts, Who signs).
    :param once: the record, begun by this try.
    :param order: what to pay and where to.
    :param auth_code: the code that the exchange sent to the user.
    :return: the withdrawal as the exchange answered it.
    :raises QuoineMustNotSendError: if it may have been carried out and no id is known.
    :raises QuoineError: if it surely was not carried out.
    """
    with hook.get_conn() as client:
        return once.send(
            lambda in_time: client.create_withdrawal(
                amount=order.amount, address=order.address, auth_code=auth_code, before_send=in_time
            ),
            identify=lambda withdrawal: withdrawal.id,
        )


def sent_before(record: dict[str, Any]) -> str | None:
    """Return the id of the withdrawal that an earlier try sent, if one did."""
    return str(record["id"]) if record["step"] == Step.SENT else None
