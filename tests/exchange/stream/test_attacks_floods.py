"""A server that sends faster than what it sends is acted on."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest

from airflow_provider_quoine.exchange.clock import CLOCK
from airflow_provider_quoine.exchange.stream import channels, supervisor
from airflow_provider_quoine.exchange.stream.channels import Channel, MessageQueue, RawMessage
from airflow_provider_quoine.exchange.stream.events import Moment
from airflow_provider_quoine.exchange.stream.gaps import GapBook, Missed
from airflow_provider_quoine.exchange.stream.messages import Message
from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.support.streams import endpoint_of, open_stream, ready, until


async def test_a_flood_of_the_protocols_own_events_leaves_other_tasks_their_turns(quiet_sandbox: SandboxServer) -> None:
    async with open_stream(endpoint_of(quiet_sandbox)) as stream:
        await ready(stream)
        assert stream._hub is not None
        session = stream._hub.supervisor._session
        assert session is not None
        for _ in range(1_000):
            session.signals.put_nowait(Message("pusher:cache_miss", {}, None))
        for _ in range(10):
            await asyncio.sleep(0)
        assert session.signals.qsize() > 900, "else all of them were acted on in one turn of the event loop"


async def test_a_flood_without_end_ends_the_connection(quiet_sandbox: SandboxServer) -> None:
    async with open_stream(endpoint_of(quiet_sandbox)) as stream:
        await ready(stream)
        assert stream._hub is not None
        session = stream._hub.supervisor._session
        assert session is not None
        for _ in range(supervisor.MOST_SIGNALS + 10):
            session.signals.put_nowait(Message("pusher:cache_miss", {}, None))
        await until(lambda: stream.gaps)
        assert "more of the protocol's own events" in stream.gaps[0].reason


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
