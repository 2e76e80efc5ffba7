"""The subject of snapshots: the newest event of each of its channels, parsed only for a snapshot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.stream.pusher import StreamEvent


class Snapshot(Protocol):
    """A subject at one moment."""

    @property
    def doubt(self) -> str | None:
        """Why it is doubtful, such as ``stale``; None if it is not."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data: numbers as plain digits in strings, times as ISO 8601 in UTC."""


class Subject(ABC):
    """
    An order book or a ticker. Events are parsed only for a snapshot, so the cost depends on the number of snapshots,
    not of events.

    :param channels: the channels to subscribe to. An event of each is needed for a snapshot.
    :param event: name of their events.
    """

    def __init__(self, *, channels: Collection[str], event: str) -> None:
        self.channels = channels
        self.newest: dict[str, StreamEvent] = {}
        """By channel."""
        self.event = event

    def update(self, event: StreamEvent) -> None:
        """Store an event, which replaces its channel's. Events of other names and channels are ignored."""
        if event.channel in self.channels and event.event == self.event:
            self.newest[event.channel] = event

    @abstractmethod
    def __str__(self) -> str:
        """Name it in messages."""

    @abstractmethod
    def snapshot(self, taken_at: datetime, *, due_at: datetime | None = None, stale: bool = False) -> Snapshot:
        """
        Take a snapshot.

        :param taken_at: now, aware and UTC.
        :param due_at: when it was due, if not now.
        :param stale: whether an event is not current any more. Only the stream can tell.
        :raises QuoineStreamDataError: if an event cannot be read.
        :raises KeyError: if a channel's event has not come yet.
        """


def age(received_at: datetime, due_at: datetime) -> float:
    """
    Return the age of data at the moment when a snapshot was due, in seconds.

    Data that came after that moment, before the snapshot was taken, has the age 0.
    """
    return max(0.0, (due_at - received_at).total_seconds())
