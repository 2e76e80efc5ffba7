"""What people see of all payments, in a file and in PostgreSQL."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, update

from airflow_provider_quoine.desk import overview
from airflow_provider_quoine.desk.overview import Filter
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.records import Order
from airflow_provider_quoine.payments.schema import EVENTS, PAYMENTS, Note, Step
from airflow_provider_quoine.payments.transaction import as_text
from tests.payments.test_ledger import ORDER, send

pytestmark = pytest.mark.usefixtures("airflow_database")


def begin(ledger: Ledger, *references: str) -> list[Order]:
    """Begin payments, one after another."""
    orders = [replace(ORDER, reference=reference) for reference in references]
    for order in orders:
        ledger.prepare(order, actor="ann")
    return orders


def listed(ledger: Ledger, page: int = 1, **wanted: Any) -> list[str]:
    """The references of a page of the list."""
    found = overview.list_payments(ledger, Filter(**wanted), page=page)
    return [line.payment.order.reference for line in found.lines]


def lose(ledger: Ledger, order: Order, *, in_flight: timedelta = timedelta(seconds=-1)) -> None:
    """Send a payment and lose the answer."""
    send(ledger, order, uuid.uuid4().hex, in_flight=in_flight)
    found = ledger.find(order)
    assert found is not None
    assert ledger.finish(order, attempt=str(found.owner), step=Step.UNKNOWN, reason="lost")


def test_the_newest_are_first_and_pages_have_a_bound(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "PER_PAGE", 2)
    begin(ledger, "a", "b", "c", "d", "e")
    assert [listed(ledger, page=page) for page in (1, 2, 3, 4)] == [["e", "d"], ["c", "b"], ["a"], []]
    assert overview.list_payments(ledger, Filter(), page=2).pages == 3
    assert overview.list_payments(ledger, Filter(reference="none"), page=1).pages == 1


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"reference": "INV"}, ["invoice_2", "Invoice 1"]),
        ({"reference": "e_2"}, ["invoice_2"]),
        ({"reference": "%"}, ["100%"]),
        ({"reference": "ICE  1"}, []),
        ({"reference": "\uff11\uff10\uff10"}, ["100%"]),
        ({"reference": "\\"}, []),
        ({"step": "held"}, ["100%"]),
        ({"kind": "user"}, []),
        ({"until": datetime(2026, 1, 1, tzinfo=UTC)}, []),
        ({"since": datetime(2026, 1, 1, tzinfo=UTC), "step": "prepared"}, ["invoice_2", "Invoice 1"]),
    ],
)
def test_the_database_filters(ledger: Ledger, wanted: dict[str, Any], found: list[str]) -> None:
    *_, last = begin(ledger, "Invoice 1", "invoice_2", "100%")
    ledger.hold(last, who="ann", why="x")
    assert listed(ledger, **wanted) == found


def test_an_unknown_outcome_waits_at_once_and_what_is_still_sent_for_nobody(ledger: Ledger) -> None:
    first, second, third, fourth = begin(ledger, "a", "b", "c", "d")
    lose(ledger, first)
    send(ledger, second, "attempt", in_flight=timedelta(minutes=1))
    send(ledger, third, "attempt", in_flight=timedelta(seconds=-1))
    lose(ledger, fourth, in_flight=timedelta(minutes=1))
    waiting = overview.doubts(ledger, who="ann as user 1 of Airflow's page", user_id="1")
    assert [each.payment.order.reference for each in waiting] == ["a", "c", "d"]


def test_a_word_that_takes_back_what_a_person_has_recorded_waits_for_another(ledger: Ledger) -> None:
    (order,) = begin(ledger, "a")
    ledger.note(order, Note.APPROVED, actor="bob", user_id="5", connection="x", policy="y")
    lose(ledger, order)
    ledger.exists(order, exchange_id="5001", who="ann", why="seen")
    assert overview.doubts(ledger, who="bob", user_id="5") == []
    assert not ledger.absent(order, who="ann as user 1 of Airflow's page", why="mistaken", user_id="1")
    ((own,), (other,)) = (overview.doubts(ledger, who=who, user_id=id_) for who, id_ in (("anna", "1"), ("bob", "5")))
    assert (own.is_own, other.is_own) == (True, False)
    assert own.said_absent_by == other.said_absent_by == ("ann as user 1 of Airflow's page",)
    assert ledger.absent(order, who="bob", why="not there", user_id="5")
    assert overview.doubts(ledger, who="bob", user_id="5") == []


def test_rows_that_were_changed_by_other_means_do_not_hide_the_others(ledger: Ledger) -> None:
    first, second = begin(ledger, "a", "b")
    lose(ledger, first)
    with ledger.transaction() as at:
        at.connection.execute(update(EVENTS).where(EVENTS.c.number == 1).values(data="{", at="never"))
        of_second = {"reference": "c", "step": "unknown", "changed_at": as_text(at.now), "created_at": as_text(at.now)}
        fixed = dict.fromkeys(("account", "user_id", "address", "reason", "task"), "") | {"satoshis": 0}
        row = {"exchange": second.exchange, "kind": "withdrawal", **fixed, **of_second}
        at.connection.execute(insert(PAYMENTS).values(row))
    assert listed(ledger) == ["c", "b", "a"]
    assert len(overview.doubts(ledger, who="ann", user_id="1")) == 2


def test_a_connection_that_there_is_not_is_named_among_the_caps(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "MOST_CONNECTIONS", 1)
    for name in ("nowhere", "elsewhere"):
        ledger.prepare(replace(ORDER, reference=name, conn_id=name), actor="ann")
    (account,) = overview.accounts(ledger)
    assert (account.conn_id, account.caps) == ("elsewhere", ())
    assert "elsewhere" in account.why_not
