"""One of the listeners that share a connection, and the subscriptions of their channels."""

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
from airflow_provider_quoine.exchange.stream.inboxes import MessageQueue, RawMessage

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.errors import QuoineStreamError
    from airflow_provider_quoine.exchange.stream.inboxes import ChannelInbox


@dataclass(eq=False)
class Subscription:
    """
    The subscription of a channel, one for all of its listeners.

    :param timeout: seconds that the server has to confirm it.
    :param listeners: its listeners, in the order in which they came.
    :param confirmed: whether the server has confirmed it on the present connection.
    :param overdue_at: ``time.monotonic()`` of the end of the time-out; infinite if no confirmation is awaited.
    :param complaint: the server's words in an error that named no channel and came while this one was not confirmed.
    :param problem: why it is not confirmed, in words.
    """

    inbox: ChannelInbox
    timeout: float
    listeners: dict[Listener, None] = field(default_factory=dict)
    confirmed: bool = False
    overdue_at: float = inf
    complaint: str = ""
    problem: str = ""


class Listener:
    """
    One user of a shared connection: its channels, its queue, its gaps, and why it ended.

    :param queue_size: messages kept in its queue; None for no queue, only the newest message of each channel.
    """

    def __init__(self, channels: Collection[str], queue_size: int | None) -> None:
        self.channels = tuple(sorted(set(channels)))
        self.queue = None if queue_size is None else MessageQueue(queue_size)
        self.subscriptions: dict[str, Subscription] = {}
        """By channel; empty before it joins and after it fails."""
        self.woken = asyncio.Event()
        self.failure: QuoineStreamError | None = None
        self.gaps: list[StreamGap] = []
        self._up = False
        self._down_since: float | None = None
        self._changes = 0
        self._news_handed_out = 0

    @property
    def confirmed(self) -> bool:
        """Whether all its channels are confirmed on the present connection."""
        return bool(self.subscriptions) and all(each.confirmed for each in self.subscriptions.values())

    @property
    def gap_seconds(self) -> float:
        """Seconds of its gaps, those of an open one up to now included."""
        closed = sum((gap.until - gap.since).total_seconds() for gap in self.gaps if gap.until)
        return closed + (0.0 if self._down_since is None else time.monotonic() - self._down_since)

    def note_loss(self, since: float, reason: str) -> None:
        """
        Begin a gap, unless one is open or no event could come yet.

        :param since: ``time.monotonic()`` of its beginning.
        :param reason: why the connection was lost, in words.
        """
        if self._up:
            self._up, self._down_since = False, since
            began_at = datetime.now(UTC) - timedelta(seconds=time.monotonic() - since)
            self.gaps.append(StreamGap(began_at, None, reason))
        self._note_change()

    def note_confirmation(self) -> None:
        """End the gap, if all channels are confirmed."""
        if self.confirmed and not self._up:
            self._up = True
            self._end_gap()
        self._note_change()

    def fail(self, failure: QuoineStreamError) -> None:
        """End it, and its gap, for good."""
        self.failure = self.failure or failure
        self._end_gap()
        self._note_change()

    def raise_failure(self) -> None:
        """
        Raise the error that it ended with, if it has ended.

        :raises QuoineStreamError: a new one each time, because several tasks may wait.
        """
        if self.failure is not None:
            raise type(self.failure)(*self.failure.args) from self.failure.__cause__

    async def wait_for_news(self) -> None:
        """
        Wait until an event, a loss or a confirmation came since the last call.

        :raises QuoineStreamError: when the stream cannot go on.
        """
        while self._news == self._news_handed_out:
            self.raise_failure()
            await self._wait_for_more_than(self._news_handed_out)
        self.raise_failure()
        self._news_handed_out = self._news

    async def take(self) -> RawMessage:
        """
        Wait for the next message.

        :raises QuoineInputError: if there is no queue.
        :raises QuoineStreamError: when the stream cannot go on.
        """
        if self.queue is None:
            raise QuoineInputError("A stream without a queue keeps the newest only: give queue_size to iterate.")
        while True:
            # Read first: the thread puts a message into the queue before it counts it.
            news = self._news
            message = self.queue.take()
            if message is not None:
                return message
            self.raise_failure()
            await self._wait_for_more_than(news)

    @property
    def _news(self) -> int:
        """Messages, losses, confirmations and failures so far."""
        return self._changes + sum(each.inbox.count for each in self.subscriptions.values())

    async def _wait_for_more_than(self, news: int) -> None:
        self.woken.clear()
        for subscription in self.subscriptions.values():
            subscription.inbox.wanted = True
        # Checked again: a message that came before the thread could see "wanted" wakes nobody.
        if self._news == news:
            await self.woken.wait()

    def _end_gap(self) -> None:
        if self._down_since is not None:
            gap, seconds = self.gaps[-1], time.monotonic() - self._down_since
            self.gaps[-1] = StreamGap(gap.since, gap.since + timedelta(seconds=seconds), gap.reason)
            self._down_since = None

    def _note_change(self) -> None:
        self._changes += 1
        self.woken.set()
