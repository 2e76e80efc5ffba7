"""What a withdrawal must obey before anything is sent: allow-list, bounds, and a well-formed address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from airflow_provider_quoine.exchange.addresses import Network, check_address, decode_address
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.models import format_amount, parse_amount

if TYPE_CHECKING:
    from airflow_provider_quoine.hooks.connection import ConnectionSettings

#: The explicit choice to allow every address.
ANY_ADDRESS = "*"


@dataclass(frozen=True, kw_only=True)
class WithdrawalPolicy:
    """
    Where bitcoin may go and how much at a time (decided: design, Policy before money).

    :param name: whose policy it is, for messages: the connection.
    :param addresses: those allowed; empty allows none, :data:`ANY_ADDRESS` among them allows all.
    :param largest: bitcoin per withdrawal; None for no bound.
    :param smallest: bitcoin per withdrawal; None for no bound.
    :param network: that addresses must belong to.
    """

    name: str
    addresses: frozenset[str]
    largest: Decimal | None
    smallest: Decimal | None
    network: Network

    @classmethod
    def of(cls, connection: ConnectionSettings) -> WithdrawalPolicy:
        """
        Read the policy fields of a connection.

        :raises QuoineInputError: if a bound is no amount.
        """
        extras = connection.extras
        return cls(
            name=connection.conn_id,
            addresses=frozenset(re.split(r"[\s,]+", extras.withdrawal_addresses.strip())) - {""},
            largest=parse_amount(extras.withdrawal_max) if extras.withdrawal_max else None,
            smallest=parse_amount(extras.withdrawal_min) if extras.withdrawal_min else None,
            network=Network(extras.bitcoin_network),
        )

    @property
    def allows_any_address(self) -> bool:
        """Whether the allow-list is the explicit ``*``."""
        return ANY_ADDRESS in self.addresses

    def check(self, *, amount: Decimal, address: str) -> None:
        """
        Let a withdrawal pass.

        :param amount: bitcoin.
        :param address: bitcoin address; compared with the allow-list by what it pays to, so that ``BC1...`` and
            ``bc1...`` are one.
        :raises QuoineInputError: naming the rule that it breaks and the field of the connection that holds it.
        """
        check_address(address, network=self.network)
        if not self.allows_any_address and not self._is_listed(address):
            allowed = "that list is empty, which allows none" if not self.addresses else "it is not on that list"
            raise QuoineInputError(
                f"Connection {self.name!r} does not allow withdrawals to {address}: {allowed}. If it is right, add it "
                "to the connection's field 'Withdrawal addresses'."
            )
        if self.largest is not None and amount > self.largest:
            raise QuoineInputError(
                f"{format_amount(amount)} BTC is more than the {format_amount(self.largest)} BTC that connection "
                f"{self.name!r} allows per withdrawal (field 'Largest withdrawal')."
            )
        if self.smallest is not None and amount < self.smallest:
            raise QuoineInputError(
                f"{format_amount(amount)} BTC is less than the {format_amount(self.smallest)} BTC that connection "
                f"{self.name!r} asks for (field 'Smallest withdrawal')."
            )

    def _is_listed(self, address: str) -> bool:
        return decode_address(address).script in {self._script_of(listed) for listed in self.addresses}

    def _script_of(self, listed: str) -> bytes:
        try:
            return decode_address(listed).script
        except QuoineInputError as error:
            raise QuoineInputError(
                f"Connection {self.name!r} has an entry in its field 'Withdrawal addresses' that is no address, so "
                f"nothing is sent: {error}"
            ) from None
