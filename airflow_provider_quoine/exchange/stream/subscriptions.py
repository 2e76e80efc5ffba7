"""Which channels are subscribed on a connection: counted by their users, confirmed one by one."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from airflow_provider_quoine.exchange.stream.listener import Subscription
from airflow_provider_quoine.exchange.stream.policy import ConnectionLostError, StreamTiming

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.stream.feeds import Feeds
    from airflow_provider_quoine.exchange.stream.listener import Share

log = logging.getLogger(__name__)

Send = Callable[[str, str], None]
"""Sends an event about a channel, such as ``pusher:subscribe``; does not wait."""


class Subscriptions:
    """
    All channels of the hub's connection. Each has one subscription however many shares want it: some servers
    deliver an event as often as its channel was subscribed (pusher notes, Protocol 7).

    A channel that is not confirmed in time is unsubscribed and subscribed again, with twice the patience each time, as
    long as another channel shows that the connection works: making a new one would cost all others a gap. If nothing
    is confirmed at all, the connection is given up.

    :param timing: how patient to be.
    :param feeds: what takes the events.
    :param refuse: called with a channel and the server's words when it refuses one; must make its users let go.
    """

    def __init__(self, *, timing: StreamTiming, feeds: Feeds, refuse: Callable[[str, str], None]) -> None:
        self._timing = timing
        self._feeds = feeds
        self.refuse = refuse
        self._by_channel: dict[str, Subscription] = {}
        self._send: Send | None = None
        self._owed: Counter[str] = Counter()

    @property
    def settled(self) -> bool:
        """Whether something is confirmed and nothing is waited for that was not overdue already."""
        some = any(subscription.confirmed for subscription in self._by_channel.values())
        return some and all(each.confirmed or each.problem for each in self._by_channel.values())

    @property
    def overdue_at(self) -> float:
        """``time.monotonic()`` when the server will have been silent for too long about a channel."""
        return min((subscription.overdue_at for subscription in self._by_channel.values()), default=inf)

    def shares_of(self, channel: str) -> tuple[Share, ...]:
        """Tell who wants a channel."""
        subscription = self._by_channel.get(channel)
        return tuple(subscription.shares) if subscription else ()

    def add(self, share: Share) -> None:
        """Subscribe to a share's channels, but for those that are subscribed already."""
        for channel in share.channels:
            subscription = self._by_channel.get(channel)
            if subscription is None:
                subscription = Subscription(self._feeds.open(channel), self._timing.subscribe)
                self._by_channel[channel] = subscription
                self._ask(subscription)
            subscription.shares[share] = None
            subscription.feed.listeners[share.woken] = None
            if share.queue is not None:
                subscription.feed.queues += (share.queue,)
            share.subscriptions[channel] = subscription
        share.note_confirmation()

    def remove(self, share: Share) -> None:
        """Let go of a share's channels; who lets go of one as the last ends its subscription."""
        for subscription in share.subscriptions.values():
            feed = subscription.feed
            del subscription.shares[share], feed.listeners[share.woken]
            feed.queues = tuple(queue for queue in feed.queues if queue is not share.queue)
            if not subscription.shares:
                del self._by_channel[feed.channel]
                self._feeds.close(feed.channel)
                if self._send:
                    self._send("pusher:unsubscribe", feed.channel)
        share.subscriptions = {}

    def begin(self, send: Send) -> None:
        """Subscribe to every channel on a new connection."""
        self._send = send
        self._owed.clear()
        for subscription in self._by_channel.values():
            subscription.patience = self._timing.subscribe
            self._ask(subscription)

    def end(self) -> None:
        """Take note that the connection is gone."""
        self._send = None
        for subscription in self._by_channel.values():
            subscription.confirmed, subscription.overdue_at, subscription.problem = False, inf, ""

    def confirm(self, channel: str) -> None:
        """Take note of ``subscription_succeeded``."""
        self._owed[channel] -= 1
        subscription = self._by_channel.get(channel)
        # More owed: this one answers a subscription that was ended and begun anew meanwhile.
        if subscription is None or subscription.confirmed or self._owed[channel] > 0:
            return
        subscription.confirmed, subscription.overdue_at, subscription.problem = True, inf, ""
        for share in subscription.shares:
            share.note_confirmation()

    def complain(self, words: str) -> None:
        """Take note of an error that names no channel: some servers refuse one so (pusher notes, Protocol 7)."""
        for subscription in self._by_channel.values():
            if not subscription.confirmed:
                subscription.complaint = words

    def check(self) -> None:
        """
        See to channels whose confirmation is overdue.

        :raises ConnectionLostError: if nothing at all is confirmed.
        """
        for channel, complaint in [(name, each.complaint) for name, each in self._overdue().items() if each.complaint]:
            self.refuse(channel, complaint)
        # Anew, because who is refused one channel lets go of others.
        overdue = self._overdue()
        if not overdue:
            return
        problem = f"the server did not confirm {', '.join(sorted(overdue))} in time"
        if not any(each.confirmed for each in self._by_channel.values()):
            raise ConnectionLostError(problem)
        for channel, subscription in overdue.items():
            if not subscription.problem:
                log.warning(
                    "A stream's channel stays silent: %s. It is asked for again until it is confirmed.", problem
                )
            subscription.problem = problem
            subscription.patience = min(
                subscription.patience * 2, max(self._timing.longest_wait, subscription.patience)
            )
            if self._send:
                self._send("pusher:unsubscribe", channel)
            self._owed[channel] = 0
            self._ask(subscription)

    def _overdue(self) -> dict[str, Subscription]:
        now = time.monotonic()
        return {channel: each for channel, each in self._by_channel.items() if each.overdue_at <= now}

    def _ask(self, subscription: Subscription) -> None:
        if self._send:
            self._send("pusher:subscribe", subscription.feed.channel)
            self._owed[subscription.feed.channel] += 1
            subscription.overdue_at = time.monotonic() + subscription.patience
            subscription.complaint = ""
