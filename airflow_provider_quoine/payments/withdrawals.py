"""Sends withdrawals: nothing else in this package does."""

from __future__ import annotations

import logging
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.exchange.budget.rules import Priority
from airflow_provider_quoine.payments.records import WITHDRAWAL, Entry
from airflow_provider_quoine.payments.send_once import QuoineMustNotSendError, SendOnce

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_quoine.exchange.models import Withdrawal, WithdrawalOrder
    from airflow_provider_quoine.hooks.quoine import QuoineHook

#: The state of a withdrawal that was checked and not sent.
DRY_RUN = "dry_run"

log = logging.getLogger("airflow.task.hooks.quoine.withdrawals")


def open_record(context: Context, *, amount: str | Decimal, address: str) -> tuple[SendOnce, Entry, WithdrawalOrder]:
    """
    Open the record of this run's and task's withdrawal, before anything else can fail.

    :param amount: bitcoin, as rendered.
    :param address: bitcoin address, as rendered.
    :return: the record, its entry, and the order that the entry describes.
    :raises QuoineMustNotSendError: if an earlier try may have sent a withdrawal.
    :raises QuoineInputError: if amount or address is wrong.
    """
    from airflow_provider_quoine.exchange.errors import QuoineInputError
    from airflow_provider_quoine.exchange.models import WithdrawalOrder

    once = SendOnce.for_task(context, WITHDRAWAL)
    try:
        order = WithdrawalOrder.parse(amount=amount, address=address)
    except QuoineInputError:
        # Without a record, a later try with corrected fields could not know that this one has sent nothing.
        once.begin({})
        raise
    return once, once.begin(order.as_dict()), order


def check_policy(*, hook: QuoineHook, order: WithdrawalOrder) -> None:
    """
    Check an order against the connection's policy, as it is now.

    :raises QuoineInputError: naming the rule that it breaks.
    """
    from airflow_provider_quoine.payments.policy import WithdrawalPolicy

    policy = WithdrawalPolicy.of(hook.settings)
    policy.check(order)
    if policy.allows_any_address:
        log.warning("Connection %s allows withdrawals to any address (*).", hook.quoine_conn_id)


def send_withdrawal(*, hook: QuoineHook, once: SendOnce, order: WithdrawalOrder, auth_code: str) -> Withdrawal:
    """
    Check the policy and send a withdrawal.

    :param hook: its key signs, the user's own (decisions, Who signs), and its connection holds the policy.
    :param once: the record, begun by this try.
    :param order: amount and address.
    :param auth_code: the code that the exchange sent to the user.
    :return: the withdrawal as the exchange answered it.
    :raises QuoineMustNotSendError: if it may have been carried out and no id is known.
    :raises QuoineError: if it surely was not carried out.
    """
    check_policy(hook=hook, order=order)
    with hook.get_conn(priority=Priority.URGENT) as client:
        # Before the record, because a try must send within seconds of writing "sending".
        slot = client.take_slot()
        return once.send(
            lambda in_time: client.create_withdrawal(order=order, auth_code=auth_code, slot=slot, before_send=in_time),
            identify=lambda withdrawal: withdrawal.id,
            in_flight_seconds=client.in_flight_seconds(),
        )


def dry_run_withdrawal(*, hook: QuoineHook, order: WithdrawalOrder) -> dict[str, Any]:
    """
    Do everything but send.

    :return: as :meth:`Withdrawal.as_dict`, with no id and the state :data:`DRY_RUN`.
    :raises QuoineInputError: as sending would.
    """
    check_policy(hook=hook, order=order)
    # Opening a client fails if there is no key to sign with.
    hook.get_conn().close()
    return {"id": None, **order.as_dict(), "state": DRY_RUN}


def get_sent_withdrawal(*, hook: QuoineHook, withdrawal_id: str, order: WithdrawalOrder) -> Withdrawal:
    """
    Look up a withdrawal that the record calls sent, and check that it is the one of the order.

    :param withdrawal_id: the exchange's id, recorded by an earlier try or by a person.
    :raises QuoineMustNotSendError: if the exchange's withdrawal has another amount or address.
    :raises QuoineError: if the exchange does not answer.
    """
    with hook.get_conn(priority=Priority.URGENT) as client:
        withdrawal = client.get_withdrawal(withdrawal_id=withdrawal_id)
    if not order.is_paid_by(withdrawal):
        raise QuoineMustNotSendError(
            f"The record names withdrawal {withdrawal.id}, but at the exchange that one is {withdrawal.amount} BTC to "
            f"{withdrawal.address}, and this task's is {order}. Nothing was sent by this try. Correct the id in the "
            "record."
        )
    log.info("This task's withdrawal is %s, sent before.", withdrawal.id)
    return withdrawal
