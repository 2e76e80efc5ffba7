"""Adds many users and withdrawals without requests, before the sandbox serves: for tests and benchmarks of waiting."""

from __future__ import annotations

from decimal import Decimal

from airflow_provider_quoine.sandbox.rest.exchange import Exchange
from airflow_provider_quoine.sandbox.rest.users import USER_PATHS, User
from airflow_provider_quoine.sandbox.rest.withdrawals import WITHDRAWAL_PATHS, WithdrawalOrder

_ADDRESS = "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"


def add_user(exchange: Exchange, *, password: str, state: str = "PENDING") -> User:
    """
    Add a user without a request.

    :param exchange: one that does not serve yet, or that serves in this thread
    """
    user = exchange.users.create(
        fields={"email": "fixture@example.com", "password": password},
        documents={},
        path=USER_PATHS["APPROVED"],
        now=exchange.now(),
    )
    user.lifecycle.set_state(state, now=exchange.now())
    return user


def add_withdrawal(exchange: Exchange, user: User) -> str:
    """Add a pending withdrawal without a request, and return its id; ``exchange`` as in :func:`add_user`."""
    order = WithdrawalOrder(auth_code="", amount=Decimal("0.001"), address=_ADDRESS)
    created = exchange.withdrawals.create(
        user_id=user.user_id, order=order, path=WITHDRAWAL_PATHS["processed"], now=exchange.now()
    )
    return str(created.withdrawal_id)
