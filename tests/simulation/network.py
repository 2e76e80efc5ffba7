"""A Pusher server and the network before it, in a simulated world, with all that can go wrong."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from airflow_provider_quoine.exchange.stream.events import Moment, OnEnd, OnMessages
from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint, StreamTiming
from tests.simulation.world import World

UPDATED, OTHER = "updated", "other"
"""Names of the events: those that a stream is read for, and others on the same channels."""


@dataclass(eq=False, slots=True)
class Sent:
    """
    One event that the server has published: what an oracle needs of it.

    :param number: its data; one more for each event of its channel and name.
    :param at: when the server published it.
    :param arrives_at: when its last byte arrives, or would have on a connection that is lost meanwhile.
    """

    channel: str
    event: str
    number: int
    at: float
    arrives_at: float


@dataclass(slots=True)
class Weather:
    """
    How the network and the server behave now.

    :param up: whether the server takes connections.
    :param hole: whether a new connection leads nowhere: no answer ever.
    :param greets: whether it greets.
    :param confirms: how likely it is to confirm a subscription.
    :param slow: seconds by which a message takes longer than the latency, at most.
    :param garbles: how likely an event cannot be read.
    :param activity_timeout: what the greeting says.
    """

    up: bool = True
    hole: bool = False
    greets: bool = True
    confirms: float = 1.0
    slow: float = 0.0
    garbles: float = 0.0
    activity_timeout: float = 120.0


class SimulatedServer:
    """Publishes to its subscribers, and remembers everything that it has published."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.weather = Weather()
        self.links: list[SimulatedLink] = []
        """All connections that are not gone yet on the client's side."""
        self.attempts: list[float] = []
        self.sent: list[Sent] = []
        self.pings = 0
        self._numbers: Counter[tuple[str, str]] = Counter()

    def endpoint(self, timing: StreamTiming) -> PusherEndpoint:
        """Return the endpoint by which real streams reach it."""
        return PusherEndpoint(
            key="key",
            host="simulated",
            port=1,
            timing=timing,
            clock=self.world.clock,
            network=lambda _: _SimulatedNetwork(self),
        )

    def publish(self, channel: str, event: str) -> None:
        """Publish an event to all who are subscribed, as often as they are."""
        self._numbers[channel, event] += 1
        sent = Sent(channel, event, self._numbers[channel, event], self.world.now, self.world.now)
        self.sent.append(sent)
        text = json.dumps({"event": event, "channel": channel, "data": str(sent.number)})
        if self.world.random.random() < self.weather.garbles:
            text = self.world.random.choice([text[:-1], "no JSON", text[:-1] + ', "data": 1}'])
        for link in self.links:
            for _ in range(link.subscribed[channel]):
                sent.arrives_at = max(sent.arrives_at, link.deliver(text))

    def lose(self, code: int | None, *, at_once: bool) -> None:
        """
        Lose all connections.

        :param code: of the close frame; None for a reset.
        :param at_once: what is on its way is lost too.
        """
        for link in tuple(self.links):
            link.lose(code, at_once=at_once)


class _SimulatedNetwork:
    def __init__(self, server: SimulatedServer) -> None:
        self._server = server

    def prepare(self) -> asyncio.Future[None]:
        return self._server.world.loop.run_in_executor(None, lambda: None)

    def connect(self, on_messages: OnMessages, on_end: OnEnd) -> SimulatedLink:
        return SimulatedLink(self._server, on_messages, on_end)

    def close(self) -> None:
        assert not self._server.links, "a thread is left behind"


@dataclass(eq=False)
class SimulatedLink:
    """One connection: both of its ends, and the cable between them."""

    server: SimulatedServer
    on_messages: OnMessages
    on_end: OnEnd
    subscribed: Counter[str] = field(default_factory=Counter)
    hole: bool = False
    """Whether everything that is sent disappears."""

    def __post_init__(self) -> None:
        self._world, self._alive = self.server.world, True
        self._arrives_at = self._reaches_at = 0.0
        self._sent_at = -1.0
        self._confirmed: set[str] = set()
        self.heard = self._moment()
        self.server.attempts.append(self._world.now)
        self.server.links.append(self)
        weather = self.server.weather
        self._open, self.hole = weather.up, weather.hole
        if not weather.up:
            self._later(lambda: self._end(None, "refused"))
            return
        if weather.greets:
            data = json.dumps({"socket_id": "1.1", "activity_timeout": weather.activity_timeout})
            self._later(lambda: self.deliver(json.dumps({"event": "pusher:connection_established", "data": data})))

    def deliver(self, text: str) -> float:
        """
        Send a message to the client.

        :return: when its last byte arrives, or would have.
        """
        slow = self._world.random.random() * self.server.weather.slow
        # Never before an earlier one.
        self._arrives_at = max(self._arrives_at, self._world.now + self._latency() + slow)
        if self._open and not self.hole:
            self._world.at(self._arrives_at, lambda: self._take(text.encode()))
        return self._arrives_at

    def lose(self, code: int | None, *, at_once: bool) -> None:
        """Lose the connection: by a close frame, or by a reset, which overtakes everything if it is at once."""
        self._open = False
        at = self._world.now if at_once else max(self._world.now + self._latency(), self._arrives_at)
        if code is None or not self.hole:
            self._world.at(at, lambda: self._end(code, "closed" if code else "reset"))

    def send(self, event: str, data: dict[str, str]) -> None:
        if self._sent_at < self._world.now:
            # What is sent at one moment arrives at one moment, and never before what was sent earlier.
            self._sent_at = self._world.now
            self._reaches_at = max(self._reaches_at, self._world.now + self._latency())
        self._world.at(self._reaches_at, partial(self._serve, event, data.get("channel", "")))

    async def end(self, *, politely: bool) -> None:
        """Close it. A server that cannot be heard is waited for."""
        await asyncio.sleep((1.0 if self.hole else 2 * self._latency()) if politely else 0.002)
        self._end(None, "aborted")

    def _serve(self, event: str, channel: str) -> None:
        if self.hole or not self._open:
            return
        if event == "pusher:ping":
            self.server.pings += 1
            self.deliver('{"event": "pusher:pong", "data": "{}"}')
        elif event == "pusher:unsubscribe":
            del self.subscribed[channel]
        elif channel in self._confirmed or self._world.random.random() < self.server.weather.confirms:
            # Which of two subscriptions an answer is for nobody can tell, so it does not ignore the second one.
            self._confirmed.add(channel)
            self.subscribed[channel] += 1
            confirmed = {"event": "pusher_internal:subscription_succeeded", "channel": channel, "data": "{}"}
            self.deliver(json.dumps(confirmed))
        else:
            # Half of those that confirm nothing send events all the same.
            self.subscribed[channel] += self._world.random.random() < 0.5

    def _take(self, payload: bytes) -> None:
        """Do on the client's thread what pysher's connection does with a message."""
        if not self._alive or self.hole:
            return
        self.heard = self._moment()
        self.on_messages([payload], self.heard)

    def _end(self, code: int | None, reason: str) -> None:
        if self._alive:
            self._alive = False
            self.server.links.remove(self)
            self.on_end(code, reason)

    def _moment(self) -> Moment:
        return Moment(self._world.clock.wall(), self._world.clock.monotonic())

    def _latency(self) -> float:
        return self._world.random.uniform(0.005, 0.1)

    def _later(self, call: Callable[[], object]) -> None:
        self._world.later(self._latency(), call)
