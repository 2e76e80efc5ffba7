"""What creating a user is in the ledger: an e-mail address, as a keyed hash, at an exchange."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.records import Order
from airflow_provider_quoine.payments.schema import Kind
from airflow_provider_quoine.payments.withdrawals import exchange_of, fresh

if TYPE_CHECKING:
    from airflow_provider_quoine.hooks.quoine import QuoineHook


def user_reference(ledger: Ledger, email: str) -> str:
    """
    Return what stands for an e-mail address in the ledger, which has no personal data in clear.

    :param email: in any case, with or without blanks around it.
    """
    normalised = email.strip().casefold()
    return hmac.digest(ledger.identity.encode(), normalised.encode(), hashlib.sha256).hex()


def user_order(hook: QuoineHook, reference: str) -> Order:
    """
    Return what creating a user is in the ledger.

    :param hook: of the vendor's key.
    :param reference: of :func:`user_reference`; the exchange accepts each e-mail address once.
    :raises QuoineInputError: if the connection is incomplete.
    """
    return Order(
        exchange=exchange_of(hook),
        kind=Kind.USER,
        reference=reference,
        account=hook.account,
        conn_id=hook.quoine_conn_id,
    )


def allow_user(hook: QuoineHook, order: Order) -> str:
    """
    Let a user begin to be sent, if the connection still leads to where it did.

    :return: no fingerprint, since there is no policy for users.
    :raises PaymentRefusedError: if the connection has changed.
    """
    fresh(hook, order)
    return ""
