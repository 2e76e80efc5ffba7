"""The exchange's bitcoin withdrawals: validation, balance, and the lifecycle to a final state."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.rest.lifecycle import Lifecycle
from airflow_provider_quoine.sandbox.rest.registry import Registry
from airflow_provider_quoine.sandbox.settings import NumberForm

#: A withdrawal's states, by the final one (facts, Withdrawals).
WITHDRAWAL_PATHS = {
    "processed": ("pending", "processing", "broadcasted", "processed"),
    "cancelled": ("pending", "cancelled"),
    "declined": ("pending", "processing", "declined"),
    "reverted": ("pending", "processing", "broadcasted", "reverted"),
}

# Final states in which the amount is credited back to the user.
_RETURNED = frozenset({"cancelled", "declined", "reverted"})

# Form only, for the main and the test networks. Checksums are not verified: that is up to the client.
_ADDRESS = re.compile(
    r"[13mn2][1-9A-HJ-NP-Za-km-z]{25,34}"
    r"|(bc|tb|bcrt)1[02-9ac-hj-np-z]{8,87}"
    r"|(BC|TB|BCRT)1[02-9AC-HJ-NP-Z]{8,87}"
)


def plain(amount: Decimal) -> str:
    """Write an amount without an exponent and without losing a digit."""
    return format(amount, "f")


@dataclass
class Withdrawal:
    """
    A withdrawal.

    :param amount: bitcoin
    :param created_at: Unix seconds
    """

    withdrawal_id: int
    user_id: int
    amount: Decimal
    address: str
    lifecycle: Lifecycle
    created_at: float

    def as_json(self, form: NumberForm) -> str:
        """Write the response of api-reference 2.1 and 2.2, with the exact amount as a JSON number or a string."""
        amount = plain(self.amount) if form == "number" else json.dumps(plain(self.amount))
        address, state = json.dumps(self.address), json.dumps(self.lifecycle.state)
        return f'{{"id": {self.withdrawal_id}, "amount": {amount}, "address": {address}, "state": {state}}}'


@dataclass(frozen=True)
class WithdrawalOrder:
    """
    A well-formed request for a withdrawal.

    :param amount: bitcoin
    """

    auth_code: str
    amount: Decimal
    address: str

    @classmethod
    def read(cls, payload: Any) -> WithdrawalOrder:
        """
        Read the payload of api-reference 2.1.

        :param payload: the decoded JSON, numbers as Decimal or int
        :raises Refusal: 422 if a parameter is missing, unknown or of the wrong type; no code is used up
        """
        inner = payload.get("btc_withdrawal") if isinstance(payload, dict) else None
        if not isinstance(inner, dict):
            raise Refusal(422, {"message": "param is missing or the value is empty: btc_withdrawal"})
        unknown = {*payload} - {"auth_code", "btc_withdrawal"} | {*inner} - {"amount", "address"}
        if unknown:
            raise Refusal(422, {"message": f"Unknown parameter: {', '.join(sorted(unknown))}"})
        code, amount, address = payload.get("auth_code"), inner.get("amount"), inner.get("address")
        if not isinstance(code, str) or not code:
            raise Refusal(422, {"message": "param is missing or the value is empty: auth_code"})
        if not isinstance(amount, Decimal | int) or isinstance(amount, bool):
            raise Refusal(422, {"errors": {"amount": ["is not a number"]}})
        if not isinstance(address, str) or not address:
            raise Refusal(422, {"errors": {"address": ["can't be blank"]}})
        return cls(auth_code=code, amount=Decimal(amount), address=address)


class Withdrawals(Registry[Withdrawal]):
    """
    All withdrawals by number.

    :param balance: bitcoin that every user starts with
    :param minimum: smallest withdrawal in bitcoin
    """

    def __init__(self, *, balance: Decimal, minimum: Decimal) -> None:
        super().__init__(first=5001)
        self._balance = balance
        self._minimum = minimum

    def balance_of(self, user_id: int) -> Decimal:
        """Return a user's balance in bitcoin. Cancelled, declined and reverted withdrawals are credited back."""
        taken = (w.amount for w in self if w.user_id == user_id and w.lifecycle.state not in _RETURNED)
        return self._balance - sum(taken, Decimal(0))

    def check(self, *, user_id: int, order: WithdrawalOrder) -> None:
        """
        Validate address and amount.

        :raises Refusal: 422 for a wrong address or amount, or a balance that is too small (facts, Error bodies)
        """
        if not _ADDRESS.fullmatch(order.address):
            raise Refusal(422, {"errors": {"address": ["invalid_address"]}})
        if int(order.amount.as_tuple().exponent) < -8:
            raise Refusal(422, {"errors": {"amount": ["more than 8 decimals"]}})
        if order.amount < self._minimum:
            raise Refusal(422, {"errors": {"amount": ["below_minimum"]}})
        if order.amount > self.balance_of(user_id):
            raise Refusal(422, {"errors": {"user": ["not_enough_fund"]}})

    def create(self, *, user_id: int, order: WithdrawalOrder, path: tuple[str, ...], now: float) -> Withdrawal:
        """Add a withdrawal whose request is valid."""
        withdrawal = Withdrawal(
            withdrawal_id=next(self._numbers),
            user_id=user_id,
            amount=order.amount,
            address=order.address,
            lifecycle=Lifecycle(path=path, since=now),
            created_at=now,
        )
        self._by_number[withdrawal.withdrawal_id] = withdrawal
        return withdrawal
