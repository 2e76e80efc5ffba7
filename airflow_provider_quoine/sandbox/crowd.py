"""Thousands of withdrawals and users at once, put in before the sandbox serves: for tests and benchmarks of waiting."""

from __future__ import annotations

from decimal import Decimal

from airflow_provider_quoine.sandbox.exchange import Exchange
from airflow_provider_quoine.sandbox.users import USER_LIVES, User
from airflow_provider_quoine.sandbox.withdrawals import WITHDRAWAL_LIVES, WithdrawalOrder

_ADDRESS = "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"


def add_user(exchange: Exchange, *, password: str, state: str = "PENDING") -> User:
    """
    Add a user without a request.

    :param exchange: one that does not serve yet, or of this thread
    :param password: the user's
    :param state: where the user stands
    """
    user = exchange.users.create(
        fields={"email": "crowd@example.com", "password": password},
        documents={},
        path=USER_LIVES["APPROVED"],
        now=exchange.now(),
    )
    user.life.put(state, now=exchange.now())
    return user


def add_withdrawal(exchange: Exchange, user: User) -> str:
    """
    Add a pending withdrawal without a request.

    :param exchange: as in :func:`add_user`
    :param user: whose it is
    :return: its id
    """
    order = WithdrawalOrder(auth_code="", amount=Decimal("0.001"), address=_ADDRESS)
    made = exchange.withdrawals.create(
        user_id=user.user_id, order=order, path=WITHDRAWAL_LIVES["processed"], now=exchange.now()
    )
    return str(made.withdrawal_id)
