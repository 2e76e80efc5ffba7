"""What ``verify`` says of rows that somebody edits, adds or removes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, insert, select, update

from airflow_provider_quoine.payments.database import open_file
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.records import Order
from airflow_provider_quoine.payments.schema import PAYMENTS, Kind, Step
from tests.payments.memory import Memory


def order(number: int) -> Order:
    return Order(
        exchange="https://exchange",
        kind=Kind.WITHDRAWAL,
        reference=f"invoice-{number}",
        account="25",
        user_id="26",
        address="1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj",
        amount=Decimal("0.50"),
    )


def begin(ledger: Ledger, number: int, *, in_flight: timedelta = timedelta(0)) -> Order:
    ledger.prepare(order(number), actor="task")
    ledger.start_sending(
        order(number), attempt=f"a-{number}", task="task", in_flight=in_flight, allow=lambda _: "rules"
    )
    return order(number)


def settled(ledger: Ledger) -> None:
    """One payment for each way."""
    ledger.prepare(order(1), actor="task")
    for number, step in enumerate((Step.SENT, Step.REFUSED, Step.UNKNOWN, Step.PREPARED), start=2):
        identifier = "77" if step == Step.SENT else None
        ledger.finish(begin(ledger, number), attempt=f"a-{number}", step=step, exchange_id=identifier, reason="why")
    begin(ledger, 6, in_flight=timedelta(minutes=1))
    ledger.hold(order(7), who="ann", why="by hand")
    ledger.exists(order(7), exchange_id="78", who="ann", why="paid")
    ledger.exists(order(7), exchange_id="79", who="ann", why="mistyped")
    ledger.hold(order(8), who="ann", why="by hand")
    ledger.release(order(8), who="ann", why="not paid")
    ledger.absent(begin(ledger, 9), who="ann", why="not there")
    ledger.finish(order(9), attempt="a-9", step=Step.SENT, exchange_id="80")
    ledger.exists(begin(ledger, 10), exchange_id="81", who="ann", why="there")


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_file(tmp_path / "ledger.db")


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    ledger = Ledger(engine, pin=Memory())
    settled(ledger)
    return ledger


def test_rows_that_the_ledger_wrote_follow_from_their_events(ledger: Ledger) -> None:
    assert ledger.faults() == []


EDITS: dict[str, Any] = {
    "account": "26",
    "user_id": "27",
    "address": "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
    "satoshis": 50_000_001,
    "step": "other",
    "owner": "another",
    "exchange_id": "5",
    "policy": "other",
    "reserved_at": "2020-01-01T00:00:00.000000+00:00",
    "in_doubt_until": "2020-01-01T00:00:00.000000+00:00",
}


@pytest.mark.long
@pytest.mark.parametrize("column", EDITS)
def test_an_edited_row_is_named_and_no_other(ledger: Ledger, engine: Engine, column: str) -> None:
    for number in range(1, 11):
        mine = PAYMENTS.c.reference == f"invoice-{number}"
        with engine.begin() as connection:
            before = connection.execute(select(PAYMENTS.c[column]).where(mine)).scalar_one()
            connection.execute(update(PAYMENTS).where(mine).values({column: EDITS[column]}))
        (fault,) = ledger.faults()
        assert f"'invoice-{number}' does not follow" in fault
        with engine.begin() as connection:
            connection.execute(update(PAYMENTS).where(mine).values({column: before}))


def removed(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(delete(PAYMENTS).where(PAYMENTS.c.reference == "invoice-2"))


def added(engine: Engine) -> None:
    with engine.begin() as connection:
        row = connection.execute(select(PAYMENTS).where(PAYMENTS.c.reference == "invoice-2")).mappings().one()
        connection.execute(insert(PAYMENTS).values({**row, "reference": "invoice-99"}))


@pytest.mark.parametrize(
    ("change", "words"),
    [(removed, "'invoice-2' has events and no row"), (added, "'invoice-99' has no event")],
)
def test_a_row_that_was_removed_or_added_is_named(
    ledger: Ledger, engine: Engine, change: Callable[[Engine], None], words: str
) -> None:
    change(engine)
    (fault,) = ledger.faults()
    assert words in fault


def test_verifying_holds_no_writer_up(ledger: Ledger, engine: Engine) -> None:
    with ledger.transaction():
        assert ledger.faults() == []
