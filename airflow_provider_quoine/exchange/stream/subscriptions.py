"""The channels of a connection: subscribed once for all their listeners, confirmed one by one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from math import inf

from airflow_provider_quoine.exchange.errors import QuoineStreamError, QuoineSubscriptionRefusedError
from airflow_provider_quoine.exchange.stream.channels import Channel, Listener
from airflow_provider_quoine.exchange.stream.endpoint import PusherEndpoint
from airflow_provider_quoine.exchange.stream.events import Moment
from airflow_provider_quoine.exchange.stream.inboxes import Inboxes
from airflow_provider_quoine.exchange.stream.messages import ConnectionLostError

log = logging.getLogger(__name__)


class Subscriptions:
    """
    The subscriptions of the hub's connection, one for each channel, however many listeners it has: some servers
    deliver an event as often as its channel was subscribed (pusher, Protocol 7).

    A channel that is not confirmed in time is unsubscribed and subscribed again, with a time-out that doubles each
    time, as long as another channel is confirmed. A new connection would cost the listeners of all other channels a
    gap. If no channel at all is confirmed, the connection is given up.

    :param endpoint: its ``subscribe_timeout`` and ``longest_wait`` are used, and its clock.
    """

    def __init__(self, endpoint: PusherEndpoint, inboxes: Inboxes) -> None:
        self.inboxes = inboxes
        self._endpoint = endpoint
        self._now = endpoint.clock.monotonic
        self._channels = inboxes.channels
        self._send: Callable[[str, str], None] | None = None
        self._unanswered: Counter[str] = Counter()

    @property
    def settled(self) -> bool:
        """Whether some channel is confirmed, and each of the others is confirmed or overdue."""
        return self._some_confirmed and all(each.confirmed or each.problem for each in self._channels.values())

    @property
    def overdue_at(self) -> float:
        """Monotonic time when the next confirmation becomes overdue."""
        return min((channel.overdue_at for channel in self._channels.values()), default=inf)

    def proven(self, connection: int) -> bool:
        """Tell whether a connection, the present one, has confirmed channels and delivered an event."""
        newest = [channel.last for channel in self._channels.values() if channel.last]
        return self._some_confirmed and any(each.connection == connection for each in newest)

    def add(self, listener: Listener) -> None:
        """Add a listener to its channels; subscribe to those that it is the first for."""
        for name in listener.names:
            channel = self._channels.get(name)
            if channel is None:
                channel = self._channels[name] = Channel(name, self._endpoint.timing.subscribe_timeout)
                self._subscribe(channel)
            channel.listeners[listener] = None
            if listener.queue is not None:
                channel.queues += (listener.queue,)
            listener.channels[name] = channel
        if self._send:
            listener.connections += 1
        listener.note_confirmation()

    def remove(self, listener: Listener) -> None:
        """Remove a listener from its channels; unsubscribe from those that it was the last for."""
        for channel in listener.channels.values():
            del channel.listeners[listener]
            channel.queues = tuple(queue for queue in channel.queues if queue is not listener.queue)
            if not channel.listeners:
                self.inboxes.close(channel)
                self._tell("pusher:unsubscribe", channel)
        listener.channels = {}

    def begin(self, send: Callable[[str, str], None]) -> None:
        """Subscribe to every channel on a new connection, by what sends an event about a channel without waiting."""
        self._send = send
        for listener in self._listeners():
            listener.connections += 1
        for channel in self._channels.values():
            channel.doubtful_until = self._now()
            channel.timeout = self._endpoint.timing.subscribe_timeout
            self._subscribe(channel)

    def end(self) -> None:
        """Note that the connection is gone."""
        self._send = None
        self._unanswered.clear()
        for channel in self._channels.values():
            channel.confirmed, channel.overdue_at, channel.problem = False, inf, ""

    def confirm(self, name: str) -> None:
        """Note a ``subscription_succeeded``; one that nothing asked for, or a second one, says nothing."""
        if not self._unanswered[name]:
            return
        self._unanswered[name] -= 1
        channel = self._channels.get(name)
        if channel is None or channel.confirmed:
            return
        if self._unanswered[name] > 0:
            # This one is for an earlier subscription, ended and made again meanwhile, unless its answer was lost.
            channel.answered = True
            channel.overdue_at = min(channel.overdue_at, self._now() + self._endpoint.timing.subscribe_timeout)
        else:
            self._confirm(channel)

    def note_loss(self, since: Moment, reason: str) -> None:
        """Begin the gaps of all listeners."""
        for listener in self._listeners():
            listener.note_loss(since, reason)

    def fail(self, failure: QuoineStreamError) -> None:
        """End all listeners for good."""
        for listener in self._listeners():
            self.remove(listener)
            listener.fail(failure)

    def refuse(self, name: str, words: str) -> None:
        """End the listeners of a channel that the server refuses, with its words."""
        refusal = QuoineSubscriptionRefusedError(
            f"The stream's server at {self._endpoint} refuses {name}: {words}. Check the channel's name and that the "
            f"Pusher key may read it. {QuoineSubscriptionRefusedError.advice}"
        )
        channel = self._channels.get(name)
        for listener in tuple(channel.listeners) if channel else ():
            self.remove(listener)
            listener.fail(refusal)

    def complain(self, words: str) -> None:
        """Note an error that names no channel: some servers refuse a channel that way (pusher, Protocol 7)."""
        for channel in self._channels.values():
            if not channel.confirmed:
                channel.complaint = words

    def check(self) -> None:
        """Refuse each overdue channel that the server complained about; subscribe again to the other overdue ones.
        If no channel at all is confirmed, raise ConnectionLostError."""
        for channel in self._overdue():
            if channel.answered:
                # No other answer has come, so that one was for the newest subscription.
                self._unanswered[channel.name] = 0
                self._confirm(channel)
            elif channel.complaint:
                self.refuse(channel.name, channel.complaint)
        # Computed again: a listener that is refused one channel leaves its others too.
        overdue = self._overdue()
        if not overdue:
            return
        problem = f"the server did not confirm {', '.join(sorted(channel.name for channel in overdue))} in time"
        if not self._some_confirmed:
            raise ConnectionLostError(problem)
        for channel in overdue:
            if not channel.problem:
                log.warning(
                    "A stream's channel stays silent: %s. It is asked for again until it is confirmed.", problem
                )
            channel.problem = problem
            channel.timeout = min(channel.timeout * 2, max(self._endpoint.timing.longest_wait, channel.timeout))
            self._tell("pusher:unsubscribe", channel)
            self._subscribe(channel)

    def _confirm(self, channel: Channel) -> None:
        channel.confirmed, channel.overdue_at, channel.problem = True, inf, ""
        for listener in channel.listeners:
            listener.note_confirmation()

    def _listeners(self) -> dict[Listener, None]:
        return {listener: None for channel in self._channels.values() for listener in channel.listeners}

    @property
    def _some_confirmed(self) -> bool:
        return any(channel.confirmed for channel in self._channels.values())

    def _overdue(self) -> list[Channel]:
        return [channel for channel in self._channels.values() if channel.overdue_at <= self._now()]

    def _tell(self, event: str, channel: Channel) -> None:
        if self._send:
            self._send(event, channel.name)

    def _subscribe(self, channel: Channel) -> None:
        if self._send:
            self._tell("pusher:subscribe", channel)
            self._unanswered[channel.name] += 1
            channel.overdue_at = self._now() + channel.timeout
            channel.answered, channel.complaint = False, ""
