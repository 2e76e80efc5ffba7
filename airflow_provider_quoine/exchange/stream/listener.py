"""A channel's subscription, and one user's share in a connection: its channels, its gaps, and why it ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.stream.events import StreamGap
from airflow_provider_quoine.exchange.stream.feeds import Arrival, EventQueue

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.errors import QuoineStreamError
    from airflow_provider_quoine.exchange.stream.feeds import Feed


@dataclass(eq=False)
class Subscription:
    """
    A channel that somebody wants.

    :param feed: its events.
    :param shares: whose it is.
    :param confirmed: whether the server has confirmed it on the present connection.
    :param patience: seconds that the server gets to confirm it.
    :param overdue_at: ``time.monotonic()`` when that has passed; infinite if nothing was asked.
    :param complaint: what the server said, of no channel in particular, while this one was not confirmed.
    :param problem: why it is not confirmed, in words.
    """

    feed: Feed
    patience: float
    shares: dict[Share, None] = field(default_factory=dict)
    confirmed: bool = False
    overdue_at: float = inf
    complaint: str = ""
    problem: str = ""


class Share:
    """
    What one user has of a connection that many use.

    :param channels: what it wants to hear.
    :param queue_size: messages kept for it; None keeps the newest of each channel only.
    """

    def __init__(self, channels: Collection[str], queue_size: int | None) -> None:
        self.channels = tuple(sorted(set(channels)))
        self.queue = None if queue_size is None else EventQueue(queue_size)
        self.subscriptions: dict[str, Subscription] = {}
        """By channel; empty before it joined and after it failed."""
        self.woken = asyncio.Event()
        self.failure: QuoineStreamError | None = None
        self.gaps: list[StreamGap] = []
        self._up = False
        self._down_since: float | None = None
        self._changes = 0
        self._seen = 0

    @property
    def confirmed(self) -> bool:
        """Whether all its channels are subscribed on the present connection."""
        return bool(self.subscriptions) and all(each.confirmed for each in self.subscriptions.values())

    @property
    def gap_seconds(self) -> float:
        """Seconds of its gaps, an open one up to now."""
        closed = sum((gap.until - gap.since).total_seconds() for gap in self.gaps if gap.until)
        return closed + (0.0 if self._down_since is None else time.monotonic() - self._down_since)

    def note_loss(self, since: float, reason: str) -> None:
        """
        Begin a gap, if there was anything to lose.

        :param since: ``time.monotonic()`` of the last sign of life.
        """
        if self._up:
            self._up, self._down_since = False, since
            began_at = datetime.now(UTC) - timedelta(seconds=time.monotonic() - since)
            self.gaps.append(StreamGap(began_at, None, reason))
        self._note_change()

    def note_confirmation(self) -> None:
        """End the gap, if all is confirmed."""
        if self.confirmed and not self._up:
            self._up = True
            self._end_gap()
        self._note_change()

    def fail(self, failure: QuoineStreamError) -> None:
        """End it for good, and with it its gap."""
        self.failure = self.failure or failure
        self._end_gap()
        self._note_change()

    def raise_failure(self) -> None:
        """
        Tell why it ended, if it did.

        :raises QuoineStreamError: a fresh one each time, since several may wait.
        """
        if self.failure is not None:
            raise type(self.failure)(*self.failure.args) from self.failure.__cause__

    async def wait_for_news(self) -> None:
        """
        Wait until an event, a loss or a confirmation came since the last call.

        :raises QuoineStreamError: when the stream cannot go on.
        """
        while self._told == self._seen:
            self.raise_failure()
            await self._wait_for_more_than(self._seen)
        self.raise_failure()
        self._seen = self._told

    async def take(self) -> Arrival:
        """
        Wait for the next message.

        :raises QuoineInputError: if there is no queue.
        :raises QuoineStreamError: when the stream cannot go on.
        """
        if self.queue is None:
            raise QuoineInputError("A stream without a queue keeps the newest only: give queue_size to iterate.")
        while True:
            # First, as the thread counts a message only when it is in the queue.
            told = self._told
            arrival = self.queue.take()
            if arrival is not None:
                return arrival
            self.raise_failure()
            await self._wait_for_more_than(told)

    @property
    def _told(self) -> int:
        """How much there was to tell so far."""
        return self._changes + sum(each.feed.count for each in self.subscriptions.values())

    async def _wait_for_more_than(self, told: int) -> None:
        self.woken.clear()
        for subscription in self.subscriptions.values():
            subscription.feed.wanted = True
        # Asked again, because what came before the thread could see that it is wanted wakes nobody.
        if self._told == told:
            await self.woken.wait()

    def _end_gap(self) -> None:
        if self._down_since is not None:
            gap, seconds = self.gaps[-1], time.monotonic() - self._down_since
            self.gaps[-1] = StreamGap(gap.since, gap.since + timedelta(seconds=seconds), gap.reason)
            self._down_since = None

    def _note_change(self) -> None:
        self._changes += 1
        self.woken.set()
