"""The chain of hashes over the ledger's events, by which an edit, a removal or a swap shows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

FIRST_HASH = "0" * 64
"""Stands before the first event."""

HASHED = ("number", "at", "exchange", "kind", "reference", "event", "actor", "data", "hash_before")


def hash_of(event: Mapping[str, Any]) -> str:
    """
    Return the SHA-256 of an event, in hex.

    :param event: with the columns of :data:`HASHED`.
    """
    content = json.dumps([event[name] for name in HASHED], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def faults(
    events: Iterable[Mapping[str, Any]], *, head: int, head_hash: str, after: int = 0, after_hash: str = FIRST_HASH
) -> Iterator[str]:
    """
    Name every event that was edited, removed, added or put elsewhere.

    :param events: all of them, in their order.
    :param head: number of the last one, as the ledger has it.
    :param head_hash: the last one's hash.
    :param after: number of the event before the first one, if it is a part of the chain.
    :param after_hash: that one's hash.
    """
    expected, before = after + 1, after_hash
    for event in events:
        number = event["number"]
        if not isinstance(number, int):
            yield f"An event has {number!r:.40} for its number: it was edited."
            continue
        edited = _was_edited(event)
        if number < expected:
            yield f"Event {number} stands behind event {expected - 1}: it was moved there, or is there twice."
        elif number > expected:
            yield _missing(expected, number - 1)
        if edited:
            yield f"Event {number} was edited: its content does not give its hash."
        elif number == expected and before not in ("", event["hash_before"]):
            yield f"Event {number} does not follow event {number - 1}: one of the two was replaced."
        # An event that was edited or moved is named already, and does not accuse the one after it.
        if number >= expected:
            expected, before = number + 1, "" if edited else event["hash"]
    if expected - 1 < head:
        yield _missing(expected, head)
    elif expected - 1 > head:
        yield f"The chain's head is event {head}, and there are events up to {expected - 1}."
    elif before not in ("", head_hash):
        yield f"The chain's head has another hash than event {head}."


def _was_edited(event: Mapping[str, Any]) -> bool:
    try:
        return bool(hash_of(event) != event["hash"])
    except (TypeError, ValueError):
        # SQLite keeps bytes in a column of text.
        return True


def _missing(first: int, last: int) -> str:
    return f"Event {first} is missing." if first == last else f"Events {first} to {last} are missing."
