"""Snapshots of order books and tickers, taken from a stream when they are due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.exchange.errors import QuoineInputError, QuoineStreamDataError, QuoineStreamError
from airflow_provider_quoine.exchange.market.channels import PRICE_LADDERS, PRODUCTS
from airflow_provider_quoine.exchange.market.messages import decode_execution
from airflow_provider_quoine.exchange.market.order_book import OrderBook
from airflow_provider_quoine.exchange.market.pairs import Pair
from airflow_provider_quoine.exchange.market.ticker import Ticker

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.market.order_book import OrderBookSnapshot
    from airflow_provider_quoine.exchange.market.ticker import ProductSnapshot
    from airflow_provider_quoine.exchange.stream.pusher import PusherStream, StreamEvent


class OnDoubt(StrEnum):
    """What to do with a snapshot that is stale or crossed."""

    MARK = "mark"
    SKIP = "skip"
    FAIL = "fail"

    @classmethod
    def of(cls, given: str) -> OnDoubt:
        """
        Check what was given.

        :raises QuoineInputError: if it is none of them.
        """
        if given not in list(cls):
            raise QuoineInputError(f"on_doubt is {given!r}: give one of {', '.join(cls)}.")
        return cls(given)


class QuoineDoubtfulSnapshotError(QuoineStreamError):
    """A snapshot is stale or crossed, and ``on_doubt`` makes that a failure."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """
    The subject of snapshots: an order book or a ticker.

    :param what: its name in messages.
    :param channels: an event of each is needed for a snapshot.
    :param event: name of their events.
    :param update: stores an event.
    :param snapshot: parses the stored events.
    """

    what: str
    channels: Collection[str]
    event: str
    update: Callable[[StreamEvent], None]
    snapshot: Callable[..., OrderBookSnapshot | ProductSnapshot]


def order_book(*, pair: Pair, depth: int | None) -> Subject:
    """
    Return a pair's order book as the subject of snapshots.

    :param depth: rows to keep of each side, best first; None keeps all.
    :raises QuoineInputError: if the depth is not above zero.
    """
    if depth is not None and (type(depth) is not int or depth < 1):
        raise QuoineInputError(f"depth is {depth!r}: give a whole number above 0, or leave it out for all rows.")
    book = OrderBook(pair=pair)
    return Subject(
        what=f"order book of {book.pair}",
        channels=tuple(book.channels),
        event=PRICE_LADDERS.event,
        update=book.update,
        snapshot=partial(book.snapshot, depth=depth),
    )


def product(*, pair: Pair, product_id: int | None) -> Subject:
    """
    Return a product's ticker as the subject of snapshots.

    :param product_id: the exchange's number; None where it is on record.
    :raises QuoineInputError: if it is not above zero, or not given and not on record.
    """
    ticker = Ticker(pair=pair, product_id=product_id)
    return Subject(
        what=f"ticker of {ticker.pair}",
        channels=ticker.channels,
        event=PRODUCTS.event,
        update=ticker.update,
        snapshot=ticker.snapshot,
    )


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

    :param on_doubt: what to do with snapshots that are stale or crossed.
    :ivar problem: why the last snapshot could not be read; empty if it was read.
    """

    def __init__(self, subject: Subject, stream: PusherStream, *, on_doubt: OnDoubt) -> None:
        self.subject = subject
        self.stream = stream
        self.problem = ""
        self._on_doubt = on_doubt
        self._newest: dict[str, StreamEvent] = {}

    @property
    def silent(self) -> list[str]:
        """Channels without a current event."""
        newest = self._newest
        return [
            channel
            for channel in self.subject.channels
            if channel not in newest or not self.stream.is_current(newest[channel])
        ]

    def pull(self) -> bool:
        """
        Store the newest event of every channel, without parsing it.

        :return: whether every channel has one that is current; see
            :meth:`~airflow_provider_quoine.exchange.stream.pusher.PusherStream.is_current`.
        """
        for channel in self.subject.channels:
            event = self.stream.newest(channel)
            if event is not None and event.event == self.subject.event:
                self._newest[channel] = event
                self.subject.update(event)
        return not self.silent

    async def pull_first(self) -> None:
        """
        Wait until every channel has a current event.

        :raises QuoineStreamError: when the stream cannot go on.
        """
        while not self.pull():
            await self.stream.news()

    async def pull_at(self, due_at: datetime) -> bool:
        """
        Store the newest event of every channel at a moment.

        :return: as :meth:`pull`.
        :raises QuoineStreamError: when the stream cannot go on.
        """
        # In a loop, because the event loop's clock and the wall clock differ by microseconds.
        while (rest := (due_at - datetime.now(UTC)).total_seconds()) > 0:  # noqa: ASYNC110 - nothing sets an event
            await asyncio.sleep(rest)
        if not self.stream.confirmed:
            with suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await self.stream.news()
        return self.pull()

    async def take(self, due_at: datetime) -> OrderBookSnapshot | ProductSnapshot | None:
        """
        Take a snapshot at a moment.

        :return: as :meth:`parse`.
        :raises QuoineStreamError: when the stream cannot go on.
        :raises QuoineDoubtfulSnapshotError: as :meth:`parse`.
        """
        fresh = await self.pull_at(due_at)
        return await self.parse(due_at=due_at, fresh=fresh)

    async def parse(self, *, due_at: datetime, fresh: bool) -> OrderBookSnapshot | ProductSnapshot | None:
        """
        Parse the stored events. Samplers of one connection take turns, so that other tasks run between them.

        :param due_at: when the snapshot was due.
        :param fresh: what :meth:`pull` returned.
        :return: None if the snapshot is skipped because of doubt, or cannot be read; then ``problem`` says why.
        :raises QuoineDoubtfulSnapshotError: if the snapshot is in doubt, and ``on_doubt`` makes that a failure.
        """
        self.problem = ""
        async with self.stream.turn():
            try:
                snapshot = self.subject.snapshot(datetime.now(UTC), due_at=due_at, stale=not fresh)
            except QuoineStreamDataError as error:
                self.problem = str(error)
                return None
        if snapshot.doubt and self._on_doubt == OnDoubt.FAIL:
            raise QuoineDoubtfulSnapshotError(
                f"The {self.subject.what} due at {due_at.isoformat()} is {snapshot.doubt}, which on_doubt='fail' makes "
                f"a failure. {QuoineDoubtfulSnapshotError.advice}"
            )
        return None if snapshot.doubt and self._on_doubt == OnDoubt.SKIP else snapshot

    def silence(self, waited: timedelta) -> str:
        """
        Return why there was no snapshot, in words.

        :param waited: how long the stream was listened to.
        """
        stream, silent, channels = self.stream, self.silent, " and ".join(self.subject.channels)
        words = [f"No {self.subject.what} within {waited.total_seconds():g} s on {channels}."]
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
