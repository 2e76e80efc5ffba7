"""Consumers that are slower than the server, for a while or for good."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode

from airflow_provider_quoine.exchange.clock import Clock
from airflow_provider_quoine.exchange.stream import transport
from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint
from airflow_provider_quoine.exchange.stream.receiver import CHUNK
from airflow_provider_quoine.exchange.stream.transport import PusherTransport
from tests.exchange.stream.pusher_servers import KEY, send_once_subscribed, websocket_server
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
    monkeypatch.setattr(transport, "_LONGEST_LAG", 60.0)
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


def test_a_burst_after_a_silence_has_come_just_now(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += seconds

    def read(_count: int) -> bytes:
        pass_time(10.0)
        return b"burst"

    endpoint = PusherEndpoint(key=KEY, host="127.0.0.1", port=1, clock=Clock(lambda: now, lambda: now))
    monkeypatch.setattr(transport, "time", SimpleNamespace(sleep=pass_time))
    with ThreadPoolExecutor() as worker:
        link = PusherTransport(endpoint, lambda *_: None, lambda *_: None, lambda: True, worker=worker, tls=None)
    link._read_bytes = read
    link._raw_socket = SimpleNamespace(waiting=0)  # type: ignore[assignment]
    link._hand_over([link._receive(CHUNK)], link.heard)
    assert now == pytest.approx(10.0 + transport._LONGEST_LAG, abs=transport._PAUSE), "the consumer gets its time"


@pytest.mark.parametrize("taken", [100, 3_000, 20_000, 400_000], ids="{} bytes a millisecond are taken".format)
def test_what_comes_waits_in_the_system_for_a_short_time_only(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now, kept, lags = 0.0, 0, list[float]()
    coming, waiting = deque((number / 1_000, 10_000) for number in range(3_000)), deque[tuple[float, int]]()

    def pass_time(seconds: float) -> None:
        nonlocal now, kept
        now += seconds
        kept = max(0, kept - int(1_000 * seconds * taken))
        while coming and coming[0][0] <= now:
            waiting.append(coming.popleft())

    def read(count: int) -> bytes:
        size = 0
        pass_time(0.0001)
        if not waiting:
            pass_time(coming[0][0] - now if coming else 1.0)
        while waiting and size + waiting[0][1] <= count:
            came_at, length = waiting.popleft()
            lags.append(now - came_at)
            size += length
        return bytes(size)

    def take(texts: list[bytes], _at: object) -> None:
        nonlocal kept
        kept = min(kept + sum(map(len, texts)), 4_000_000)

    endpoint = PusherEndpoint(key=KEY, host="127.0.0.1", port=1, clock=Clock(lambda: now, lambda: now))
    monkeypatch.setattr(transport, "time", SimpleNamespace(sleep=pass_time))
    with ThreadPoolExecutor() as worker:
        link = PusherTransport(endpoint, take, lambda *_: None, lambda: kept > 1_000_000, worker=worker, tls=None)
    link._read_bytes = read
    link._raw_socket = SimpleNamespace(waiting=0)  # type: ignore[assignment]
    while coming or waiting:
        link._raw_socket.waiting = sum(length for _, length in waiting)  # type: ignore[misc]
        link._hand_over([link._receive(CHUNK)], link.heard)
    assert max(lags) <= transport._LONGEST_LAG + 2 * transport._PAUSE
    if taken < 10_000:
        assert max(lags) > 0.1, "it waited, as long as it may"
    else:
        assert max(lags) < 0.01, "there was nothing to wait for"
