"""Sends withdrawals: nothing else in this package does."""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_quoine.exchange.budget.rules import Priority
from airflow_provider_quoine.hooks.connection import DEFAULT_PORTS
from airflow_provider_quoine.hooks.quoine import QuoineHook

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_quoine.exchange.models import Withdrawal, WithdrawalOrder
    from airflow_provider_quoine.payments.policy import WithdrawalPolicy
    from airflow_provider_quoine.payments.records import Order
    from airflow_provider_quoine.payments.transaction import Transaction

#: The state of a withdrawal that was checked and not sent.
DRY_RUN = "dry_run"
NOT_SENT = "nothing was sent"
MAYBE_TWICE = "it may be paid twice"
UNKNOWN = "unknown: the exchange may have carried it out"

log = logging.getLogger(f"airflow.task.{__name__}")


class WithdrawalPayment:
    """
    One try of a task at a withdrawal.

    :param hook: its key signs, the user's own (decisions, Who signs), and its connection holds the policy.
    :param reference: the payment reference, as rendered.
    :param user_id: whose money it is; empty where the operator does not know it.
    :param amount: bitcoin, as rendered.
    :param address: bitcoin address, as rendered.
    :param task: where in Airflow this is, for a person.
    :param started_by: who started the run, in Airflow's words; empty for a schedule or an event; None if Airflow does
        not say.
    :param dry_run: begin nothing in the ledger, and send nothing.
    :raises QuoineInputError: if amount, address or connection is wrong.
    :raises PaymentRefusedError: if the reference is none.
    :raises LedgerUnusableError: if there is no ledger that this host may use.
    :ivar order: amount and address.
    :ivar approvals: of people who allow it.
    """

    def __init__(
        self,
        *,
        hook: QuoineHook,
        reference: str,
        user_id: str,
        amount: str | Decimal,
        address: str,
        task: str,
        started_by: str | None = "",
        dry_run: bool = False,
    ) -> None:
        from airflow_provider_quoine.exchange.models import WithdrawalOrder
        from airflow_provider_quoine.payments.approvals import Approvals
        from airflow_provider_quoine.payments.attempt import Attempt
        from airflow_provider_quoine.payments.configuration import open_ledger

        self.hook = hook
        self.order = WithdrawalOrder.parse(amount=amount, address=address)
        self.ledger_order = ledger_order(hook=hook, reference=reference, user_id=user_id, order=self.order)
        self._ledger = open_ledger()
        self._attempt = Attempt(ledger=self._ledger, order=self.ledger_order, task=task)
        self._is_dry_run = dry_run
        self._task = task
        self.approvals = Approvals(
            ledger=self._ledger,
            order=self.ledger_order,
            connection=hook.quoine_conn_id,
            policy=self._policy_now,
            started_by=started_by,
            task=task,
        )

    @property
    def has_sent(self) -> bool:
        """Whether the exchange may have seen the request, and with it the authentication code."""
        return self._attempt.has_sent

    def begin(self) -> Withdrawal | None:
        """
        Find or begin the payment, before anything else can fail.

        :return: the withdrawal, if it was sent before; it is looked up at the exchange.
        :raises PaymentRefusedError: if it must not be sent.
        :raises QuoineError: if the exchange does not answer.
        """
        sent = self.prepare()
        return self._look_up(sent) if sent else None

    def prepare(self) -> str:
        """
        Do as :meth:`begin`, without the exchange.

        :return: the withdrawal's id, if it was sent before; else empty.
        :raises PaymentRefusedError: if it must not be sent.
        """
        from airflow_provider_quoine.payments.schema import Step

        if self._is_dry_run:
            found = self._ledger.look(self.ledger_order)
        else:
            try:
                found = self._attempt.begin()
            finally:
                # Whoever has asked for it has done so, also where it is refused.
                self.approvals.note_run()
        return str(found.exchange_id) if found is not None and found.step == Step.SENT else ""

    def note(self, event: str, **data: Any) -> None:
        """Append an event that changes nothing, such as a question to a person; a dry run leaves no trace."""
        if not self._is_dry_run:
            self._attempt.note(event, **data)

    def ask(self, about: str) -> None:
        """
        Write down what a person is asked about, before the code is typed.

        :param about: the question's lines about the payment.
        """
        from airflow_provider_quoine.payments.schema import Note

        self.note(Note.ASKED, about=about)

    def asked_about(self) -> str:
        """Return what this try of the task has asked a person about last; empty if it has not."""
        from airflow_provider_quoine.payments.schema import Note

        return str(self._attempt.last_note(Note.ASKED).get("about", ""))

    def outcome(self) -> str:
        """Say in a few words what has become of the payment, for the person who was asked."""
        from airflow_provider_quoine.payments.schema import IN_DOUBT, Step

        found = self._ledger.find(self.ledger_order)
        if found is None or found.step not in IN_DOUBT | {Step.SENT}:
            return NOT_SENT
        if found.step != Step.SENT:
            return UNKNOWN
        if late := self._ledger.history(self.ledger_order).another_id(found.exchange_id):
            return f"{MAYBE_TWICE}: as withdrawal {late}, and as {found.exchange_id}, which a person has recorded"
        return f"sent as withdrawal {found.exchange_id}"

    def check_policy(self) -> None:
        """
        Check the order against the connection's policy, as it is now.

        :raises QuoineInputError: naming the rule that it breaks.
        """
        policy = _policy_of(self.hook)
        policy.check(self.order)
        if policy.allows_any_address:
            log.warning("Connection %s allows withdrawals to any address (*).", self.hook.quoine_conn_id)

    def send(self, auth_code: str, *, fence: Callable[[], None]) -> Withdrawal:
        """
        Send the withdrawal.

        :param auth_code: the code that the exchange sent to the user.
        :param fence: raises if Airflow has given the task to another try meanwhile.
        :return: the withdrawal as the exchange answered it; amount and address are the order's.
        :raises PaymentRefusedError: if it must not be sent.
        :raises PaymentInDoubtError: if it may have been carried out and no id is known.
        :raises QuoineError: if it surely was not carried out.
        """

        def allow(at: Transaction) -> str:
            fence()
            return self._allow(at)

        with self.hook.get_conn(priority=Priority.URGENT) as client:
            # Before the ledger, because an attempt must send within seconds of writing "sending".
            slot = client.take_slot()
            return self._attempt.send(
                lambda in_time: client.create_withdrawal(
                    order=self.order, auth_code=auth_code, slot=slot, before_send=in_time
                ),
                identify=lambda withdrawal: withdrawal.id,
                state=lambda withdrawal: withdrawal.state,
                in_flight=timedelta(seconds=client.in_flight_seconds()),
                allow=allow,
            )

    def dry_run(self) -> dict[str, Any]:
        """
        Do everything but send.

        :return: as :meth:`Withdrawal.as_dict`, with no id and the state :data:`DRY_RUN`.
        :raises QuoineInputError: as sending would.
        """
        self.check_policy()
        self.approvals.check()
        # Opening a client fails if there is no key to sign with.
        self.hook.get_conn().close()
        return {"id": None, **self.order.as_dict(), "state": DRY_RUN}

    def _policy_now(self) -> WithdrawalPolicy:
        return _policy_of(fresh(self.hook, self.ledger_order))

    def _allow(self, at: Transaction) -> str:
        policy = self._policy_now()
        self.approvals.check_in(at, policy)
        return policy.allow(self.order, at)

    def _look_up(self, withdrawal_id: str) -> Withdrawal:
        from airflow_provider_quoine.payments.refusals import PaymentRefusedError

        withdrawal = look_up(self.hook, withdrawal_id)
        if difference := differs(withdrawal, self.order):
            raise PaymentRefusedError(
                f"The ledger names withdrawal {withdrawal.id}, but {difference}. Nothing was sent by this attempt. "
                f"Correct the id: airflow quoine payments exists {shlex.quote(self.ledger_order.reference)} --id ID "
                "--why WHY"
            )
        if not self._is_dry_run:
            self._ledger.confirm(self.ledger_order, exchange_id=withdrawal_id, task=self._task)
        log.info("The withdrawal of payment %s is %s, sent before.", self.ledger_order.reference, withdrawal.id)
        return withdrawal


def task_name(context: Context) -> str:
    """Return where in Airflow a task is, for a person."""
    ti = context["ti"]
    index = f"[{ti.map_index}]" if ti.map_index is not None and ti.map_index >= 0 else ""
    return f"{ti.dag_id} / {ti.run_id} / {ti.task_id}{index}, try {ti.try_number}"


def see(*, hook: QuoineHook, reference: str, withdrawal: dict[str, str], task: str) -> None:
    """
    Write into the ledger which end a waiting task has seen, so that reconciliation can tell a step back from it.

    A ledger that cannot be used does not keep the task from its end.

    :param hook: by which it was seen.
    :param reference: of the payment, as the ledger has it.
    :param withdrawal: with id and state.
    :param task: where in Airflow this is, for a person.
    """
    from airflow_provider_quoine.payments.configuration import open_ledger
    from airflow_provider_quoine.payments.records import Order
    from airflow_provider_quoine.payments.schema import Kind

    id_, state = withdrawal["id"], withdrawal["state"]
    try:
        order = Order(exchange=exchange_of(hook), kind=Kind.WITHDRAWAL, reference=reference, account=hook.account)
        open_ledger().see(order, exchange_id=id_, state=state, actor=task)
    except Exception as error:  # noqa: BLE001 - whatever it is, the withdrawal has ended
        log.warning("That withdrawal %s is %s could not be written into the ledger: %s", id_, state, error)


def ledger_order(*, hook: QuoineHook, reference: str, user_id: str, order: WithdrawalOrder) -> Order:
    """
    Return what a payment reference stands for.

    :param hook: of the key that signs.
    :param reference: as rendered.
    :param user_id: whose money it is; empty where that is not known.
    :param order: amount and address.
    :raises PaymentRefusedError: if the reference is none.
    :raises QuoineInputError: if the connection is incomplete.
    """
    from airflow_provider_quoine.payments.records import Order
    from airflow_provider_quoine.payments.refusals import check_reference
    from airflow_provider_quoine.payments.schema import Kind

    return Order(
        exchange=exchange_of(hook),
        kind=Kind.WITHDRAWAL,
        reference=check_reference(reference),
        account=hook.account,
        user_id=user_id,
        address=order.address.canonical,
        amount=order.amount,
        conn_id=hook.quoine_conn_id,
        credentials_variable=hook.credentials_variable or "",
    )


def fresh(hook: QuoineHook, order: Order) -> QuoineHook:
    """
    Return a hook that reads the connection anew: a hook keeps it, and the wait for a slot may take an hour.

    :raises PaymentRefusedError: if the connection does not lead any more to where the order is for.
    """
    from airflow_provider_quoine.payments.refusals import PaymentRefusedError

    now = QuoineHook(hook.quoine_conn_id, credentials_variable=hook.credentials_variable)
    if (exchange_of(now), now.account) != (order.exchange, order.account):
        raise PaymentRefusedError(
            f"Connection {now.quoine_conn_id!r} or its key has changed while this task was waiting: it now leads to "
            f"account {now.account} at {exchange_of(now)}. Nothing was sent. Start again with the connection of the "
            "payment."
        )
    return now


def exchange_of(hook: QuoineHook) -> str:
    """Return the exchange that a hook speaks to, written in one way only: references are unique there."""
    parts = urlsplit(hook.settings.base_url)
    host = (parts.hostname or "").removesuffix(".")
    port = "" if parts.port in (None, DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path}"


def look_up(hook: QuoineHook, withdrawal_id: str, *, patience: float = math.inf) -> Withdrawal:
    """
    Look up a withdrawal.

    :param patience: seconds to wait for a slot of the request budget at most.
    :raises QuoineError: if the exchange does not answer, or does not know it.
    """
    with hook.get_conn(priority=Priority.URGENT, patience=patience) as client:
        return client.get_withdrawal(withdrawal_id=withdrawal_id)


def differs(withdrawal: Withdrawal, order: WithdrawalOrder) -> str:
    """
    Compare a withdrawal of the exchange's with an order.

    :return: the difference in words, empty if they are the same.
    """
    if order.is_paid_by(withdrawal):
        return ""
    return f"at the exchange it is {withdrawal.amount:f} BTC to {withdrawal.address}, while the order is {order}"


def _policy_of(hook: QuoineHook) -> WithdrawalPolicy:
    from airflow_provider_quoine.payments.policy import WithdrawalPolicy

    return WithdrawalPolicy.of(hook.settings, account=hook.account)
