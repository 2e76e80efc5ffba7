"""The rules for withdrawals: allow-list, bounds and network. They are checked before anything is sent."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_quoine.exchange.addresses import BitcoinAddress, Network, check_address, decode_address
from airflow_provider_quoine.exchange.amounts import Amount
from airflow_provider_quoine.exchange.errors import QuoineInputError

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.models import WithdrawalOrder
    from airflow_provider_quoine.hooks.connection import ConnectionSettings
    from airflow_provider_quoine.payments.ledger import Transaction

#: The explicit choice to allow every address.
ANY_ADDRESS = "*"


@dataclass(frozen=True, kw_only=True)
class WithdrawalPolicy:
    """
    The addresses that bitcoin may go to, and the bounds of one withdrawal (decisions, Policy).

    :param conn_id: the connection that holds the policy, for messages.
    :param addresses: the allowed ones; empty allows none, :data:`ANY_ADDRESS` among them allows all.
    :param largest: bitcoin per withdrawal; None for no bound.
    :param smallest: bitcoin per withdrawal; None for no bound.
    :param network: every address must belong to it.
    """

    conn_id: str
    addresses: frozenset[str]
    largest: Amount | None
    smallest: Amount | None
    network: Network

    @classmethod
    def of(cls, connection: ConnectionSettings) -> WithdrawalPolicy:
        """
        Read the policy fields of a connection.

        :raises QuoineInputError: if a bound is no amount.
        """
        extras = connection.extras
        return cls(
            conn_id=connection.conn_id,
            addresses=frozenset(re.split(r"[\s,]+", extras.withdrawal_addresses.strip())) - {""},
            largest=Amount(extras.withdrawal_max) if extras.withdrawal_max else None,
            smallest=Amount(extras.withdrawal_min) if extras.withdrawal_min else None,
            network=Network(extras.bitcoin_network),
        )

    @property
    def allows_any_address(self) -> bool:
        """Whether the allow-list is the explicit ``*``."""
        return ANY_ADDRESS in self.addresses

    def check(self, order: WithdrawalOrder) -> None:
        """
        Let a withdrawal pass, or refuse it.

        Addresses are compared with the allow-list by the output that they pay to, so ``BC1...`` and ``bc1...`` are
        one address.

        :raises QuoineInputError: naming the broken rule and the connection's field that holds it.
        """
        check_address(order.address, network=self.network)
        if not self.allows_any_address and not self._is_listed(order.address):
            reason = "it is not on that list" if self.addresses else "that list is empty, which allows none"
            raise QuoineInputError(
                f"Connection {self.conn_id!r} does not allow withdrawals to {order.address}: {reason}. If it is right, "
                "add it to the connection's field 'Withdrawal addresses'."
            )
        if self.largest is not None and order.amount > self.largest:
            raise QuoineInputError(
                f"{order.amount} BTC is more than the {self.largest} BTC that connection {self.conn_id!r} allows per "
                "withdrawal (field 'Largest withdrawal')."
            )
        if self.smallest is not None and order.amount < self.smallest:
            raise QuoineInputError(
                f"{order.amount} BTC is less than the {self.smallest} BTC that connection {self.conn_id!r} asks for "
                "(field 'Smallest withdrawal')."
            )

    @property
    def fingerprint(self) -> str:
        """A hash of all rules, by which the ledger says under which policy a payment was sent."""
        rules = [sorted(self.addresses), str(self.largest), str(self.smallest), str(self.network)]
        return hashlib.sha256(json.dumps(rules).encode()).hexdigest()

    def allow(self, order: WithdrawalOrder, at: Transaction) -> str:
        """
        Let a withdrawal begin to be sent, in the transaction that makes it ``sending``.

        :param at: the ledger, locked.
        :return: the policy's fingerprint.
        :raises QuoineInputError: as :meth:`check`.
        """
        self.check(order)
        return self.fingerprint

    def _is_listed(self, address: BitcoinAddress) -> bool:
        return address in {self._decode(listed) for listed in self.addresses}

    def _decode(self, listed: str) -> BitcoinAddress:
        try:
            return decode_address(listed)
        except QuoineInputError as error:
            raise QuoineInputError(
                f"Connection {self.conn_id!r} has an entry in its field 'Withdrawal addresses' that is no address, so "
                f"nothing is sent: {error}"
            ) from None
