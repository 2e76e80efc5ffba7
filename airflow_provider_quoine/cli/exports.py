"""
Exports of the ledger's events: JSON Lines in any object store, with a file beside them that ties them to the chain.

Each line is an event with all that its hash is of, so the file can be checked without trusting who keeps it. What an
export has in it is an event of the chain too, so nobody can shorten it, or say that it is of another period.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any

import pendulum
from airflow.sdk import ObjectStoragePath

from airflow_provider_quoine.datasets.writing import whole_file
from airflow_provider_quoine.payments.chain import FIRST_HASH, HASHED, faults, hash_of
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.policy import start_of_day
from airflow_provider_quoine.payments.schema import EXPORTED

AT_ONCE = 500
"""Events that are in memory."""

LONGEST_LINE = 1024 * 1024
"""Bytes; no event comes near it."""

LARGEST_NUMBER = 2**63 - 1
"""Of an event, in either database."""

_COLUMNS = (*HASHED, "hash")


@dataclass(frozen=True, kw_only=True)
class Place:
    """
    A place in the chain.

    :param number: of an event; 0 stands before the first.
    :param hash: of that event.
    """

    number: int
    hash: str


@dataclass(frozen=True, kw_only=True)
class Tie:
    """
    What stands beside an export, and ties it to the chain.

    :param ledger: identity.
    :param since: begin of the period, ISO 8601.
    :param until: its end, which is not in it.
    :param timezone: whose days these are.
    :param count: events in the file.
    :param before: the event before the first one of the file.
    :param last: the last one of the file.
    :param head: the event ``exported`` of the chain, which says the same as all above.
    """

    ledger: str
    since: str
    until: str
    timezone: str
    count: int
    before: Place
    last: Place
    head: Place

    @classmethod
    def read(cls, text: bytes) -> Tie:
        """
        Read it from its file.

        :raises ValueError: if somebody has put something else there.
        """
        try:
            found = json.loads(text)
            tie = cls(**found | {name: Place(**found[name]) for name in ("before", "last", "head")})
        except (ValueError, TypeError, KeyError, RecursionError):
            raise ValueError("it is not as the export wrote it") from None
        if tie.as_bytes() != text:
            raise ValueError("it was edited")
        return tie

    def as_bytes(self) -> bytes:
        """Write it."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"

    @property
    def said(self) -> dict[str, Any]:
        """What the event in the chain says."""
        return {name: value for name, value in asdict(self).items() if name != "head"}


@dataclass(frozen=True, kw_only=True)
class Period:
    """
    Whole calendar days.

    :param first: day.
    :param last: day, which is in it.
    :param timezone: IANA name of the zone whose days these are.
    """

    first: date
    last: date
    timezone: str

    @classmethod
    def parse(cls, first: str, last: str, timezone: str) -> Period:
        """
        Read what a person has typed.

        :raises ValueError: if it is no period.
        """
        period = cls(first=date.fromisoformat(first), last=date.fromisoformat(last), timezone=timezone)
        if period.last < period.first:
            raise ValueError(f"{last} is before {first}")
        try:
            pendulum.timezone(timezone)
            # In UTC it may be in a year that there is not.
            period.since.astimezone(UTC), period.until.astimezone(UTC)
        except (OverflowError, OSError):
            raise ValueError(f"{first} to {last} in {timezone} cannot be computed") from None
        return period

    @property
    def since(self) -> datetime:
        """The first moment."""
        return self._begin(self.first)

    @property
    def until(self) -> datetime:
        """The first moment after it."""
        return self._begin(self.last + timedelta(days=1))

    def _begin(self, day: date) -> datetime:
        return start_of_day(pendulum.datetime(day.year, day.month, day.day, 12, tz=self.timezone), self.timezone)


def export(ledger: Ledger, path: str, period: Period, *, who: str) -> Tie:
    """
    Write the events of a period, from its first to its last one without a gap, and the tie beside them.

    The ledger has an event of it, even if the store fails at the very end.

    :param path: any that ``ObjectStoragePath`` knows.
    :param who: the person.
    :raises OSError: if the store refuses, or cannot be reached.
    """
    target = ObjectStoragePath(path)
    if not target.name or target.is_dir():
        raise IsADirectoryError("it is a folder; name a file")
    head, first, last = ledger.span(since=period.since, until=period.until)
    count, before = 0, _place(ledger, first - 1)
    place = before
    with whole_file(target, private=True) as file:
        for event in ledger.events(first, last):
            file.write(_line(event))
            count, place = count + 1, Place(number=event["number"], hash=event["hash"])
        tie = Tie(
            ledger=head.identity,
            since=period.since.isoformat(),
            until=period.until.isoformat(),
            timezone=period.timezone,
            count=count,
            before=before,
            last=place,
            head=place,
        )
        exported = ledger.exported(who=who, **tie.said)
    tie = replace(tie, head=Place(number=exported.number, hash=exported.hash))
    with whole_file(_beside(target), private=True) as file:
        file.write(tie.as_bytes())
    return tie


def tie_of(path: str) -> Tie:
    """
    Read what stands beside an export.

    :raises ValueError: if somebody has put something else there.
    :raises OSError: if it cannot be read.
    """
    return Tie.read(_beside(ObjectStoragePath(path)).read_bytes())


def faults_of_export(ledger: Ledger, path: str) -> Iterator[str]:
    """
    Name everything in an export that was edited, removed, added or moved, and what the ledger has not any more.

    :raises OSError: if it cannot be read.
    """
    target = ObjectStoragePath(path)
    name = _beside(target).name
    try:
        tie = tie_of(path)
    except ValueError as error:
        yield f"{name} cannot be used: {error}."
        return
    if tie.ledger != ledger.identity:
        yield f"The export is of another ledger ({tie.ledger}), not of this one ({ledger.identity})."
        return
    said_then = _exported(ledger, tie.head)
    if said_then is None:
        yield f"{name} names event {tie.head.number!r:.40}, and the ledger has no such export."
        return
    # From here on the ledger's word counts, not the file's.
    if edited := [each for each, value in tie.said.items() if _differs(value, said_then[each])]:
        yield f"{name} says otherwise than event {tie.head.number}, which the export has left: {', '.join(edited)}."
    before, last = Place(**said_then["before"]), Place(**said_then["last"])
    known = {0: FIRST_HASH} | ledger.hashes([before.number, last.number])
    for place in dict.fromkeys((before, last)):
        if known.get(place.number) != place.hash:
            yield f"The export names event {place.number}, which the ledger has not, or has otherwise."
    said: list[str] = []
    events = _compared(ledger, _read(target, said), said)
    yield from faults(events, head=last.number, head_hash=last.hash, after=before.number, after_hash=before.hash)
    yield from said


def _exported(ledger: Ledger, head: Place) -> dict[str, Any] | None:
    """Return what the event of an export says; None if the ledger has it not, or otherwise."""
    if type(head.number) is not int or not 0 < head.number <= LARGEST_NUMBER:
        return None
    for event in ledger.events(head.number, head.number):
        if event["event"] == EXPORTED and event["hash"] == head.hash == hash_of(event):
            found: dict[str, Any] = json.loads(event["data"])
            return found
    return None


def _differs(one: Any, other: Any) -> bool:
    # 1, 1.0 and True are the same to Python.
    return json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True)


def _read(target: ObjectStoragePath, said: list[str]) -> Iterator[dict[str, Any]]:
    with target.open("rb") as file:  # type: ignore[no-untyped-call]  # Airflow's
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
            event = _event(line)
            if event is None:
                said.append(f"Line {number} is no event, or was written otherwise.")
            else:
                yield event


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or tuple(event) != _COLUMNS:
        return None
    number, *texts = event.values()
    if type(number) is not int or not 0 < number <= LARGEST_NUMBER or not all(isinstance(text, str) for text in texts):
        return None
    try:
        # Blanks and escapes that somebody has changed are an edit too.
        return event if _line(event) == line else None
    except UnicodeEncodeError:
        # An escape that stands for no letter.
        return None


def _compared(ledger: Ledger, events: Iterator[dict[str, Any]], said: list[str]) -> Iterator[dict[str, Any]]:
    """Pass events on; say which of them the ledger has not."""
    while some := list(islice(events, AT_ONCE)):
        known = ledger.hashes([event["number"] for event in some])
        for event in some:
            if event["number"] not in known:
                said.append(f"Event {event['number']} is not in the ledger.")
            elif known[event["number"]] != event["hash"]:
                said.append(f"Event {event['number']} has another hash in the ledger.")
        yield from some


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps({name: event[name] for name in _COLUMNS}, ensure_ascii=False).encode() + b"\n"


def _place(ledger: Ledger, number: int) -> Place:
    return Place(number=number, hash=ledger.hashes([number]).get(number, FIRST_HASH))


def _beside(target: ObjectStoragePath) -> ObjectStoragePath:
    return target.parent / f"{target.name}.head.json"
