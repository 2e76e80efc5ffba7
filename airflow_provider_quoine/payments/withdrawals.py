"""The one place that sends withdrawals."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.exchange.budget.book import Priority
from airflow_provider_quoine.payments.send_once import QuoineMustNotSendError, SendOnce, way_out

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_quoine.exchange.models import Withdrawal
    from airflow_provider_quoine.hooks.quoine import QuoineHook

#: Key of the record in Airflow's task state store.
RECORD_KEY = "quoine_withdrawal"
#: The state of a withdrawal that was checked and not sent.
DRY_RUN = "dry_run"

log = logging.getLogger("airflow.task.hooks.quoine.withdrawals")


@dataclass(frozen=True, kw_only=True)
class WithdrawalOrder:
    """
    What to pay and where to, checked.

    :param amount: bitcoin, positive, at most 8 decimals.
    :param address: bitcoin address that the connection's policy allows.
    """

    amount: Decimal
    address: str


def withdrawal_record(context: Context) -> SendOnce:
    """Return the record of this run's and task's withdrawal."""
    return SendOnce(
        store=context["task_state_store"],
        key=RECORD_KEY,
        try_number=context["ti"].try_number,
        what="withdrawal",
        way_out=way_out(context["ti"], group="withdrawals"),
    )


def check_order(*, hook: QuoineHook, amount: str, address: str) -> WithdrawalOrder:
    """
    Check rendered fields against the connection's policy.

    :raises QuoineInputError: naming what is wrong or which rule it breaks.
    """
    from airflow_provider_quoine.exchange.errors import QuoineInputError
    from airflow_provider_quoine.exchange.models import parse_amount
    from airflow_provider_quoine.payments.policy import WithdrawalPolicy

    if not isinstance(address, str) or not address.strip():
        raise QuoineInputError("There is no address to withdraw to. Fill in the field 'address'.")
    order = WithdrawalOrder(amount=parse_amount(amount), address=address.strip())
    policy = WithdrawalPolicy.of(hook.settings)
    policy.check(amount=order.amount, address=order.address)
    if policy.allows_any_address:
        log.warning("Connection %s allows withdrawals to any address (*).", hook.quoine_conn_id)
    return order


def send_withdrawal(*, hook: QuoineHook, once: SendOnce, amount: str, address: str, auth_code: str) -> Withdrawal:
    """
    Send a withdrawal. Nothing else in this package does.

    :param hook: whose key signs, the user's own (facts, Who signs), and whose connection's policy counts.
    :param once: the record, begun by this try.
    :param amount: bitcoin, as rendered.
    :param address: bitcoin address, as rendered.
    :param auth_code: the code that the exchange sent to the user.
    :return: the withdrawal as the exchange answered it.
    :raises QuoineMustNotSendError: if it may have been carried out and no id is known.
    :raises QuoineError: if it surely was not carried out.
    """
    order = check_order(hook=hook, amount=amount, address=address)
    with hook.get_conn(priority=Priority.URGENT) as client:
        # Before the record, from which on there are only seconds.
        client.take_slot()
        return once.send(
            lambda in_time: client.create_withdrawal(
                amount=order.amount, address=order.address, auth_code=auth_code, before_send=in_time
            ),
            identify=lambda withdrawal: withdrawal.id,
            in_flight_seconds=hook.settings.in_flight_seconds,
        )


def look_up_sent(*, hook: QuoineHook, record: dict[str, Any]) -> Withdrawal:
    """
    Look up the withdrawal that the record names, and see that it is the one that was meant.

    :param record: in step ``sent``, written by an earlier try or by a person.
    :raises QuoineMustNotSendError: if the exchange's withdrawal has another amount or address.
    :raises QuoineError: if the exchange does not tell.
    """
    with hook.get_conn(priority=Priority.URGENT) as client:
        withdrawal = client.get_withdrawal(withdrawal_id=str(record["id"]))
    if withdrawal.amount != Decimal(record["amount"]) or _payee(withdrawal.address) != _payee(record["address"]):
        raise QuoineMustNotSendError(
            f"The record names withdrawal {withdrawal.id}, but at the exchange that one is {withdrawal.amount} BTC to "
            f"{withdrawal.address}, and this task's is {record['amount']} BTC to {record['address']}. Correct the id "
            "in the record."
        )
    log.info("This task's withdrawal is %s, sent before.", withdrawal.id)
    return withdrawal


def _payee(address: str) -> bytes | str:
    """Return what an address pays to: the exchange may write the same one in another case."""
    from airflow_provider_quoine.exchange.addresses import decode_address
    from airflow_provider_quoine.exchange.errors import QuoineInputError

    try:
        return decode_address(address).script
    except QuoineInputError:
        return address


def rehearse_withdrawal(*, hook: QuoineHook, amount: str, address: str) -> dict[str, Any]:
    """
    Do everything but send.

    :return: as :meth:`Withdrawal.as_dict`, with no id and the state :data:`DRY_RUN`.
    :raises QuoineInputError: as sending would.
    """
    from airflow_provider_quoine.exchange.models import format_amount

    order = check_order(hook=hook, amount=amount, address=address)
    # Whether there is a key to sign with shows here.
    hook.get_conn().close()
    return {"id": None, "amount": format_amount(order.amount), "address": order.address, "state": DRY_RUN}
