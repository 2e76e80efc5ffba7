"""What ``payments verify`` finds: whether anybody "has changed the ledger by other means" (docs, Runbook)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from airflow_provider_quoine.payments.database import open_file
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.schema import Step
from tests.payments.memory import Memory
from tests.payments.test_ledger import ORDER, send

LAST = "(SELECT max(number) FROM quoine_payment_events)"


@dataclass
class Sent:
    """A ledger with one payment that was sent, and what Airflow remembers of it."""

    file: Path
    memory: Memory = field(default_factory=Memory)

    def ledger(self) -> Ledger:
        return Ledger(open_file(self.file), pin=self.memory)

    def change(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.file)) as connection, connection:
            for statement in statements:
                connection.execute(statement)


@pytest.fixture
def sent(tmp_path: Path) -> Sent:
    """Send one payment."""
    sent = Sent(tmp_path / "ledger.db")
    ledger = sent.ledger()
    ledger.prepare(ORDER, actor="task")
    send(ledger, ORDER, "a")
    ledger.finish(ORDER, attempt="a", step=Step.SENT, exchange_id="5001")
    ledger.stop(who="ann", why="a test")
    return sent


def test_a_payment_that_was_put_back_is_named(sent: Sent) -> None:
    """The row decides what is sent; the events alone are hashed."""
    sent.change("UPDATE quoine_payments SET step = 'prepared', exchange_id = NULL")
    assert sent.ledger().faults() != []


def test_a_payment_whose_address_was_changed_is_named(sent: Sent) -> None:
    sent.change("UPDATE quoine_payments SET address = 'bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4'")
    assert sent.ledger().faults() != []


def test_a_payment_that_was_deleted_is_named(sent: Sent) -> None:
    sent.change("DELETE FROM quoine_payments")
    assert sent.ledger().faults() != []


def test_a_stop_that_was_taken_out_by_hand_is_named(sent: Sent) -> None:
    sent.change("UPDATE quoine_ledger SET stopped_at = NULL, stopped_why = NULL")
    assert sent.ledger().faults() != []


def test_the_last_event_is_missed_though_the_head_was_put_back(sent: Sent) -> None:
    """Airflow remembers it."""
    sent.change(
        f"DELETE FROM quoine_payment_events WHERE number = {LAST}",
        f"UPDATE quoine_ledger SET head = {LAST}, "
        f"head_hash = (SELECT hash FROM quoine_payment_events WHERE number = {LAST})",
    )
    assert sent.ledger().faults() != []


def test_an_empty_ledger_is_not_called_whole_where_airflow_knows_another(sent: Sent) -> None:
    sent.file.unlink()
    assert sent.ledger().faults() != []
