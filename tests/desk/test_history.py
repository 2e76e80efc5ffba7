"""What is told of one payment: its events in words, and whether its rows are as they were written."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import delete, update

from airflow_provider_quoine.desk import history
from airflow_provider_quoine.desk.words import WORDS, in_words
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.records import Event
from airflow_provider_quoine.payments.schema import EVENTS, LATE, PAYMENTS, Note, Step
from tests.payments.test_ledger import ORDER, send

OTHER = replace(ORDER, reference="invoice-2")


@pytest.fixture
def told(ledger: Ledger) -> Ledger:
    """A ledger with two payments whose events stand between each other; invoice-1 has events 1, 3, 5."""
    ledger.prepare(ORDER, actor="task")
    ledger.prepare(OTHER, actor="task")
    send(ledger, ORDER, "a")
    send(ledger, OTHER, "b")
    assert ledger.finish(ORDER, attempt="a", step=Step.SENT, exchange_id="5001", state="pending")
    return ledger


def faults(ledger: Ledger, **edit: Any) -> list[str]:
    """What is wrong after an edit of event 3."""
    with ledger.transaction() as at:
        at.connection.execute(update(EVENTS).where(EVENTS.c.number == 3).values(**edit))
    return history.tell(ledger, ORDER).faults


def test_a_payment_is_whole(told: Ledger) -> None:
    tale = history.tell(told, ORDER)
    assert ([event.number for event in tale.shown], tale.faults) == ([1, 3, 5], [])
    assert history.tell(told, OTHER).faults == []


def test_an_attempt_is_told_by_its_task(told: Ledger) -> None:
    tale = history.tell(told, ORDER)
    first, sending, sent = tale.events
    assert sent.actor == "a"
    assert tale.who(sent) == tale.who(sending) == sending.actor
    assert tale.who(first) == "task"


def test_of_many_events_the_newest_are_told(told: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_EVENTS", 2)
    tale = history.tell(told, ORDER)
    assert ([event.number for event in tale.shown], len(tale.events), tale.faults) == ([3, 5], 3, [])


@pytest.mark.parametrize("edit", [{"actor": "nobody"}, {"data": "{}"}, {"hash_before": "0" * 64}, {"hash": "0" * 64}])
def test_an_event_that_was_edited_is_named(told: Ledger, edit: dict[str, Any]) -> None:
    assert any("Event 3 was edited" in fault for fault in faults(told, **edit))


def test_an_event_before_that_was_replaced_is_seen(told: Ledger) -> None:
    with told.transaction() as at:
        at.connection.execute(update(EVENTS).where(EVENTS.c.number == 2).values(hash="0" * 64))
    assert history.tell(told, ORDER).faults == ["Event 3 does not follow event 2: one of the two was replaced."]


def test_an_event_before_that_is_missing_is_named(told: Ledger) -> None:
    with told.transaction() as at:
        at.connection.execute(delete(EVENTS).where(EVENTS.c.number == 2))
    assert history.tell(told, ORDER).faults == ["Event 2 is missing."]


def test_a_row_that_does_not_follow_from_its_events_is_told(told: Ledger) -> None:
    with told.transaction() as at:
        at.connection.execute(update(PAYMENTS).where(PAYMENTS.c.reference == "invoice-1").values(exchange_id="7"))
    assert history.tell(told, ORDER).faults == [
        "Payment 'invoice-1' does not follow from its events: exchange_id was edited."
    ]
    assert history.tell(told, OTHER).faults == []


def test_of_a_payment_without_events_nothing_is_believed(told: Ledger) -> None:
    """The page of such a payment asks the same, and has to say what is wrong."""
    with told.transaction() as at:
        at.connection.execute(delete(EVENTS).where(EVENTS.c.reference == ORDER.reference))
    tale = history.tell(told, ORDER)
    assert tale.faults == ["Payment 'invoice-1' has no event: its row was added."]
    events = tale.events
    assert (events.may_be_corrected, events.is_released, events.late_id, events.said_absent) == (False, False, "", [])


def test_every_event_has_words() -> None:
    assert {*Step, *Note, *LATE, "answered", "released", "exists", "absent"} - {Step.PREPARED} == {*WORDS}


@pytest.mark.parametrize(
    ("event", "data", "words"),
    [
        ("prepared", {"amount": "0.5", "address": "{x}", "account": "7"}, "Began it: 0.5 BTC to {x}, account 7."),
        ("prepared", {"amount": "0", "address": "", "account": "7"}, "Began it, account 7."),
        ("prepared", {"exchange_id": None, "reason": "busy"}, "Was not sent: busy"),
        (
            "exists",
            {"exchange_id": "5", "why": "{why.__class__}"},
            "It exists at the exchange as 5: {why.__class__} It was not compared with the exchange.",
        ),
        (
            "sending",
            {"in_doubt_until": "2026-11-27T00:24:18.210217+00:00"},
            "Began to send it. The request may be under way until 2026-11-27 00:24:18 UTC.",
        ),
        ("sent", {}, "The exchange has accepted it as : ."),
        ("{new}", {"a": 1}, "new"),
    ],
)
def test_an_event_is_told_in_words(event: str, data: dict[str, Any], words: str) -> None:
    assert in_words(Event(number=1, at=datetime.now(UTC), event=event, actor="x", data=data)) == words
