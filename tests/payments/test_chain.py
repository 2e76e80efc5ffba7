"""What the chain of the ledger's events names when somebody edits the database."""

from __future__ import annotations

import random
from typing import Any

import pytest

from airflow_provider_quoine.payments.chain import FIRST_HASH, HASHED, faults, hash_of

Event = dict[str, Any]
LENGTH = 10_000
TRIED = 1_000


def chain(length: int) -> list[Event]:
    """A chain of events as the ledger writes them."""
    events: list[Event] = []
    before = FIRST_HASH
    for number in range(1, length + 1):
        event: Event = {
            "number": number,
            "at": f"2026-01-01T00:00:{number % 60:02}.000000+00:00",
            "exchange": "https://exchange",
            "kind": "withdrawal",
            "reference": f"invoice-{number // 4}",
            "event": ("prepared", "sending", "sent", "exists")[number % 4],
            "actor": "ann",
            "data": f'{{"amount": "{number}"}}',
            "hash_before": before,
        }
        before = event["hash"] = hash_of(event)
        events.append(event)
    return events


WHOLE = chain(LENGTH)


def named(events: list[Event]) -> list[str]:
    """What is said of some events of the whole chain."""
    return list(faults(events, head=LENGTH, head_hash=WHOLE[-1]["hash"]))


def test_a_whole_chain_has_no_fault() -> None:
    assert named(WHOLE) == []


def edited(event: Event, column: str, chance: random.Random) -> Event:
    """Change one byte of a column."""
    text = event[column]
    where = chance.randrange(len(text))
    other = chance.choice([letter for letter in "0123456789abcdefz" if letter != text[where]])
    return {**event, column: text[:where] + other + text[where + 1 :]}


def test_every_edit_of_one_byte_is_named() -> None:
    chance = random.Random(1)
    events = list(WHOLE)
    numbers = sorted(chance.sample(range(1, LENGTH + 1), TRIED))
    for number in numbers:
        column = chance.choice([name for name in (*HASHED, "hash") if name != "number"])
        events[number - 1] = edited(events[number - 1], column, chance)
    assert named(events) == [f"Event {number} was edited: its content does not give its hash." for number in numbers]


def test_every_removal_is_named() -> None:
    chance = random.Random(2)
    # Every other one at most, so that each stands alone.
    numbers = sorted(2 * number for number in chance.sample(range(1, LENGTH // 2), TRIED))
    events = [event for event in WHOLE if event["number"] not in set(numbers)]
    assert named(events) == [f"Event {number} is missing." for number in numbers]


@pytest.mark.parametrize("last", [1, 3])
def test_a_removed_end_is_named(last: int) -> None:
    (said,) = named(WHOLE[:-last])
    assert said == (f"Event {LENGTH} is missing." if last == 1 else f"Events {LENGTH - 2} to {LENGTH} are missing.")


def test_every_swap_is_named() -> None:
    chance = random.Random(3)
    numbers = chance.sample(range(1, LENGTH + 1), 2 * TRIED)
    events = list(WHOLE)
    for one, other in zip(numbers[::2], numbers[1::2], strict=True):
        first, second = events[one - 1], events[other - 1]
        events[one - 1], events[other - 1] = {**second, "number": one}, {**first, "number": other}
    said = named(events)
    assert said == [f"Event {number} was edited: its content does not give its hash." for number in sorted(numbers)]


def test_an_event_that_was_replaced_together_with_its_hash_is_named() -> None:
    events = list(WHOLE)
    forged = {**events[499], "actor": "mallory"}
    events[499] = {**forged, "hash": hash_of(forged)}
    assert named(events) == ["Event 501 does not follow event 500: one of the two was replaced."]


def test_a_chain_that_was_forged_to_its_end_has_another_head() -> None:
    events, before = WHOLE[:499], WHOLE[498]["hash"]
    for event in WHOLE[499:]:
        forged = {**event, "actor": "mallory", "hash_before": before}
        before = forged["hash"] = hash_of(forged)
        events.append(forged)
    assert named(events) == [f"The chain's head has another hash than event {LENGTH}."]
