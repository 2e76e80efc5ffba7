"""Frames of a WebSocket: what counts as a sign of life, and what is too large."""

from __future__ import annotations

import asyncio
import itertools
import tracemalloc
from collections.abc import Callable

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode

from airflow_provider_quoine.exchange.clock import Clock
from airflow_provider_quoine.exchange.stream.events import Moment, OnMessages
from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint
from airflow_provider_quoine.exchange.stream.receiver import FrameReceiver
from tests.exchange.stream.pusher_servers import GREETING, Script, confirm, send_event, websocket_server
from tests.support.streams import open_stream, until

WHOLE = Frame(Opcode.TEXT, b"whole").serialize(mask=False)
BEGUN = Frame(Opcode.TEXT, b"begun", fin=False).serialize(mask=False)
ENDED = Frame(Opcode.CONT, b"ended").serialize(mask=False)
PING = Frame(Opcode.PING, b"").serialize(mask=False)


def receiver_of(*pieces: bytes, most: int = 1_000, take: OnMessages = lambda *_: None) -> FrameReceiver:
    """A receiver of bytes of which each piece comes a second after the one before."""
    left, seconds = list(pieces), 0.0

    def receive(count: int) -> bytes:
        nonlocal seconds
        seconds += 1
        return left.pop(0)

    clock = Clock(monotonic=lambda: seconds, wall=lambda: 100 + seconds)
    endpoint = PusherEndpoint(key="key", host="none", port=1, max_message=most, clock=clock)
    return FrameReceiver(receive=receive, take=take, endpoint=endpoint)


def read_all(receiver: FrameReceiver) -> None:
    """Read until something is wrong."""
    while True:
        receiver.recv_frame()


@pytest.mark.parametrize(
    ("pieces", "heard"),
    [
        ([WHOLE], 1),
        ([WHOLE, WHOLE[:1]], 1),
        ([WHOLE, *(WHOLE[at : at + 1] for at in range(len(WHOLE) - 1))], 1),
        ([WHOLE, *(WHOLE[at : at + 1] for at in range(len(WHOLE)))], 1 + len(WHOLE)),
        ([WHOLE + WHOLE[:3], WHOLE[3:]], 2),
        ([WHOLE, BEGUN], 1),
        ([WHOLE, BEGUN, PING], 1),
        ([WHOLE, BEGUN, PING, ENDED], 4),
        ([WHOLE, PING], 2),
    ],
)
def test_the_last_byte_of_a_whole_message_is_the_last_sign_of_life(pieces: list[bytes], heard: int) -> None:
    receiver = receiver_of(*pieces)
    with pytest.raises(IndexError):
        read_all(receiver)
    assert receiver.heard == (100 + heard, heard)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"\x81\x7f" + (2**40).to_bytes(8)],
        [b"\x81\x7e" + (1_001).to_bytes(2)],
        [b"\x82\x7e" + (1_001).to_bytes(2)],
        [Frame(Opcode.TEXT, b"1" * 600, fin=False).serialize(mask=False), b"\x80\x7e" + (401).to_bytes(2)],
        [BEGUN, *[Frame(Opcode.CONT, b"", fin=False).serialize(mask=False)] * 10],
    ],
    ids=["2^40", "one more", "binary", "fragments", "empty fragments"],
)
def test_what_is_too_large_is_refused_by_its_header_and_costs_no_memory(pieces: list[bytes]) -> None:
    receiver = receiver_of(*pieces)
    tracemalloc.start()
    try:
        with pytest.raises(ConnectionError, match="the largest that is taken has 1000"):
            read_all(receiver)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_masked_frame_is_refused() -> None:
    with pytest.raises(ConnectionError, match="masks"):
        receiver_of(Frame(Opcode.TEXT, b"1").serialize(mask=True)).recv_frame()


def test_what_is_just_small_enough_is_read() -> None:
    receiver = receiver_of(Frame(Opcode.BINARY, b"1" * 1_000).serialize(mask=False))
    assert len(receiver.recv_frame().data) == 1_000


@pytest.mark.parametrize("size", [1, 3, 130, 4_096, 65_536, 1_000_000])
def test_every_length_of_message_is_taken_once_however_its_bytes_come(size: int) -> None:
    # Byte by byte only what is short: each takes as long as a whole message.
    long = [65_535, 65_536, 65_537] if size > 100 else []
    lengths = [0, 1, 125, 126, 127, 128, 255, 256, *long, 0, 126, 300]
    texts = [(b"%d:" % number).ljust(length, b"x")[:length] for number, length in enumerate(lengths)]
    frames = [Frame(Opcode.TEXT, text).serialize(mask=False) for text in texts]
    data = b"".join(frames)
    taken: list[tuple[bytes, Moment]] = []
    receiver = receiver_of(
        *(data[at : at + size] for at in range(0, len(data), size)),
        most=100_000,
        take=lambda payloads, at: taken.extend((payload, at) for payload in payloads),
    )
    with pytest.raises(IndexError):
        read_all(receiver)
    assert [payload for payload, _ in taken] == texts
    ends = itertools.accumulate(len(frame) for frame in frames)
    assert [at.monotonic for _, at in taken] == [-(-end // size) for end in ends], "each with the time of its last byte"


def test_a_text_inside_of_fragments_is_no_message() -> None:
    long = Frame(Opcode.TEXT, b"x" * 200).serialize(mask=False)
    taken: list[bytes] = []
    receiver = receiver_of(BEGUN + long + ENDED, take=lambda payloads, _: taken.extend(payloads))
    assert [receiver.recv_frame().fin, receiver.recv_frame().data, taken] == [0, b"x" * 200, []]


def then(send: Callable[[ServerConnection], object]) -> Script:
    """A server that confirms the channel ``updates`` and sends one event, then what is said."""

    async def script(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await connection.recv()
        await confirm(connection, "updates")
        await send_event(connection, "updates", "1")
        send(connection)
        await connection.wait_closed()

    return script


async def test_a_message_above_the_bound_ends_the_connection_with_a_clear_reason() -> None:
    server = then(lambda connection: connection.transport.write(b"\x81\x7f" + (2**40).to_bytes(8)))
    async with websocket_server(server) as endpoint, open_stream(endpoint) as stream:
        await until(lambda: stream.connections >= 2)
        assert "message of 1099511627776 bytes; the largest that is taken has 1048576" in stream.gaps[0].reason


async def test_a_byte_now_and_then_inside_a_message_is_no_life() -> None:
    async def drip(connection: ServerConnection) -> None:
        connection.transport.write(b"\x81\x7e" + (1_000).to_bytes(2))
        for _ in range(1_000):
            await asyncio.sleep(0.02)
            connection.transport.write(b" ")

    dripping: list[asyncio.Task[None]] = []
    server = then(lambda connection: dripping.append(asyncio.create_task(drip(connection))))
    async with websocket_server(server) as endpoint:
        async with open_stream(endpoint, activity_timeout=0.2, pong_timeout=0.2, close_timeout=0.1) as stream:
            await until(lambda: stream.gaps and stream.gaps[0].ended)
            gap = stream.gaps[0]
            assert "ping was not answered" in gap.reason
            assert gap.ended is not None
            assert gap.ended - gap.began >= 0.4
        for task in dripping:
            task.cancel()
