"""Consumers that are slower than the server, for a while or for good."""

from __future__ import annotations

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode

from airflow_provider_quoine.exchange.clock import CLOCK
from airflow_provider_quoine.exchange.stream import channels
from airflow_provider_quoine.exchange.stream.channels import PATIENCE, STUCK_AFTER, Channel, MessageQueue, RawMessage
from airflow_provider_quoine.exchange.stream.events import Moment
from airflow_provider_quoine.exchange.stream.gaps import GapBook
from tests.exchange.stream.pusher_servers import send_once_subscribed, websocket_server
from tests.support.streams import next_event, open_stream, until

MANY = 5_000


async def send_many(connection: ServerConnection) -> None:
    """Send numbered events, all at once."""
    for number in range(MANY):
        text = f'{{"event":"updated","channel":"updates","data":"{number}"}}'.ljust(200)
        connection.transport.write(Frame(Opcode.TEXT, text.encode()).serialize(mask=False))
    await connection.wait_closed()


async def test_a_consumer_that_is_behind_gets_time_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # However busy this machine is.
    monkeypatch.setattr(channels, "PATIENCE", 60.0)
    monkeypatch.setattr(channels, "STUCK_AFTER", 60.0)
    async with (
        websocket_server(send_once_subscribed(send_many)) as endpoint,
        open_stream(endpoint, queue_size=100) as stream,
    ):
        assert [int((await next_event(stream)).data) for _ in range(MANY)] == [*range(MANY)]
        assert (stream.dropped, stream.gaps) == (0, ())


async def test_one_that_takes_nothing_loses_the_oldest_and_holds_nobody_up() -> None:
    async with (
        websocket_server(send_once_subscribed(send_many)) as endpoint,
        open_stream(endpoint, queue_size=100) as stuck,
        open_stream(endpoint, queue_size=None) as other,
    ):
        await until(lambda: (newest := other.newest("updates")) and newest.data == str(MANY - 1))
        assert stuck.dropped == MANY - 100
        assert (await next_event(stuck)).data == str(MANY - 100)


def test_a_consumer_that_is_behind_gets_time_until_it_has_taken_all_or_is_too_slow() -> None:
    queue = MessageQueue(100, GapBook(CLOCK))
    channel = Channel("updates", 5.0)

    def put(count: int) -> None:
        for _ in range(count):
            queue.put(RawMessage(channel, "updated", b"{}", Moment(0.0, 0.0), 1))

    put(25)
    assert not queue.behind(0.0), "a quarter is not much"
    put(1)
    assert queue.behind(10.0)
    assert not queue.behind(10.0 + STUCK_AFTER), "nothing was taken: it may be stuck"
    queue.take()
    put(1)
    for tenth in range(int(10 * PATIENCE)):
        queue.take()
        put(1)
        assert queue.behind(10.0 + tenth / 10)
    queue.take()
    put(1)
    assert not queue.behind(10.0 + PATIENCE), "it is slower than the server"
    while queue.take():
        pass
    put(50)
    queue.take()
    assert queue.behind(20.0), "it had taken all"
