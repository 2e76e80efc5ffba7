"""An exchange and a ledger with planted payments, for tests of reconciliation."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import update

from airflow_provider_quoine.exchange.models import UserCredentials
from airflow_provider_quoine.payments.database import open_file
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.reconciliation import FindingKind, Reconciliation, Report
from airflow_provider_quoine.payments.records import Order
from airflow_provider_quoine.payments.schema import IN_DOUBT, PAYMENTS, SENDABLE, SETTLED_BY, Kind, Note, Step
from airflow_provider_quoine.payments.transaction import as_text, is_for
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.payments.memory import Memory

ADDRESS = "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"
FIELDS = {"first_name": "Hanako", "last_name": "Yamada", "email": "h@example.com", "password": "Passw0rd-of-a-user"}
LOOK_UP = "GET /btc_withdrawals/:id"
HOUR = timedelta(hours=1)


class World:
    """
    An exchange with some users, and a ledger with their payments.

    Airflow's configuration names this ledger meanwhile. All is planted before the exchange begins to listen, because
    its state then belongs to its own thread.

    :ivar expected: the findings that have to come: reference and kind.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, users: int = 3) -> None:
        self.sandbox = SandboxServer(SandboxSettings(pace=None, limit=100_000))
        memory = Memory()
        self.ledger = Ledger(open_file(folder / "quoine" / "ledger.db"), pin=memory)
        self.expected: set[tuple[str, FindingKind]] = set()
        self._exchange, self._numbers = self.sandbox.exchange, count(1)
        monkeypatch.setenv("AIRFLOW_HOME", str(folder))
        # Another ledger than that of other tests.
        monkeypatch.setattr("airflow_provider_quoine.payments.configuration.VariablePin", lambda: memory)
        monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", self.sandbox.airflow_connection())
        self.users = [
            self._exchange.users.create(fields=FIELDS, documents={}, path=("APPROVED",), now=0) for _ in range(users)
        ]
        for user in self.users:
            key = UserCredentials(api_id=str(user.user_id), api_secret=user.api_secret)
            monkeypatch.setenv(f"AIRFLOW_VAR_KEY_{user.user_id}", key.to_json())
        self._at = self.ledger.transaction()

    def __enter__(self) -> World:
        # All that is planted is one commit.
        self._plant = self._at.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._at.__exit__(*error)

    def order(self, **other: Any) -> Order:
        """A new payment of one of the users, or the one that is given."""
        if "order" in other:
            given: Order = other["order"]
            return given
        number = next(self._numbers)
        user = self.users[number % len(self.users)]
        fields: dict[str, Any] = {
            "exchange": self.sandbox.url,
            "kind": Kind.WITHDRAWAL,
            "reference": f"invoice-{number}",
            "account": str(user.user_id),
            "address": ADDRESS,
            "amount": Decimal(number) / 1000,
            "conn_id": "quoine_default",
            "credentials_variable": f"key_{user.user_id}",
        } | other
        return Order(**fields)

    def stands(
        self,
        step: Step,
        *,
        ago: timedelta = HOUR,
        seen: tuple[str, ...] = (),
        exchange_id: str | None = None,
        expect: FindingKind | None = None,
        **other: Any,
    ) -> Order:
        """
        Plant a payment with its events.

        :param ago: when it came to stand there.
        :param seen: where the exchange had it, the oldest first.
        """
        order, at = self.order(**other), self._plant
        now, at.now = at.now, at.now - ago
        at.find_or_add(order, actor="task")
        if step == Step.HELD:
            at.change(order, if_step=SENDABLE, step=step, reason="the reason")
            at.append(order, step, actor="ann", why="the reason")
        elif step != Step.PREPARED:
            sending: dict[str, Any] = {"policy": "policy", "in_doubt_until": as_text(at.now)}
            at.change(order, if_step=SENDABLE, step=Step.SENDING, owner="a", reserved_at=as_text(at.now), **sending)
            at.append(order, Step.SENDING, actor="task", attempt="a", **sending)
        if step not in {Step.HELD, Step.PREPARED, Step.SENDING}:
            at.change(order, if_step=IN_DOUBT, step=step, exchange_id=exchange_id, **SETTLED_BY[step])
            at.append(order, step, actor="a", exchange_id=exchange_id)
        for state in seen:
            at.change(order, if_step=frozenset({step}), state=state)
            at.append(order, Note.SEEN, actor="task", state=state)
        at.now = now
        if expect:
            self.expected.add((order.reference, expect))
        return order

    def sent(
        self,
        state: str,
        *,
        seen: tuple[str, ...] = (),
        ago: timedelta = HOUR,
        there: dict[str, Any] | None = None,
        missing: bool = False,
        expect: FindingKind | None = None,
        **other: Any,
    ) -> Order:
        """
        Plant a payment that was sent.

        :param state: where the exchange has it.
        :param seen: where it was seen before, the oldest first.
        :param ago: when it was sent, and when its state has changed last.
        :param there: what the exchange has otherwise than the ledger.
        """
        order = self.order(**other)
        wanted: Any = SimpleNamespace(**{"amount": order.amount, "address": order.address} | (there or {}))
        withdrawal = self._exchange.withdrawals.create(user_id=int(order.account), order=wanted, path=(state,), now=0)
        found = str(withdrawal.withdrawal_id)
        if missing:
            del self._exchange.withdrawals._by_number[withdrawal.withdrawal_id]
        return self.stands(Step.SENT, ago=ago, seen=seen, exchange_id=found, expect=expect, order=order)

    def change(self, order: Order, **values: Any) -> None:
        """Change columns of a planted payment."""
        self._plant.connection.execute(update(PAYMENTS).where(is_for(order)).values(values))

    def reconcile(self) -> Report:
        """Look everything up."""
        return Reconciliation(
            ledger=self.ledger, final_for=timedelta(days=7), stuck_after=timedelta(days=1), actor="task"
        ).run()

    def lookups(self) -> list[str]:
        """The ids that the exchange was asked for."""
        requests = self.sandbox.control.state()["requests"]
        return [each["path"].rpartition("/")[2] for each in requests if each["endpoint"] == LOOK_UP]
