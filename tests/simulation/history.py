"""A history of streams: a seed decides what happens to them, and an oracle that knows all checks what they say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from airflow_provider_quoine.exchange.stream.pusher import (
    PusherStream,
    StreamEvent,
    StreamGap,
    StreamTiming,
    open_connections,
)
from tests.simulation.network import OTHER, UPDATED, Sent, SimulatedServer, Weather
from tests.simulation.world import World

CHANNELS = ("books", "trades")
TIMING = StreamTiming(
    connect_timeout=3, subscribe_timeout=2, activity_timeout=3, pong_timeout=3, longest_wait=8, steady=4
)
ROUGH, CALM, WELL = 60.0, 30.0, 5.0
"""Seconds in which everything happens; seconds after that, in the last of which all must be well again."""

FAULTS: dict[str, Callable[[SimulatedServer], None]] = {
    "close": lambda server: server.lose(server.world.random.choice([1001, 4100, 4200, 4201]), at_once=False),
    "reset": lambda server: server.lose(None, at_once=True),
    "restart": lambda server: _restart(server),
    "hole": lambda server: _black_hole(server, ends_by_reset=server.world.random.random() < 0.5),
    "no greeting": lambda server: _for_a_while(server, greets=False),
    "leads nowhere": lambda server: _for_a_while(server, hole=True),
    "no confirmation": lambda server: _for_a_while(server, confirms=0.4),
    "slow": lambda server: _for_a_while(server, slow=server.world.random.choice([0.5, 8.0])),
    "garbles": lambda server: _for_a_while(server, garbles=0.3),
    "eager": lambda server: _for_a_while(server, activity_timeout=0.001),
    "flood": lambda server: _flood(server),
    "clock": lambda server: server.world.set_clock(server.world.random.choice([-3600, -3, 0.5, 10])),
    "hold": lambda server: _hold(server),
}
"""What may happen, by name."""


def _hold(server: SimulatedServer) -> None:
    server.world.loop.call_soon(server.world.hold, server.world.random.uniform(0, 5))


def _for_a_while(server: SimulatedServer, **weather: float) -> None:
    server.weather = Weather(**weather)  # type: ignore[arg-type]  # a bool is a number
    server.world.later(server.world.random.uniform(1, 10), lambda: setattr(server, "weather", Weather()))
    if server.world.random.random() < 0.7:
        server.lose(None, at_once=True)


def _restart(server: SimulatedServer) -> None:
    _for_a_while(server, up=False)
    server.lose(1001, at_once=server.world.random.random() < 0.5)


def _black_hole(server: SimulatedServer, *, ends_by_reset: bool) -> None:
    for link in server.links:
        link.hole = True
    if ends_by_reset:
        server.world.later(server.world.random.uniform(0.5, 8), lambda: server.lose(None, at_once=True))


def _flood(server: SimulatedServer) -> None:
    for _ in range(30):
        server.publish(CHANNELS[1], UPDATED)


@dataclass
class Listening:
    """
    What one listener was told, and what the oracle holds against it.

    :param channels: what it listens to.
    :param since: when it was confirmed for the first time; None if it never was.
    :param until: when it was left.
    :param heard: the last sign of life then.
    :param taken: all events that it was handed.
    :param seen: moments at which it looked at the newest event of a channel: with what it saw, and whether that was
        said to be current.
    """

    channels: tuple[str, ...]
    since: float | None = None
    until: float = 0.0
    heard: float | None = None
    gaps: tuple[StreamGap, ...] = ()
    dropped: int = 0
    taken: list[StreamEvent] = field(default_factory=list)
    seen: list[tuple[float, str, StreamEvent, bool]] = field(default_factory=list)

    def covers(self, sent: Sent) -> bool:
        """Tell whether an event is in a gap that was stated, or in the silence in which the stream was left."""
        in_gap = any(
            gap.began <= sent.arrives_at and sent.at <= (self.until if gap.ended is None else gap.ended)
            for gap in self.gaps
        )
        return in_gap or (self.heard is not None and sent.arrives_at > self.heard)


class History:
    """
    One history.

    :param seed: of everything in it.
    """

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.server = SimulatedServer(self.world)
        self._endpoint = self.server.endpoint(TIMING)
        self.told: list[str] = []
        """The faults, in order, for the message of a failure."""
        self.listened: list[Listening] = []
        self._chance = self.world.random

    def run(self) -> None:
        """
        Play it and check it.

        :raises AssertionError: saying what was wrong.
        """
        try:
            self.world.run(self._play())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        for listening in self.listened:
            self._check_newest(listening) if listening.seen else self._check_every(listening)
            late = [gap for gap in listening.gaps if gap.ended is None or gap.ended > listening.until - WELL]
            # One that leaves while the answer to a ping is on its way cannot know.
            late = [gap for gap in late if "was left" not in gap.reason]
            assert listening.dropped or not late, f"all was well and yet there is a gap: {late}"
        waits = [later - earlier for earlier, later in pairwise(self.server.attempts)]
        assert min(waits, default=1.0) >= TIMING.first_wait / 2, f"a storm of connections: {waits}"
        assert open_connections() == 0, "a connection is left open"

    async def _play(self) -> None:
        self.world.later(0.1, self._publish)
        self.world.later(self._chance.uniform(1, 8), self._break)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(None, CHANNELS, 0.0))
            group.create_task(self._listen(1000, CHANNELS, 0.0))
            group.create_task(self._listen(self._chance.choice([2, 5]), CHANNELS[1:], self._chance.uniform(0, 20)))

    def _publish(self) -> None:
        if self.world.now < ROUGH + CALM:
            event = UPDATED if self._chance.random() < 0.8 else OTHER
            self.server.publish(self._chance.choice(CHANNELS), event)
            self.world.later(self._chance.expovariate(4.0), self._publish)

    def _break(self) -> None:
        if self.world.now < ROUGH:
            fault = self._chance.choice(list(FAULTS))
            self.told.append(f"{self.world.now:.1f} {fault}")
            FAULTS[fault](self.server)
            self.world.later(self._chance.choice([0.5, 3, 10]) * self._chance.uniform(0.5, 2), self._break)
        else:
            self.server.weather = Weather()

    async def _listen(self, queue_size: int | None, channels: tuple[str, ...], after: float) -> None:
        await asyncio.sleep(after)
        listening = Listening(channels)
        async with PusherStream(endpoint=self._endpoint, channels=channels, queue_size=queue_size) as stream:
            while not stream.confirmed:
                await stream.news()
            listening.since = self.world.now
            reading = self._read(stream, listening, queue_size) if queue_size else self._look(stream, listening)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROUGH + CALM - self.world.now):
                    await reading
            assert stream.confirmed, f"not well again after {CALM} s: {stream.problem}"
            listening.until = self.world.now
            listening.heard = stream.heard.monotonic if stream.heard else None
            with contextlib.suppress(TimeoutError):
                while queue_size:
                    async with asyncio.timeout(0.001):
                        listening.taken.append(await anext(stream))
        listening.gaps, listening.dropped = stream.gaps, stream.dropped
        self.listened.append(listening)

    async def _read(self, stream: PusherStream, listening: Listening, queue_size: int) -> None:
        async for event in stream:
            listening.taken.append(event)
            if queue_size < 10 and self._chance.random() < 0.3:
                await asyncio.sleep(self._chance.uniform(0, 2))

    async def _look(self, stream: PusherStream, listening: Listening) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(0, 1))
            for channel in listening.channels:
                event = stream.newest(channel, UPDATED)
                if event is not None:
                    listening.seen.append((self.world.now, channel, event, stream.is_current(event)))

    def _due(self, listening: Listening) -> list[Sent]:
        assert listening.since is not None, "it was never confirmed"
        return [
            sent
            for sent in self.server.sent
            if sent.channel in listening.channels and listening.since <= sent.at and sent.arrives_at <= listening.until
        ]

    def _check_every(self, listening: Listening) -> None:
        keys = [(event.channel, event.event, event.data) for event in listening.taken]
        taken = set(keys)
        assert len(taken) == len(keys), "an event was handed out twice"
        numbers = {(sent.channel, sent.event, str(sent.number)): sent for sent in self.server.sent}
        for one, next_one in pairwise(listening.taken):
            assert one.monotonic <= next_one.monotonic, "not in order"
            assert one.connection <= next_one.connection, "an event of an earlier connection came later"
            was, then = (numbers[event.channel, event.event, event.data] for event in (one, next_one))
            assert was.at <= then.at, "not in the server's order"
        for sent in self._due(listening):
            handed_out = (sent.channel, sent.event, str(sent.number)) in taken
            assert handed_out or listening.covers(sent), f"lost and in no gap: {sent}, gaps {listening.gaps}"

    def _check_newest(self, listening: Listening) -> None:
        due = [sent for sent in self._due(listening) if sent.event == UPDATED]
        for moment, channel, event, current in listening.seen:
            if not current:
                continue
            missed = [
                sent
                for sent in due
                if sent.channel == channel and sent.arrives_at < moment and sent.number > int(event.data)
            ]
            assert all(listening.covers(sent) for sent in missed), (
                f"at {moment:.2f} {event.data} of {channel} was said to be current, after {missed}"
            )
