"""The channels of a connection: subscribed once for all their listeners, confirmed one by one."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from airflow_provider_quoine.exchange.stream.close_codes import ConnectionLostError
from airflow_provider_quoine.exchange.stream.listener import Subscription

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.stream.inboxes import Inboxes
    from airflow_provider_quoine.exchange.stream.listener import Listener
    from airflow_provider_quoine.exchange.stream.timing import StreamTiming

log = logging.getLogger(__name__)

Send = Callable[[str, str], None]
"""Sends an event about a channel, such as ``pusher:subscribe``; does not wait."""


class Subscriptions:
    """
    The subscriptions of the hub's connection, one for each channel, however many listeners it has: some servers
    deliver an event as often as its channel was subscribed (pusher, Protocol 7).

    A channel that is not confirmed in time is unsubscribed and subscribed again, with a time-out that doubles each
    time, as long as another channel is confirmed. A new connection would cost the listeners of all other channels a
    gap. If no channel at all is confirmed, the connection is given up.

    :param timing: its ``subscribe_timeout`` and ``longest_wait`` are used.
    :param refuse: called with a channel and the server's words when the server refuses it; must remove its listeners.
    """

    def __init__(self, *, timing: StreamTiming, inboxes: Inboxes, refuse: Callable[[str, str], None]) -> None:
        self._timing = timing
        self._inboxes = inboxes
        self.refuse = refuse
        self._by_channel: dict[str, Subscription] = {}
        self._send: Send | None = None
        self._unanswered: Counter[str] = Counter()

    @property
    def settled(self) -> bool:
        """Whether some channel is confirmed, and each of the others is confirmed or overdue."""
        some = any(subscription.confirmed for subscription in self._by_channel.values())
        return some and all(each.confirmed or each.problem for each in self._by_channel.values())

    @property
    def overdue_at(self) -> float:
        """``time.monotonic()`` when the next confirmation becomes overdue."""
        return min((subscription.overdue_at for subscription in self._by_channel.values()), default=inf)

    def listeners_of(self, channel: str) -> tuple[Listener, ...]:
        """Return the listeners of a channel."""
        subscription = self._by_channel.get(channel)
        return tuple(subscription.listeners) if subscription else ()

    def add(self, listener: Listener) -> None:
        """Add a listener to its channels; subscribe to those that it is the first for."""
        for channel in listener.channels:
            subscription = self._by_channel.get(channel)
            if subscription is None:
                subscription = Subscription(self._inboxes.open(channel), self._timing.subscribe_timeout)
                self._by_channel[channel] = subscription
                self._subscribe(subscription)
            subscription.listeners[listener] = None
            subscription.inbox.wake_ups[listener.woken] = None
            if listener.queue is not None:
                subscription.inbox.queues += (listener.queue,)
            listener.subscriptions[channel] = subscription
        listener.note_confirmation()

    def remove(self, listener: Listener) -> None:
        """Remove a listener from its channels; unsubscribe from those that it was the last for."""
        for subscription in listener.subscriptions.values():
            inbox = subscription.inbox
            del subscription.listeners[listener], inbox.wake_ups[listener.woken]
            inbox.queues = tuple(queue for queue in inbox.queues if queue is not listener.queue)
            if not subscription.listeners:
                del self._by_channel[inbox.channel]
                self._inboxes.close(inbox.channel)
                if self._send:
                    self._send("pusher:unsubscribe", inbox.channel)
        listener.subscriptions = {}

    def begin(self, send: Send) -> None:
        """Subscribe to every channel on a new connection."""
        self._send = send
        self._unanswered.clear()
        for subscription in self._by_channel.values():
            subscription.timeout = self._timing.subscribe_timeout
            self._subscribe(subscription)

    def end(self) -> None:
        """Note that the connection is gone."""
        self._send = None
        for subscription in self._by_channel.values():
            subscription.confirmed, subscription.overdue_at, subscription.problem = False, inf, ""

    def confirm(self, channel: str) -> None:
        """Note a ``subscription_succeeded``."""
        self._unanswered[channel] -= 1
        subscription = self._by_channel.get(channel)
        # More answers are due: this one is for an earlier subscription, ended and made again meanwhile.
        if subscription is None or subscription.confirmed or self._unanswered[channel] > 0:
            return
        subscription.confirmed, subscription.overdue_at, subscription.problem = True, inf, ""
        for listener in subscription.listeners:
            listener.note_confirmation()

    def complain(self, words: str) -> None:
        """Note an error that names no channel: some servers refuse a channel that way (pusher, Protocol 7)."""
        for subscription in self._by_channel.values():
            if not subscription.confirmed:
                subscription.complaint = words

    def check(self) -> None:
        """
        Refuse each overdue channel that the server complained about; subscribe again to the other overdue ones.

        :raises ConnectionLostError: if no channel at all is confirmed.
        """
        for channel, complaint in [(name, each.complaint) for name, each in self._overdue().items() if each.complaint]:
            self.refuse(channel, complaint)
        # Computed again: a listener that is refused one channel leaves its others too.
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
            subscription.timeout = min(subscription.timeout * 2, max(self._timing.longest_wait, subscription.timeout))
            if self._send:
                self._send("pusher:unsubscribe", channel)
            self._unanswered[channel] = 0
            self._subscribe(subscription)

    def _overdue(self) -> dict[str, Subscription]:
        now = time.monotonic()
        return {channel: each for channel, each in self._by_channel.items() if each.overdue_at <= now}

    def _subscribe(self, subscription: Subscription) -> None:
        if self._send:
            self._send("pusher:subscribe", subscription.inbox.channel)
            self._unanswered[subscription.inbox.channel] += 1
            subscription.overdue_at = time.monotonic() + subscription.timeout
            subscription.complaint = ""
