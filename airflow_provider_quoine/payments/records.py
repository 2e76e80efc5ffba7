"""What the ledger keeps: orders, payments, events, and its head."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from airflow_provider_quoine.payments.schema import Kind

SATOSHIS = 100_000_000
"""Per bitcoin."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """
    What a reference stands for. It never changes, but for the names by which it is looked up.

    :param exchange: base URL of the exchange.
    :param kind: withdrawal or user.
    :param reference: unique per exchange and kind.
    :param account: id of the key that signs.
    :param user_id: whose money it is; empty where that is the key's owner.
    :param address: bitcoin address; empty for a user.
    :param amount: bitcoin; 0 for a user.
    :param conn_id: Airflow's connection by which it can be looked up; empty where nobody knows.
    :param credentials_variable: name of the Variable with the key that signs; empty for the connection's own key.
    """

    exchange: str
    kind: Kind
    reference: str
    account: str
    user_id: str = ""
    address: str = ""
    amount: Decimal = Decimal(0)
    conn_id: str = field(default="", compare=False)
    credentials_variable: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """The payment, for a message."""
        return f"The payment {self.reference!r}" if self.kind == Kind.WITHDRAWAL else f"The new user {self.reference}"

    @property
    def satoshis(self) -> int:
        """The amount in the smallest unit, exact."""
        return int(self.amount * SATOSHIS)

    @property
    def details(self) -> dict[str, str]:
        """What must stay the same, in words for a person."""
        # From the smallest unit: 0.5 and 0.50 are one amount.
        amount = f"{Decimal(self.satoshis) / SATOSHIS:f}"
        return {"account": self.account, "user_id": self.user_id, "address": self.address, "amount": amount}


@dataclass(frozen=True, kw_only=True)
class Payment:
    """
    A payment as the ledger has it.

    :param order: what it is.
    :param step: where it stands; a word that no version knows is kept as it is and is never sendable.
    :param owner: the attempt that made it ``sending``.
    :param exchange_id: the exchange's id, once it is known.
    :param in_doubt_until: until when its request may be under way.
    :param policy: fingerprint of the policy that allowed the last send.
    :param reason: why it stands where it stands, in words.
    :param task: where in Airflow it was sent last, for a person.
    :param state: the last state seen at the exchange, in its words; empty before the first.
    """

    order: Order
    step: str
    owner: str | None
    exchange_id: str | None
    in_doubt_until: datetime | None
    policy: str | None
    reason: str
    task: str
    state: str


@dataclass(frozen=True, kw_only=True)
class Head:
    """
    The last event of a ledger at some time, by which the ledger is known again.

    :param identity: of the ledger.
    :param number: of the event; 0 if there was none.
    :param hash: of the event.
    """

    identity: str
    number: int
    hash: str


@dataclass(frozen=True, kw_only=True)
class Event:
    """
    What happened to a payment, or to the ledger.

    :param number: in the chain, from 1.
    :param at: UTC.
    :param event: a step, or a person's decision.
    :param actor: the person, the task, or the attempt.
    :param data: the rest.
    """

    number: int
    at: datetime
    event: str
    actor: str
    data: dict[str, Any]


class Pin(Protocol):
    """Where Airflow remembers which ledger its payments are in, and how far it had come."""

    def read(self) -> Head | None:
        """Return what was written last."""

    def write(self, head: Head) -> None:
        """Remember a ledger's last event."""
