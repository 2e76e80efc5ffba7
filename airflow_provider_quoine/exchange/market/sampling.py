"""Snapshots of order books and tickers, taken from a stream when they are due."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.exchange.errors import QuoineStreamDataError, QuoineStreamError
from airflow_provider_quoine.exchange.market.messages import decode_execution, decoding

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.market.subject import Snapshot, Subject
    from airflow_provider_quoine.exchange.stream.pusher import PusherStream, StreamEvent


log = logging.getLogger(__name__)

LOOK_INTERVAL = 0.5
"""Seconds between two looks at the wall clock while a snapshot is not due."""


class OnDoubt(StrEnum):
    """The treatment of a snapshot that is stale or crossed: said in it, left out, or a failure."""

    MARK = "mark"
    SKIP = "skip"
    FAIL = "fail"


class QuoineDoubtfulSnapshotError(QuoineStreamError):
    """A snapshot is stale or crossed, and ``on_doubt`` makes that a failure."""


def execution_row(event: StreamEvent) -> dict[str, Any]:
    """Return an execution as JSON-able data. If it cannot be read, its text is under ``unreadable``."""
    row = {"received_at": event.received_at.isoformat(), "connection": event.connection}
    try:
        return {**row, **decode_execution(event.data).as_dict()}
    except QuoineStreamDataError:
        return {**row, "unreadable": event.data}


class Sampler:
    """
    Takes snapshots of a subject from a stream.

    :param on_doubt: how a snapshot is treated that is stale or crossed.
    :ivar problem: why the last snapshot could not be read; empty if it was read. It is logged once, until one is read.
    :ivar unreadable: how many snapshots could not be read.
    """

    def __init__(self, subject: Subject, stream: PusherStream, *, on_doubt: OnDoubt) -> None:
        self.subject = subject
        self.stream = stream
        self.problem = ""
        self.unreadable = 0
        self._on_doubt = on_doubt

    @property
    def silent(self) -> list[str]:
        """Channels without a current event."""
        newest = self.subject.newest
        return [
            channel
            for channel in self.subject.channels
            if channel not in newest or not self.stream.is_current(newest[channel])
        ]

    def pull(self) -> bool:
        """
        Store the newest event of every channel, of those with the subject's name, without parsing it.

        :return: whether every channel has one that is current; see
            :meth:`~airflow_provider_quoine.exchange.stream.pusher.PusherStream.is_current`.
        """
        for channel in self.subject.channels:
            event = self.stream.newest(channel, self.subject.event)
            if event is not None:
                self.subject.update(event)
        return not self.silent

    async def pull_first(self) -> None:
        """
        Wait until every channel has a current event.

        :raises QuoineStreamError: when the stream cannot go on.
        """
        while not self.pull():
            await self.stream.news()

    async def take(self, due_at: datetime) -> Snapshot | None:
        """
        Take a snapshot at a moment.

        :return: as :meth:`parse`.
        :raises QuoineStreamError: when the stream cannot go on.
        :raises QuoineDoubtfulSnapshotError: as :meth:`parse`.
        """
        # The wall clock is looked at again: it may be set, and differs from the event loop's by microseconds anyway.
        while (rest := (due_at - datetime.now(UTC)).total_seconds()) > 0:  # noqa: ASYNC110 - nothing sets an event
            await asyncio.sleep(min(rest, LOOK_INTERVAL))
        if not self.stream.confirmed:
            with suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await self.stream.news()
        self.pull()
        return await self.parse(due_at=due_at)

    async def parse(self, *, due_at: datetime) -> Snapshot | None:
        """
        Parse the stored events. Samplers of an event loop do so one at a time, and other tasks run in between.

        :param due_at: when the snapshot was due.
        :return: None if the snapshot is skipped because of doubt, or cannot be read; then ``problem`` says why.
        :raises QuoineDoubtfulSnapshotError: if the snapshot is in doubt, and ``on_doubt`` makes that a failure.
        """
        stale = bool(self.silent)
        async with decoding():
            try:
                snapshot = self.subject.snapshot(datetime.now(UTC), due_at=due_at, stale=stale)
            except QuoineStreamDataError as error:
                if not self.problem:
                    log.warning("No snapshot of the %s while it cannot be read. %s", self.subject, error)
                self.problem = str(error)
                self.unreadable += 1
                return None
        self.problem = ""
        if snapshot.doubt and self._on_doubt == OnDoubt.FAIL:
            raise QuoineDoubtfulSnapshotError(
                f"The {self.subject} due at {due_at.isoformat()} is {snapshot.doubt}, which on_doubt='fail' makes "
                f"a failure. {QuoineDoubtfulSnapshotError.advice}"
            )
        return None if snapshot.doubt and self._on_doubt == OnDoubt.SKIP else snapshot

    def silence(self, waited: timedelta) -> str:
        """
        Return why there was no snapshot, in words.

        :param waited: how long the stream was listened to.
        """
        stream, silent, channels = self.stream, self.silent, " and ".join(self.subject.channels)
        words = [f"No {self.subject} within {waited.total_seconds():g} s on {channels}."]
        if not stream.connections:
            words.append(f"The stream's server was never reached: {stream.problem}.")
        elif stream.problem:
            words.append(f"The connection was made, but in the end there was none: {stream.problem}.")
        if stream.confirmed and silent:
            words.append(
                f"Nothing came on {' and '.join(silent)}. The exchange sends nothing on subscription, only changes, so "
                "a quiet pair needs a longer time-out; a misspelt pair gives no error either, only silence."
            )
        return " ".join([*words, self.problem]).strip()
