"""The hub: all connections and subscriptions, and the market or replay that publishes to them."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Annotated, Any, Protocol

from fastapi import Depends
from starlette.requests import Request

from airflow_provider_quoine.sandbox.faults import Fault, Faults
from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from airflow_provider_quoine.sandbox.stream.market import market_channels
from airflow_provider_quoine.sandbox.stream.protocol import frame
from airflow_provider_quoine.sandbox.stream.replay import Replay


class Client(Protocol):
    """The hub's view of a connection: :class:`.connection.PusherConnection`."""

    socket_id: str
    channels: set[str]

    def send(self, item: str) -> None:
        """Queue a frame."""

    def apply_fault(self, fault: Fault) -> None:
        """Apply a fault to this connection."""


class Hub:
    """
    All connections and their subscriptions. A market channel runs only while it has subscribers.

    :raises ValueError: if a file to replay is not a raw capture
    """

    def __init__(self, *, settings: SandboxSettings, faults: Faults) -> None:
        self.settings = settings
        self.faults = faults
        self.market_rate = settings.market_rate
        paths = settings.replay
        self._replay = Replay(paths=paths, publish=self.publish) if paths else None
        self._market = (
            {} if paths else market_channels(seed=settings.seed, clock=settings.clock, form=settings.market_amounts)
        )
        self._connections: set[Client] = set()
        self._subscribers: defaultdict[str, set[Client]] = defaultdict(set)
        self._market_tasks: dict[str, asyncio.Task[None]] = {}
        self._connections_total = self._connections_max = self._events = 0
        #: Pings and pongs received from clients.
        self.pings = self.pongs = 0

    def add(self, connection: Client) -> None:
        """Add a connection."""
        self._connections.add(connection)
        self._connections_total += 1
        self._connections_max = max(self._connections_max, len(self._connections))

    def remove(self, connection: Client) -> None:
        """Remove a connection with all its subscriptions."""
        for channel in tuple(connection.channels):
            self.unsubscribe(connection, channel)
        self._connections.discard(connection)

    def subscribe(self, connection: Client, channel: str) -> None:
        """Subscribe a connection to a channel. An unknown channel stays silent (facts, Streams)."""
        connection.channels.add(channel)
        self._subscribers[channel].add(connection)
        if channel in self._market and channel not in self._market_tasks:
            self._start_market(channel)
        if self._replay is not None and not self._replay.started and channel in self._replay.channels:
            self._replay.start(after=self.settings.replay_delay, speed=self.settings.replay_speed)

    def unsubscribe(self, connection: Client, channel: str) -> None:
        """End a subscription. Without subscribers, the channel's market stops."""
        connection.channels.discard(channel)
        self._subscribers[channel].discard(connection)
        if not self._subscribers[channel]:
            del self._subscribers[channel]
            if channel in self._market_tasks:
                self._market_tasks.pop(channel).cancel()

    def publish(self, channel: str, event: str, data: str, *, exclude: str | None = None) -> int:
        """
        Send an event to all subscribers of a channel.

        :param exclude: socket_id of a connection that does not receive it
        :return: number of subscribers that receive it
        """
        subscribers = [each for each in self._subscribers.get(channel, ()) if each.socket_id != exclude]
        text = frame(event, data, channel) if subscribers else ""
        for connection in subscribers:
            connection.send(text)
        self._events += bool(subscribers)
        return len(subscribers)

    def set_market_rate(self, per_second: float) -> None:
        """
        Change the event rate of the market.

        :param per_second: events per second on each channel; 0 stops the market
        """
        self.market_rate = per_second
        for channel in tuple(self._market_tasks):
            self._market_tasks.pop(channel).cancel()
        for channel in self._market.keys() & self._subscribers.keys():
            self._start_market(channel)

    def _start_market(self, channel: str) -> None:
        if self.market_rate:
            self._market_tasks[channel] = asyncio.create_task(self._run_market(channel, 1 / self.market_rate))

    async def _run_market(self, channel: str, interval: float) -> None:
        market, loop = self._market[channel], asyncio.get_running_loop()
        # A random offset: no event comes right at the subscription, and the channels do not publish all at once.
        due = loop.time() + interval * random.random()  # noqa: S311 - no secret
        while True:
            await asyncio.sleep(due - loop.time())
            self.publish(channel, market.event, market.next_data())
            due += interval

    def start_replay(self, speed: float | None) -> int:
        """
        Start the replay now, from the beginning.

        :param speed: 2 replays twice as fast as received; None takes ``replay_speed`` of the settings
        :return: number of events
        :raises Refusal: 409 if the sandbox was started without a capture
        """
        if self._replay is None:
            raise Refusal(409, {"message": "Nothing to replay: start the sandbox with --replay FILE"})
        self._replay.start(after=0, speed=speed or self.settings.replay_speed)
        return self._replay.events

    def reset(self) -> None:
        """Set the market rate back and stop the replay. Connections stay open."""
        self.set_market_rate(self.settings.market_rate)
        if self._replay is not None:
            self._replay.stop()

    def apply_fault(self, fault: Fault) -> int:
        """Apply a fault of the stream to all open connections, and return their number."""
        connections = tuple(self._connections)
        for connection in connections:
            connection.apply_fault(fault)
        return len(connections)

    async def close(self) -> None:
        """Stop the market and the replay."""
        tasks = tuple(self._market_tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._replay is not None:
            await self._replay.close()

    def subscribers(self) -> dict[str, int]:
        """Count the subscribers of each channel that has any."""
        return {channel: len(subscribers) for channel, subscribers in sorted(self._subscribers.items())}

    def stats(self) -> dict[str, Any]:
        """
        Count connections, subscriptions and events.

        :return: ``market_rate``; ``market_channels``: channels of the market that run; ``connections``: open now, with
            ``_total`` and ``_max``; ``channels``: subscribers by channel; ``events``: published to at least one
            subscriber; ``pings`` and ``pongs``: received from clients; ``replay``: its progress, or None
        """
        return {
            "market_rate": self.market_rate,
            "market_channels": len(self._market_tasks),
            "connections": len(self._connections),
            "connections_total": self._connections_total,
            "connections_max": self._connections_max,
            "channels": self.subscribers(),
            "events": self._events,
            "pings": self.pings,
            "pongs": self.pongs,
            "replay": self._replay and self._replay.stats(),
        }


def _hub_of(request: Request) -> Hub:
    """Return the hub that serves this request."""
    hub: Hub = request.app.state.hub
    return hub


TheHub = Annotated[Hub, Depends(_hub_of)]
