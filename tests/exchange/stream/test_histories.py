"""
Streams in simulated histories: nothing is lost that is not stated, nothing is doubled, nothing is left over.

The real supervisor, subscriptions, channels, queues and gaps run in a :class:`~tests.simulation.world.World`; only the
network and pysher's thread are played. A failure names its seed and the command that plays that history again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise

import pytest

from airflow_provider_quoine.exchange.stream import pusher
from airflow_provider_quoine.exchange.stream.channels import Channel
from airflow_provider_quoine.exchange.stream.events import Moment, StreamEvent
from airflow_provider_quoine.exchange.stream.gaps import GapBook, Missed
from airflow_provider_quoine.exchange.stream.pusher import StreamTiming
from airflow_provider_quoine.exchange.stream.subscriptions import Subscriptions
from airflow_provider_quoine.exchange.stream.supervisor import PusherSupervisor
from tests.simulation.history import CHANNELS, History
from tests.simulation.network import UPDATED, SimulatedLink, SimulatedServer
from tests.simulation.world import World
from tests.support.histories import HISTORIES

IN_UNIT = 30
SEEDS = [pytest.param(seed, marks=pytest.mark.long) if seed >= IN_UNIT else seed for seed in range(HISTORIES)]


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """Log nothing: it would take most of the time."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_in_silence(seed: int) -> None:
    history = History(seed)
    try:
        history.run()
    except Exception as error:
        raise AssertionError(
            f"{error}\nWhat happened, and when: {'; '.join(history.told)}.\nTo play it again: "
            f"QUOINE_HISTORIES={seed + 1} python -m pytest "
            f"'tests/exchange/stream/test_histories.py::test_nothing_is_lost_in_silence[{seed}]'"
        ) from error


def test_the_same_seed_is_the_same_history() -> None:
    first, again = History(7), History(7)
    first.run()
    again.run()
    assert first.told == again.told
    assert [each.gaps for each in first.listened] == [each.gaps for each in again.listened]
    assert [[event.data for event in each.taken] for each in first.listened] == [
        [event.data for event in each.taken] for each in again.listened
    ]


def play_all(seeds: Iterable[int]) -> None:
    """Play histories until one fails."""
    for seed in seeds:
        History(seed).run()


def count_no_drops(patch: pytest.MonkeyPatch) -> None:
    """S1: a full queue drops in silence."""
    miss = GapBook.miss

    def counted(self: GapBook, why: Missed, at: Moment) -> None:
        if why is not Missed.DROPPED:
            miss(self, why, at)

    patch.setattr(GapBook, "miss", counted)


def begin_gaps_when_noticed(patch: pytest.MonkeyPatch) -> None:
    """S2: a gap begins when the loss is noticed, except after a ping that was not answered."""
    begin = GapBook.begin

    def noticed(self: GapBook, since: Moment, reason: str) -> None:
        now = Moment(self._clock.wall(), self._clock.monotonic())
        begin(self, since if "ping" in reason else now, reason)

    patch.setattr(GapBook, "begin", noticed)


def keep_one_newest_of_a_channel(patch: pytest.MonkeyPatch) -> None:
    """S4: an event of another name, or one that cannot be read, hides the newest."""

    def newest_event(self: Channel, event: str | None) -> StreamEvent | None:
        found = self.last.decode() if self.last else None
        if found is not None and found.event == event:
            self.decoded[str(event)] = self.last, found  # type: ignore[assignment]  # it is not None
        return self.decoded.get(str(event), (None, None))[1]

    patch.setattr(Channel, "newest_event", newest_event)


def doubt_nothing(patch: pytest.MonkeyPatch) -> None:
    """S4: what cannot be read leaves the newest as current as it was."""
    patch.setattr(Channel, "doubtful_until", property(lambda _: -1.0, lambda *_: None), raising=False)


def do_not_wait_before_the_next_attempt(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PusherSupervisor, "_wait_after", lambda *_: 0.01)


def never_unsubscribe(patch: pytest.MonkeyPatch) -> None:
    tell = Subscriptions._tell

    def subscribe_only(self: Subscriptions, event: str, channel: Channel) -> None:
        if event != "pusher:unsubscribe":
            tell(self, event, channel)

    patch.setattr(Subscriptions, "_tell", subscribe_only)


def end_no_gap(patch: pytest.MonkeyPatch) -> None:
    end = GapBook.end

    def never(self: GapBook) -> None:
        end(self)
        if self._loss is not None:
            self._loss.ended = None

    patch.setattr(GapBook, "end", never)


def never_ping(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PusherSupervisor, "_due_at", lambda self, _: self._now() + 1_000.0)


@pytest.mark.parametrize(
    ("put_back", "words"),
    [
        (count_no_drops, "lost and in no gap"),
        (begin_gaps_when_noticed, "lost and in no gap|said to be current"),
        (keep_one_newest_of_a_channel, "said to be current"),
        (doubt_nothing, "said to be current"),
        (do_not_wait_before_the_next_attempt, "a storm of connections"),
        (never_unsubscribe, "handed out twice"),
        (end_no_gap, "all was well and yet there is a gap"),
        (never_ping, "never happen|not well again|lost and in no gap|never confirmed"),
    ],
)
def test_the_simulation_finds_a_defect_that_is_put_back(
    put_back: Callable[[pytest.MonkeyPatch], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_back(monkeypatch)
    with pytest.raises((AssertionError, RuntimeError), match=words):
        play_all(range(IN_UNIT))


async def listen(stream: pusher.PusherStream, seconds: float) -> float:
    """Keep a stream for some seconds from its first confirmation; return which part of them was in no gap."""
    async with stream:
        while not stream.confirmed:
            await stream.news()
        await asyncio.sleep(seconds)
        return 1 - stream.gap_seconds / seconds


def events_every(seconds: float, server: SimulatedServer) -> None:
    """Publish for ever."""
    server.publish(CHANNELS[0], UPDATED)
    server.world.later(seconds, lambda: events_every(seconds, server))


def lose_each_after(seconds: float, server: SimulatedServer, code: int | None, *known: SimulatedLink) -> None:
    """Lose each connection some seconds after it was subscribed, by a close code, or by a reset."""
    subscribed = [link for link in server.links if link.subscribed]
    for link in subscribed:
        if link not in known:
            server.world.later(seconds, partial(link.lose, code, at_once=True))
    server.world.later(0.1, lambda: lose_each_after(seconds, server, code, *subscribed))


@pytest.mark.parametrize("code", [4200, 1001, None])
def test_a_connection_that_delivers_is_no_failure_however_short_it_lives(code: int | None) -> None:
    world = World(3)
    server = SimulatedServer(world)
    events_every(0.2, server)
    lose_each_after(3.0, server, code)
    stream = pusher.PusherStream(endpoint=server.endpoint(StreamTiming()), channels=CHANNELS[:1])
    assert world.run(listen(stream, 600.0)) >= 0.6
    assert min(later - earlier for earlier, later in pairwise(server.attempts)) >= 3.5


def test_one_that_confirms_and_delivers_nothing_is_a_failure() -> None:
    world = World(3)
    server = SimulatedServer(world)
    lose_each_after(3.0, server, 4200)
    stream = pusher.PusherStream(endpoint=server.endpoint(StreamTiming()), channels=CHANNELS[:1])
    world.run(listen(stream, 600.0))
    assert len(server.attempts) < 30


def test_a_server_cannot_have_a_ping_sent_all_the_time() -> None:
    world = World(3)
    server = SimulatedServer(world)
    server.weather.activity_timeout = 0.0001
    stream = pusher.PusherStream(endpoint=server.endpoint(StreamTiming()), channels=CHANNELS[:1])
    assert world.run(listen(stream, 60.0)) == 1.0
    assert server.pings <= 61


def test_a_stream_that_is_left_while_a_ping_is_not_answered_states_a_gap() -> None:
    world = World(3)
    server = SimulatedServer(world)
    stream = pusher.PusherStream(endpoint=server.endpoint(StreamTiming()), channels=CHANNELS[:1])

    async def leave_in_silence() -> None:
        async with stream:
            while not stream.confirmed:
                await stream.news()
            server.links[0].hole = True
            await asyncio.sleep(40)
            assert (stream.gaps, stream.confirmed) == ((), True)

    world.run(leave_in_silence())
    (gap,) = stream.gaps
    assert (gap.ended or 0) - gap.began == pytest.approx(40, abs=0.2)
    assert "left" in gap.reason


def test_a_clock_that_is_set_changes_no_gap_and_no_order() -> None:
    world = World(3)
    server = SimulatedServer(world)
    stream = pusher.PusherStream(endpoint=server.endpoint(StreamTiming()), channels=CHANNELS[:1], queue_size=100)
    taken: list[StreamEvent] = []

    async def listen_while_it_is_set() -> None:
        async with stream:
            while not stream.confirmed:
                await stream.news()
            for jump in (0.0, -3600.0, 10.0):
                server.lose(1001, at_once=False)
                await asyncio.sleep(0.5)
                world.set_clock(jump)
                while not stream.confirmed:
                    await stream.news()
                server.publish(CHANNELS[0], UPDATED)
                taken.append(await anext(stream))
                await asyncio.sleep(10)

    world.run(listen_while_it_is_set())
    assert all(gap.until and (gap.until - gap.since).total_seconds() < 15 for gap in stream.gaps)
    assert [event.monotonic for event in taken] == sorted(event.monotonic for event in taken)
    ids = [event.connection for event in taken]
    assert ids == sorted(set(ids)), "later ones are greater, though the clock was set back"
    ahead = [event.received_at.timestamp() - event.monotonic for event in taken]
    assert [round(later - earlier, 3) for earlier, later in pairwise(ahead)] == [-3600.0, 10.0]


def test_a_new_life_does_not_begin_its_connections_at_one_again() -> None:
    print_id = "from airflow_provider_quoine.exchange.stream import supervisor; print(next(supervisor._ids))"
    began = time.time()
    life = subprocess.run([sys.executable, "-c", print_id], check=True, capture_output=True)
    first = int(life.stdout)
    assert began * 1_000_000 < first < time.time() * 1_000_000
    assert json.loads(json.dumps(first)) == first < 2**53, "exact as a float too"
