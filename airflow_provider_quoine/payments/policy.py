"""The rules for withdrawals: allow-list, bounds, caps and network. They are checked before anything is sent."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import pendulum

from airflow_provider_quoine.exchange.addresses import BitcoinAddress, Network, check_address, decode_address
from airflow_provider_quoine.exchange.amounts import Amount
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.exact_json import plain_number
from airflow_provider_quoine.hooks.connection import UNLIMITED

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.models import WithdrawalOrder
    from airflow_provider_quoine.hooks.connection import ConnectionExtras, ConnectionSettings
    from airflow_provider_quoine.payments.transaction import Transaction

#: The explicit choice to allow every address.
ANY_ADDRESS = "*"

_Bound = TypeVar("_Bound", Amount, int)


@dataclass(frozen=True, kw_only=True)
class Cap:
    """
    What one account may withdraw within some time.

    :param amount: bitcoin in all; None for no bound.
    :param number: withdrawals; None for no bound.
    """

    amount: Amount | None
    number: int | None


@dataclass(frozen=True, kw_only=True)
class WithdrawalPolicy:
    """
    The addresses that bitcoin may go to, the bounds of one withdrawal and the caps of an account (decisions, Policy).

    :param conn_id: the connection that holds the policy, for messages.
    :param account: id of the key that signs. The caps count its withdrawals, of all runs, DAGs and hosts.
    :param addresses: the allowed ones; empty allows none, :data:`ANY_ADDRESS` among them allows all.
    :param largest: bitcoin per withdrawal; None for no bound.
    :param smallest: bitcoin per withdrawal; None for no bound.
    :param in_24_hours: cap for any 24 hours.
    :param per_day: cap for a calendar day.
    :param timezone: IANA name of the zone whose midnight begins the day.
    :param network: every address must belong to it.
    :param approvals: how many people must approve a withdrawal, none of them somebody who has asked for it.
    """

    conn_id: str
    account: str
    addresses: frozenset[str]
    largest: Amount | None
    smallest: Amount | None
    in_24_hours: Cap
    per_day: Cap
    timezone: str
    network: Network
    approvals: int

    @classmethod
    def of(cls, connection: ConnectionSettings, *, account: str) -> WithdrawalPolicy:
        """
        Read the policy fields of a connection.

        :param account: id of the key that signs.
        :raises QuoineInputError: naming the fields that are empty or wrong.
        """
        fields = _Fields(connection.conn_id, connection.extras)
        fields.refuse_empty(*_BOUNDS)
        return cls(
            conn_id=connection.conn_id,
            account=account,
            addresses=frozenset(re.split(r"[\s,]+", connection.extras.withdrawal_addresses.strip())) - {""},
            largest=fields.bound("withdrawal_max", Amount),
            smallest=fields.bound("withdrawal_min", Amount),
            in_24_hours=Cap(
                amount=fields.bound("withdrawal_max_24h", Amount), number=fields.bound("withdrawal_count_24h", _count)
            ),
            per_day=Cap(
                amount=fields.bound("withdrawal_max_day", Amount), number=fields.bound("withdrawal_count_day", _count)
            ),
            timezone=fields.timezone("withdrawal_timezone"),
            network=Network(connection.extras.bitcoin_network),
            approvals=connection.extras.withdrawal_approvals or 0,
        )

    @property
    def allows_any_address(self) -> bool:
        """Whether the allow-list is the explicit ``*``."""
        return ANY_ADDRESS in self.addresses

    @property
    def fingerprint(self) -> str:
        """A hash of all rules, by which the ledger says under which policy a payment was sent."""
        caps = [[str(cap.amount), cap.number] for cap in (self.in_24_hours, self.per_day)]
        bounds = [str(self.largest), str(self.smallest), *caps, self.timezone, str(self.network), self.approvals]
        return hashlib.sha256(json.dumps([sorted(self.addresses), *bounds]).encode()).hexdigest()

    def check(self, order: WithdrawalOrder) -> None:
        """
        Let a withdrawal pass, or refuse it. The caps are :meth:`allow`'s part.

        Addresses are compared with the allow-list by the output that they pay to, so ``BC1...`` and ``bc1...`` are
        one address.

        :raises QuoineInputError: naming the broken rule and the connection's field that holds it.
        """
        check_address(order.address, network=self.network)
        if not self.allows_any_address and not self._is_listed(order.address):
            named = f"the list of its field {_label('withdrawal_addresses')!r}"
            reason = f"it is not on {named}" if self.addresses else f"{named} is empty, which allows none"
            raise QuoineInputError(
                f"Connection {self.conn_id!r} does not allow withdrawals to {order.address}: {reason}. If it is right, "
                "add it there."
            )
        if self.largest is not None and order.amount > self.largest:
            raise QuoineInputError(
                f"{order.amount} BTC is more than the {self.largest} BTC that connection {self.conn_id!r} allows per "
                f"withdrawal (field {_label('withdrawal_max')!r})."
            )
        if self.smallest is not None and order.amount < self.smallest:
            raise QuoineInputError(
                f"{order.amount} BTC is less than the {self.smallest} BTC that connection {self.conn_id!r} asks for "
                f"(field {_label('withdrawal_min')!r})."
            )

    def allow(self, order: WithdrawalOrder, at: Transaction) -> str:
        """
        Let a withdrawal begin to be sent, in the transaction that makes it ``sending``.

        It counts from then on, until the exchange refuses it or it turns out that it was not sent.

        :param at: the ledger, locked.
        :return: the policy's fingerprint.
        :raises QuoineInputError: as :meth:`check`, or naming the cap that it would exceed.
        """
        self.check(order)
        day = start_of_day(at.now, self.timezone)
        self._check_cap(order, at, self.in_24_hours, at.now - timedelta(hours=24), "24h", "in 24 hours")
        self._check_cap(order, at, self.per_day, day, "day", f"per day in {self.timezone}")
        return self.fingerprint

    def _check_cap(
        self, order: WithdrawalOrder, at: Transaction, cap: Cap, since: datetime, field: str, time: str
    ) -> None:
        number, amount = at.reserved(account=self.account, since=since)
        if cap.number is not None and number + 1 > cap.number:
            broken, name = f"{cap.number} withdrawals", f"withdrawal_count_{field}"
        elif cap.amount is not None and amount + order.amount > cap.amount:
            broken, name = f"{cap.amount} BTC", f"withdrawal_max_{field}"
        else:
            return
        raise QuoineInputError(
            f"With {order.amount} BTC more, account {self.account} would exceed the {broken} that connection "
            f"{self.conn_id!r} allows {time} (field {_label(name)!r}); so far it is {plain_number(amount)} BTC in "
            f"{number} withdrawals. Nothing was sent. Clear the task once there is room again, or have the field "
            "changed."
        )

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


def start_of_day(moment: datetime, timezone: str) -> datetime:
    """
    Return the first moment of a calendar day.

    :param moment: any in that day, aware.
    :param timezone: IANA name of the day's zone.
    :return: midnight, in UTC. Where a change of the clock repeats it, the first one; where it is left out, the first
        moment after it.
    """
    zone = pendulum.timezone(timezone)
    local = pendulum.instance(moment).in_timezone(zone)
    # pendulum's own start_of("day") takes the second of two midnights for moments after it.
    midnights = (pendulum.datetime(local.year, local.month, local.day, tz=zone, fold=fold) for fold in (0, 1))
    return next(midnight.in_timezone("UTC") for midnight in midnights if midnight.date() == local.date())


#: Bounds that must be stated. The smallest withdrawal is none of them: without it no money is at risk.
_BOUNDS = (
    "withdrawal_max",
    "withdrawal_max_24h",
    "withdrawal_count_24h",
    "withdrawal_max_day",
    "withdrawal_count_day",
)


class _Fields:
    """The policy fields of a connection, with errors that name them."""

    def __init__(self, conn_id: str, extras: ConnectionExtras) -> None:
        self._conn_id = conn_id
        self._extras = extras

    def refuse_empty(self, *names: str) -> None:
        empty = [repr(_label(name)) for name in names if not self._text(name)]
        if empty:
            raise QuoineInputError(
                f"Connection {self._conn_id!r} has no bound in {', '.join(empty)}. An empty bound allows nothing, so "
                f"nothing was sent. Write a number such as {_EXAMPLE} there, or {UNLIMITED}."
            )

    def bound(self, name: str, parse: Callable[[str], _Bound]) -> _Bound | None:
        text = self._text(name)
        try:
            return parse(text) if text and text != UNLIMITED else None
        except QuoineInputError as error:
            raise QuoineInputError(
                f"Connection {self._conn_id!r} has no bound in its field {_label(name)!r}: {error} Nothing was sent. "
                f"Correct the field, or write {UNLIMITED}."
            ) from None

    def timezone(self, name: str) -> str:
        text = self._text(name)
        try:
            pendulum.timezone(text)
        except (ValueError, OSError):
            raise QuoineInputError(
                f"Connection {self._conn_id!r} has {text!r:.40} in its field {_label(name)!r}, which is no time zone. "
                "Nothing was sent. Write a name such as Asia/Tokyo."
            ) from None
        return text

    def _text(self, name: str) -> str:
        return (getattr(self._extras, name) or "").strip()


_EXAMPLE = "10"


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise QuoineInputError(f"{text[:40]!r} is no number of withdrawals: give plain digits such as {_EXAMPLE}.")
    return int(text)


def _label(name: str) -> str:
    from airflow_provider_quoine.hooks.connection import ConnectionExtras

    return ConnectionExtras.label_of(name)
