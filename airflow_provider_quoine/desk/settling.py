"""
What a person decides about a payment, with the checks and the words that commands and pages share.

Each decision is one change in the ledger, which names the person and the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from airflow_provider_quoine.exchange.errors import QuoineError, QuoineInputError, QuoineNotFoundError
from airflow_provider_quoine.exchange.models import WithdrawalOrder
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.records import Order, Payment
from airflow_provider_quoine.payments.refusals import PaymentRefusedError
from airflow_provider_quoine.payments.schema import Kind
from airflow_provider_quoine.payments.users import user_reference
from airflow_provider_quoine.payments.withdrawals import differs, exchange_of, ledger_order, look_up

WRITTEN = "Written. Clear the task and it goes on from there."
PATIENCE = 20.0
"""Seconds that a comparison waits for a slot of the request budget: a person waits, and the task compares again."""
SAME = "Amount and address are the same at the exchange."
NOT_COMPARED = "It was not compared with the exchange."


@dataclass(frozen=True, kw_only=True)
class Which:
    """
    Which payment a person means.

    :param reference: the payment reference; for a new user the e-mail address or its hash.
    :param kind: withdrawal or user.
    :param exchange: its base URL; empty if the reference is used at one exchange only.
    """

    reference: str
    kind: Kind = Kind.WITHDRAWAL
    exchange: str = ""

    def find(self, ledger: Ledger) -> Payment:
        """
        Find the payment.

        :raises PaymentRefusedError: if there is none, or there are several.
        """
        found = self.begun(ledger)
        if not found:
            raise PaymentRefusedError(
                f"There is no payment {self.reference!r} of kind {self.kind} in the ledger. Nothing was changed. See: "
                "airflow quoine payments list --all"
            )
        if len(found) > 1:
            exchanges = ", ".join(payment.order.exchange for payment in found)
            raise PaymentRefusedError(f"Several exchanges have it: {exchanges}. Nothing was changed. Name one of them.")
        return found[0]

    def begun(self, ledger: Ledger) -> list[Payment]:
        """Return the payments that a task or a person has begun, one per exchange."""
        reference = self.reference.strip()
        if self.kind == Kind.USER and "@" in reference:
            reference = user_reference(ledger, reference)
        return [each for each in ledger.named(reference, self.kind) if self.exchange in ("", each.order.exchange)]


@dataclass(frozen=True, kw_only=True)
class Key:
    """
    By which key a payment is looked up at the exchange, or will be sent.

    :param conn_id: connection of the exchange; empty for none.
    :param credentials_variable: Variable that holds the user's own key; empty for the connection's own.
    """

    conn_id: str = ""
    credentials_variable: str = ""

    @property
    def hook(self) -> QuoineHook:
        """
        The hook that signs with it.

        :raises QuoineInputError: if the connection is of another type: a payment would be held where no task sends it.
        """
        hook = QuoineHook(self.conn_id, credentials_variable=self.credentials_variable or None)
        found = hook.get_connection(self.conn_id).conn_type
        if found != hook.conn_type:
            raise QuoineInputError(f"The connection {self.conn_id!r} is of type {found}, not {hook.conn_type}.")
        return hook


@dataclass(frozen=True, kw_only=True)
class New:
    """
    A withdrawal that no task has begun yet.

    :param amount: bitcoin.
    :param address: bitcoin address.
    :param user_id: the user's id, if the payment's task has one.
    """

    amount: str = ""
    address: str = ""
    user_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Settling:
    """
    Writes a person's decisions.

    :param ledger: into which.
    :param who: the person, and after " as " by which account or page.
    :param user_id: Airflow's id of the person; empty for a command.
    """

    ledger: Ledger
    who: str
    user_id: str = ""

    def hold(self, which: Which, *, why: str, key: Key | None = None, new: New | None = None) -> str:
        """
        Take a payment out of every task's hands, also one that no task has begun.

        :return: what was done and what comes next, for the person.
        :raises PaymentError: as :meth:`.Ledger.hold`.
        :raises QuoineError: if the connection or the order is wrong.
        """
        self.ledger.hold(self._order_to_hold(which, key or Key(), new or New()), who=self.who, why=why)
        return (
            "Held. No task sends it. Pay it elsewhere, then record it: airflow quoine payments exists. Or give it "
            "back: airflow quoine payments release."
        )

    def release(self, which: Which, *, why: str) -> str:
        """
        Give a held payment back to its task.

        :return: what was done and what comes next, for the person.
        :raises PaymentError: as :meth:`.Ledger.release`.
        """
        self.ledger.release(which.find(self.ledger).order, who=self.who, why=why)
        return WRITTEN

    def exists(self, which: Which, *, exchange_id: str, why: str, key: Key) -> str:
        """
        Record that the exchange carried a payment out; amount and address are compared if there is a key.

        :param key: is also what the payment is looked up by from then on.
        :return: what was compared, for the person.
        :raises PaymentError: if they differ, or as :meth:`.Ledger.exists`.
        :raises QuoineError: if the connection is wrong.
        """
        order = which.find(self.ledger).order
        said = _compare(order, exchange_id, key)
        compared = said == SAME
        if key.conn_id:
            order = replace(order, conn_id=key.conn_id, credentials_variable=key.credentials_variable)
        self.ledger.exists(order, exchange_id=exchange_id, who=self.who, why=why, compared=compared)
        return said

    def absent(self, which: Which, *, why: str) -> str:
        """
        Record that the exchange did not carry a payment out.

        :return: what was done and what comes next, for the person.
        :raises PaymentError: as :meth:`.Ledger.absent`.
        """
        if self.ledger.absent(which.find(self.ledger).order, who=self.who, why=why, user_id=self.user_id):
            return WRITTEN
        return "Noted. People have approved this payment, so a second person has to say the same."

    def _order_to_hold(self, which: Which, key: Key, new: New) -> Order:
        """Return the order of a payment that may not have been begun yet."""
        if key.conn_id and not which.exchange:
            # A reference is unique at one exchange only.
            which = replace(which, exchange=exchange_of(key.hook))
        if which.begun(self.ledger) or which.kind == Kind.USER:
            return which.find(self.ledger).order
        return _new_order(which, key, new)


def _new_order(which: Which, key: Key, new: New) -> Order:
    if not (key.conn_id and new.amount and new.address):
        raise PaymentRefusedError(
            f"No task has begun {which.reference!r}. Nothing was changed. To hold it all the same, give connection, "
            "amount and address, and the Variable with the key and the user's id if its task has them."
        )
    order = ledger_order(
        hook=key.hook,
        reference=which.reference,
        user_id=new.user_id,
        order=WithdrawalOrder.parse(amount=new.amount, address=new.address),
    )
    if which.exchange not in ("", order.exchange):
        raise PaymentRefusedError(
            f"Connection {key.conn_id!r} leads to {order.exchange}, not to {which.exchange}. Nothing was changed."
        )
    return order


def _compare(order: Order, exchange_id: str, key: Key) -> str:
    """Return what was compared, for the person."""
    if order.kind != Kind.WITHDRAWAL or not key.conn_id:
        return "It was not compared with the exchange; a withdrawal's task does so before it goes on."
    hook = key.hook
    if exchange_of(hook) != order.exchange:
        raise PaymentRefusedError(
            f"Connection {key.conn_id!r} leads to {exchange_of(hook)}, not to {order.exchange}. Nothing was changed."
        )
    try:
        withdrawal = look_up(hook, exchange_id, patience=PATIENCE)
    except (QuoineNotFoundError, QuoineInputError) as error:
        raise PaymentRefusedError(
            f"{error} Nothing was changed. Without a connection the id is recorded as it is."
        ) from None
    except QuoineError as error:
        return f"It could not be compared with the exchange: {error}"
    if difference := differs(withdrawal, WithdrawalOrder.parse(amount=order.amount, address=order.address)):
        raise PaymentRefusedError(f"This is another withdrawal: {difference}. Nothing was changed.")
    return SAME
