"""A server that sends faster than what it sends is acted on."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode

from airflow_provider_quoine.exchange.clock import CLOCK
from airflow_provider_quoine.exchange.stream import channels, supervisor
from airflow_provider_quoine.exchange.stream.channels import Channel, MessageQueue, RawMessage
from airflow_provider_quoine.exchange.stream.events import Moment
from airflow_provider_quoine.exchange.stream.gaps import GapBook, Missed
from airflow_provider_quoine.exchange.stream.messages import Message
from airflow_provider_quoine.exchange.stream.pusher import PusherStream
from airflow_provider_quoine.exchange.stream.supervisor import _Session
from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.exchange.stream.pusher_servers import send_once_subscribed, websocket_server
from tests.support.streams import endpoint_of, open_stream, ready, until

_MISS = b'{"event":"pusher:cache_miss","channel":"any"}'


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound that a test reaches soon: asyncio's debug mode takes a millisecond for each signal."""
    monkeypatch.setattr(supervisor, "MOST_SIGNALS", 300)


def session_of(stream: PusherStream) -> _Session:
    """The connection that a stream has now."""
    assert stream._hub is not None
    assert stream._hub.supervisor._session is not None
    return stream._hub.supervisor._session


def held_loop_takes(stream: PusherStream, message: bytes, times: int) -> _Session:
    """Have the connection's receiver take a message many times, before the event loop can act on any of them."""
    session = session_of(stream)
    for _ in range(times):
        session.link.event_handler([message], Moment(CLOCK.wall(), CLOCK.monotonic()))
    return session


async def test_a_flood_of_the_protocols_own_events_leaves_other_tasks_their_turns(quiet_sandbox: SandboxServer) -> None:
    async with open_stream(endpoint_of(quiet_sandbox)) as stream:
        await ready(stream)
        session = held_loop_takes(stream, _MISS, 1_000)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(session.signals) > 900, "else all of them were acted on in one turn of the event loop"


async def test_a_flood_without_end_ends_the_connection_also_while_the_event_loop_is_held_up(few: None) -> None:
    flood = Frame(Opcode.TEXT, _MISS).serialize(mask=False) * (supervisor.MOST_SIGNALS + 10)

    async def send(connection: ServerConnection) -> None:
        connection.transport.write(flood)
        session = session_of(stream)
        while session.link.is_alive():
            time.sleep(0.001)  # noqa: ASYNC251 - holds up the event loop
        assert len(session.signals) == supervisor.MOST_SIGNALS + 1, "the last one says that it has ended"

    async with websocket_server(send_once_subscribed(send)) as endpoint, open_stream(endpoint) as stream:
        await until(lambda: stream.gaps)
        assert "more of the protocol's own events" in stream.gaps[0].reason


async def test_the_data_of_a_large_one_is_not_kept_while_the_event_loop_is_held_up(
    quiet_sandbox: SandboxServer,
) -> None:
    large = json.dumps({"event": "pusher:cache_miss", "channel": "any", "data": "x" * 2**20}).encode()
    async with open_stream(endpoint_of(quiet_sandbox)) as stream:
        await ready(stream)
        session = held_loop_takes(stream, large, 100)
        assert len(session.signals) == 100
        assert {signal.data for signal in session.signals if isinstance(signal, Message)} == {None}


async def test_as_many_of_the_protocols_own_events_as_before_are_taken_once_the_loop_has_acted(
    quiet_sandbox: SandboxServer, few: None
) -> None:
    async with open_stream(endpoint_of(quiet_sandbox)) as stream:
        await ready(stream)
        session = session_of(stream)
        for _ in range(3):
            held_loop_takes(stream, _MISS, supervisor.MOST_SIGNALS - 10)
            await until(lambda: not session.signals)
        assert stream.confirmed
        assert not stream.gaps


async def test_an_event_without_a_channel_is_nobodys_and_is_not_kept(quiet_sandbox: SandboxServer) -> None:
    async with open_stream(endpoint_of(quiet_sandbox)) as stream:
        await ready(stream)
        session = held_loop_takes(stream, b'{"event":"updated","data":"1"}', supervisor.MOST_SIGNALS + 10)
        await asyncio.sleep(0)
        assert not session.signals
        assert stream.confirmed


def test_a_queue_is_bounded_in_bytes_too_and_what_it_drops_is_a_gap() -> None:
    gaps, channel, large = GapBook(CLOCK), Channel("books", 1.0), bytes(2**20)
    queue = MessageQueue(10_000, gaps)
    for number in range(100):
        queue.put(RawMessage(channel, "updated", large, Moment(number / 2, number / 2), 1))
    assert gaps.missed == {Missed.DROPPED: 36}
    assert [(gap.began, gap.ended) for gap in gaps.stated] == [(0.0, 35 / 2)]
    taken = [message.at.monotonic * 2 for message in iter(queue.take, None)]
    assert taken == list(range(36, 100))
    # What was taken leaves room, and one message of the largest size that can be set always has it.
    for number in range(100, 103):
        queue.put(RawMessage(channel, "updated", bytes(64 * 2**20), Moment(number, number), 1))
        assert gaps.missed[Missed.DROPPED] == 36 + number - 100


def test_whatever_two_threads_do_at_once_each_message_is_taken_or_counted_as_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A thread may be interrupted behind every step.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    monkeypatch.setattr(channels, "MOST_QUEUED_BYTES", 40)
    gaps, channel, most = GapBook(CLOCK), Channel("books", 1.0), 20_000
    queue = MessageQueue(10, gaps)

    def put() -> None:
        for number in range(most):
            queue.put(RawMessage(channel, "updated", bytes(1 + number % 8), Moment(number, number), 1))

    thread = threading.Thread(target=put)
    thread.start()
    taken: list[float] = []
    try:
        while thread.is_alive() or queue.waiting_since:
            taken += [message.at.monotonic for message in iter(queue.take, None)]
    finally:
        thread.join()
        sys.setswitchinterval(interval)
    assert len(taken) + gaps.missed[Missed.DROPPED] == most
    assert taken == sorted(set(taken))
    # Nothing is left of what was counted: the queue takes as much as at first.
    dropped = gaps.missed[Missed.DROPPED]
    for _ in range(4):
        queue.put(RawMessage(channel, "updated", bytes(10), Moment(0.0, 0.0), 1))
    assert gaps.missed[Missed.DROPPED] == dropped
    queue.put(RawMessage(channel, "updated", b"1", Moment(0.0, 0.0), 1))
    assert gaps.missed[Missed.DROPPED] == dropped + 1


async def test_pings_of_a_server_that_reads_nothing_leave_one_answer_waiting() -> None:
    asked = 200

    async def send(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        session = session_of(stream)
        session.link._worker.submit(release.wait)
        for _ in range(asked):
            await connection.send('{"event":"pusher:ping","data":{}}')
        await until(lambda: session.pong is not None and not session.signals)
        await connection.send('{"event":"updated","channel":"updates","data":"last"}')
        await until(lambda: stream.newest("updates"))
        waiting.append(session.link._worker._work_queue.qsize())
        release.set()
        await connection.wait_closed()

    release, waiting = threading.Event(), list[int]()
    async with (
        websocket_server(send_once_subscribed(send)) as endpoint,
        open_stream(endpoint, queue_size=None) as stream,
    ):
        await until(lambda: waiting)
    assert waiting == [1]
