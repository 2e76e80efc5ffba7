"""What a watcher knows, as data that survives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Self

from airflow_provider_quoine.exchange.market.conditions import Position

VERSION = 1
"""Of the stored form; what another version has stored is not read."""

Event = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class WatcherMemory:
    """
    What a watcher knows at one moment.

    :param life: name of the watcher's life, which ends when its process does.
    :param position: where the market was when it was judged last; None if it never was.
    :param as_of: when the data came by which it was judged last. Of what came later nothing is known.
    :param seen_since: since when everything has been seen, up to then.
    :param last: moment and id of the last event of each direction.
    :param suppressed: events since the last one that a cooldown suppressed.
    :param missed_trades: trades since the last event that were lost unseen.
    :param unknown_since: beginning of a time since the last event in which something may have happened unseen.
    :param unknown_until: its end. Several such times count as one.
    :param told: events that Airflow may not have stored yet, each with the moment at which it was told.
    """

    life: str = ""
    position: Position | None = None
    as_of: datetime | None = None
    seen_since: datetime | None = None
    last: dict[str, tuple[datetime, str]] = field(default_factory=dict)
    suppressed: int = 0
    missed_trades: int = 0
    unknown_since: datetime | None = None
    unknown_until: datetime | None = None
    told: list[tuple[datetime, Event]] = field(default_factory=list)

    def add_unknown(self, since: datetime | None, until: datetime | None) -> None:
        """Add a time in which something may have happened unseen; None for none."""
        if since and until:
            self.unknown_since = min(since, self.unknown_since or since)
            self.unknown_until = max(until, self.unknown_until or until)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        known = {each.name: getattr(self, each.name) for each in fields(self)}
        return {"version": VERSION, **{name: _plain(value) for name, value in known.items()}}

    @classmethod
    def of(cls, stored: Any) -> Self:
        """
        Make it again from what :meth:`as_json` has returned.

        :raises ValueError: if it is anything else.
        """
        try:
            given = dict(stored)
            if given.pop("version") != VERSION:
                raise ValueError("it is of another version")
            return cls(
                life=str(given["life"]),
                position=Position(given["position"]) if given["position"] else None,
                as_of=_moment(given["as_of"]),
                seen_since=_moment(given["seen_since"]),
                last={str(way): (_known(at), str(id_)) for way, (at, id_) in given["last"].items()},
                suppressed=int(given["suppressed"]),
                missed_trades=int(given["missed_trades"]),
                unknown_since=_moment(given["unknown_since"]),
                unknown_until=_moment(given["unknown_until"]),
                told=[(_known(at), _event(event)) for at, event in given["told"]],
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"it is no memory of a watcher: {error!r}") from error


def recent(moment: datetime, now: datetime, seconds: float) -> bool:
    """Tell whether a moment is at most some seconds from now. After a jump of the clock none is."""
    return abs(now - moment) <= timedelta(seconds=seconds)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Position):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _known(value: Any) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError(f"{value} has no offset")
    return moment


def _moment(value: Any) -> datetime | None:
    return None if value is None else _known(value)


def _event(value: Any) -> Event:
    """See that an event has what a watcher reads in it."""
    event = dict(value)
    _known(event["at"])
    for name in ("gap_since", "unknown_since", "unknown_until"):
        _moment(event[name])
    if not all(type(event[name]) is kind for name, kind in _TYPES.items()):
        raise ValueError("an event in it is none")
    return event


_TYPES = {"event": str, "event_id": str, "seen_after_gap": bool, "suppressed": int, "missed_trades": int}
