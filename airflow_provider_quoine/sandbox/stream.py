"""The stream as a whole: its connections, its channels, and the market that feeds them."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.websockets import WebSocket

from airflow_provider_quoine.sandbox.exchange import Exchange
from airflow_provider_quoine.sandbox.faults import Fault, Faults
from airflow_provider_quoine.sandbox.market import market_channels
from airflow_provider_quoine.sandbox.pusher import PusherConnection, frame
from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.replay import Replay

router = APIRouter()


@router.websocket("/app/{key}")
async def stream_connection(websocket: WebSocket, key: str) -> None:
    """Serve one client (api-reference II)."""
    await PusherConnection(websocket=websocket, key=key, stream=websocket.app.state.stream).serve()


class Stream:
    """
    All connections; a market channel costs something only while somebody is subscribed to it.

    :param exchange: whose stream it is
    """

    def __init__(self, exchange: Exchange) -> None:
        self.settings = exchange.settings
        self.market_rate = self.settings.market_rate
        self._exchange = exchange
        paths, settings = self.settings.replay, self.settings
        self._replay = Replay(paths=paths, publish=self.publish) if paths else None
        self._market = (
            {} if paths else market_channels(seed=settings.seed, clock=settings.clock, form=settings.market_amounts)
        )
        self._connections: set[PusherConnection] = set()
        self._channels: defaultdict[str, set[PusherConnection]] = defaultdict(set)
        self._feeds: dict[str, asyncio.Task[None]] = {}
        self._total = self._most = self._events = 0
        #: How many pings and pongs came from clients.
        self.pings = self.pongs = 0

    @property
    def faults(self) -> Faults:
        """The faults that wait."""
        return self._exchange.faults

    def join(self, connection: PusherConnection) -> None:
        """Count a connection in."""
        self._connections.add(connection)
        self._total += 1
        self._most = max(self._most, len(self._connections))

    def leave(self, connection: PusherConnection) -> None:
        """Count a connection out, with all its channels."""
        for channel in tuple(connection.channels):
            self.unsubscribe(connection, channel)
        self._connections.discard(connection)

    def subscribe(self, connection: PusherConnection, channel: str) -> None:
        """
        Let a channel's events go to a connection; a channel that does not exist stays silent (facts, Streams).

        :param connection: not subscribed yet
        :param channel: any name
        """
        connection.channels.add(channel)
        self._channels[channel].add(connection)
        if channel in self._market and channel not in self._feeds:
            self._start(channel)
        if self._replay is not None and not self._replay.begun and channel in self._replay.channels:
            self._replay.start(after=self.settings.replay_lead, speed=self.settings.replay_speed)

    def unsubscribe(self, connection: PusherConnection, channel: str) -> None:
        """
        End a subscription; the last one ends the channel.

        :param connection: subscribed or not
        :param channel: any name
        """
        connection.channels.discard(channel)
        self._channels[channel].discard(connection)
        if not self._channels[channel]:
            del self._channels[channel]
            if channel in self._feeds:
                self._feeds.pop(channel).cancel()

    def publish(self, channel: str, event: str, data: str, *, except_for: str | None = None) -> int:
        """
        Send an event to all subscribers of a channel, written once for all of them.

        :param channel: its name
        :param event: the event's
        :param data: the data, a string
        :param except_for: socket_id of a connection that does not get it
        :return: how many subscribers get it
        """
        everybody = self._channels.get(channel, ())
        subscribers = [connection for connection in everybody if connection.socket_id != except_for]
        text = frame(event, data, channel) if subscribers else ""
        for connection in subscribers:
            connection.send(text)
        self._events += bool(subscribers)
        return len(subscribers)

    def set_market_rate(self, per_second: float) -> None:
        """
        Change how fast the market is.

        :param per_second: events per second on each channel; 0 is a silent market
        """
        self.market_rate = per_second
        for channel in tuple(self._feeds):
            self._feeds.pop(channel).cancel()
        for channel in self._market.keys() & self._channels.keys():
            self._start(channel)

    def _start(self, channel: str) -> None:
        if self.market_rate:
            self._feeds[channel] = asyncio.create_task(self._feed(channel, 1 / self.market_rate))

    async def _feed(self, channel: str, interval: float) -> None:
        market, loop = self._market[channel], asyncio.get_running_loop()
        # Each channel beats at its own moment: no snapshot at subscription, and no burst of all at once.
        due = loop.time() + interval * random.random()  # noqa: S311 - no secret
        while True:
            await asyncio.sleep(due - loop.time())
            self.publish(channel, market.event, market.make())
            due += interval

    def replay(self, speed: float | None) -> int:
        """
        Replay the raw captures from their beginning, now.

        :param speed: how many times as fast as they were received; None leaves it as it is set
        :return: how many events there are
        :raises Refusal: 409 when the sandbox was started without any
        """
        if self._replay is None:
            raise Refusal(409, {"message": "Nothing to replay: start the sandbox with --replay FILE"})
        self._replay.start(after=0, speed=speed or self.settings.replay_speed)
        return self._replay.events

    def reset(self) -> None:
        """Set the market back to its beginning; connections stay."""
        self.set_market_rate(self.settings.market_rate)
        if self._replay is not None:
            self._replay.stop()

    def strike(self, fault: Fault) -> int:
        """
        Let a fault befall every open connection at once.

        :param fault: of the stream
        :return: how many it hit
        """
        hit = tuple(self._connections)
        for connection in hit:
            connection.strike(fault)
        return len(hit)

    async def close(self) -> None:
        """End the market."""
        feeds = tuple(self._feeds.values())
        for feed in feeds:
            feed.cancel()
        await asyncio.gather(*feeds, return_exceptions=True)
        if self._replay is not None:
            await self._replay.close()

    def subscribers(self) -> dict[str, int]:
        """Count the subscribers of every channel that has one."""
        return {channel: len(subscribers) for channel, subscribers in sorted(self._channels.items())}

    def figures(self) -> dict[str, Any]:
        """
        Tell of the stream.

        :return: market rate and channels that run, connections now, ever and at most, subscribers by channel, events,
            pings and pongs of clients; how far the replay is, if there is one
        """
        return {
            "market_rate": self.market_rate,
            "market_channels": len(self._feeds),
            "connections": len(self._connections),
            "connections_total": self._total,
            "connections_max": self._most,
            "channels": self.subscribers(),
            "events": self._events,
            "pings": self.pings,
            "pongs": self.pongs,
            "replay": self._replay and self._replay.figures(),
        }


def stream_of(request: Request) -> Stream:
    """Find the stream that a request is about."""
    stream: Stream = request.app.state.stream
    return stream


TheStream = Annotated[Stream, Depends(stream_of)]
