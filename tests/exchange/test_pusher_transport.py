"""Streams against servers that misbehave: each override of pysher has a server here that needs it."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import socket
import struct
import time
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from airflow_provider_quoine.exchange.errors import QuoineStreamRefusedError, QuoineSubscriptionRefusedError
from airflow_provider_quoine.exchange.pusher import PusherEndpoint
from tests.exchange.pusher_servers import (
    GREETING,
    KEY,
    confirm,
    greet_and_confirm,
    greeting,
    send_event,
    tcp_server,
    websocket_server,
)
from tests.exchange.streams import next_event, open_stream, our_records, ready, stream_threads, until


async def say_nothing(connection: ServerConnection) -> None:
    await connection.wait_closed()


async def greet_only(connection: ServerConnection) -> None:
    await connection.send(GREETING)
    await connection.wait_closed()


async def accept_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (lambda: tcp_server(accept_only), "did not greet in time"),
        (lambda: websocket_server(say_nothing), "did not greet in time"),
        (lambda: websocket_server(greet_only), "did not confirm updates in time"),
    ],
)
def test_a_server_that_stops_halfway_is_left_and_tried_again(
    server: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        factory: AbstractAsyncContextManager[PusherEndpoint] = server()
        async with factory as endpoint:
            # Each time left at another moment of an attempt or its end.
            for _ in range(8):
                async with open_stream(endpoint, connect=0.05, subscribe=0.05, goodbye=0.1) as stream:
                    await until(lambda: words in (stream.problem or ""))
                    await until(lambda: "quoine-stream" in stream_threads())
                assert stream_threads() == []

    asyncio.run(scenario())
    assert words in caplog.text


def test_closing_does_not_wait_for_a_server_that_never_answers() -> None:
    async def scenario() -> None:
        async with tcp_server(accept_only) as endpoint:
            async with open_stream(endpoint, connect=60) as stream:
                await until(lambda: "quoine-stream" in stream_threads())
                start = time.monotonic()
            assert time.monotonic() - start < 2
            assert (stream.connections, stream_threads()) == (0, [])

    asyncio.run(scenario())


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_close_code_is_read_even_if_the_server_does_not_wait_for_our_answer(reset: bool) -> None:
    async def close_hard(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await connection.recv()
        transport = connection.transport
        if reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        payload = struct.pack("!H", 4001) + f"App {KEY} is gone".encode()
        transport.write(bytes([0x88, len(payload)]) + payload)
        transport.close()

    async def scenario() -> None:
        async with websocket_server(close_hard) as endpoint, open_stream(endpoint) as stream:
            with pytest.raises(QuoineStreamRefusedError, match=r"App \*\*\* is gone \(code 4001\)"):
                await next_event(stream)

    asyncio.run(scenario())


def test_a_complaint_without_code_or_channel_is_a_refusal_if_a_channel_stays_unconfirmed() -> None:
    async def refuse_one(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        async for message in connection:
            channel = json.loads(message).get("data", {}).get("channel")
            if channel == "good":
                await confirm(connection, channel)
            elif channel:
                await connection.send('{"event": "pusher:error", "data": {"message": "no such channel", "code": null}}')

    async def scenario() -> None:
        async with (
            websocket_server(refuse_one) as endpoint,
            open_stream(endpoint, "good", "bad", subscribe=0.2) as stream,
        ):
            with pytest.raises(QuoineSubscriptionRefusedError, match=r"refuses bad: no such channel"):
                await next_event(stream)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "data", [{"socket_id": "1.1", "activity_timeout": 120}, "{}", "no JSON", None, '{"activity_timeout": 0}']
)
def test_every_form_of_greeting_connects(data: Any) -> None:
    async def greet(connection: ServerConnection) -> None:
        await connection.send(greeting(data))
        await confirm(connection, json.loads(await connection.recv())["data"]["channel"])
        await connection.wait_closed()

    async def scenario() -> None:
        async with websocket_server(greet) as endpoint, open_stream(endpoint) as stream:
            await ready(stream)

    asyncio.run(scenario())


NO_FRAMES: list[str | bytes] = [
    "no JSON",
    b"\xff\xfe",
    "[" * 5_000,
    "[]",
    "null",
    '"text"',
    "{}",
    '{"event": 5}',
    '{"event": "updated", "channel": ["updates"], "data": "1"}',
    '{"event": "updated", "channel": "updates", "data": {"a": 0.1}}',
    '{"event": "updated", "channel": "others", "data": "1"}',
    '{"event": "pusher:cache_miss", "channel": "updates"}',
    '{"event": "pusher_internal:subscription_succeeded", "channel": "others", "data": "{}"}',
    '{"event": "pusher:what", "data": "?"}',
]


def test_frames_that_are_not_pushers_cost_nothing_but_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def talk_nonsense(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await confirm(connection, json.loads(await connection.recv())["data"]["channel"])
        for frame in NO_FRAMES:
            await connection.send(frame)
        await send_event(connection, "updates", "sense")
        await connection.wait_closed()

    async def scenario() -> None:
        async with websocket_server(talk_nonsense) as endpoint, open_stream(endpoint) as stream:
            event = await next_event(stream)
            assert (event.data, event.connection) == ("sense", 1)
            await ready(stream)
            assert stream.connections == 1

    asyncio.run(scenario())
    assert [record.levelname for record in our_records(caplog)] == ["WARNING"]


def test_a_servers_ping_is_answered() -> None:
    answered: list[str] = []

    async def ping(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await connection.send('{"event": "pusher:ping"}')
        for _ in range(2):
            answered.append(json.loads(await connection.recv())["event"])  # noqa: PERF401 - as they come

    async def scenario() -> None:
        async with websocket_server(ping) as endpoint, open_stream(endpoint):
            await until(lambda: "pusher:pong" in answered)

    asyncio.run(scenario())


def test_events_are_a_sign_of_life_even_if_pings_stay_unanswered() -> None:
    async def no_pong(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await confirm(connection, json.loads(await connection.recv())["data"]["channel"])
        for number in range(12):
            await asyncio.sleep(0.1)
            await send_event(connection, "updates", str(number))

    async def scenario() -> None:
        async with websocket_server(no_pong) as endpoint, open_stream(endpoint, quiet=0.05, pong=0.3) as stream:
            events = [await next_event(stream) for _ in range(10)]
            assert {event.connection for event in events} == {1}

    asyncio.run(scenario())


def test_no_ping_and_protocol_7_at_the_start() -> None:
    first: list[str] = []

    async def look(connection: ServerConnection) -> None:
        assert connection.request is not None
        first.append(connection.request.path)
        await connection.send(GREETING)
        first.append(json.loads(await connection.recv())["event"])

    async def scenario() -> None:
        async with websocket_server(look) as endpoint, open_stream(endpoint):
            await until(lambda: len(first) >= 2)

    asyncio.run(scenario())
    assert first[0].startswith(f"/app/{KEY}?")
    assert "protocol=7" in first[0]
    assert first[1] == "pusher:subscribe"


def http_answer(text: str) -> Any:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(text.encode())
        await writer.drain()

    asked: list[bytes] = []
    answer.asked = asked  # type: ignore[attr-defined]
    return answer


def test_an_http_answer_is_an_outage_with_its_status() -> None:
    async def scenario() -> None:
        text = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        async with tcp_server(http_answer(text)) as endpoint, open_stream(endpoint) as stream:
            await until(lambda: "HTTP 503" in (stream.problem or ""))

    asyncio.run(scenario())


def test_a_redirect_is_not_followed_with_the_key() -> None:
    async def scenario() -> None:
        elsewhere = http_answer("")
        async with tcp_server(elsewhere) as other:
            target = f"ws://127.0.0.1:{other.port}/app/{KEY}"
            text = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"
            here = http_answer(text)
            async with tcp_server(here) as endpoint, open_stream(endpoint) as stream:
                await until(lambda: len(here.asked) >= 3)
                assert stream.connections == 0
                assert "redirect is not followed" in (stream.problem or "")
        assert elsewhere.asked == []

    asyncio.run(scenario())


def test_a_server_that_fails_again_and_again_is_not_hammered() -> None:
    attempts: list[float] = []

    async def close_at_once(connection: ServerConnection) -> None:
        attempts.append(time.monotonic())
        await connection.send(GREETING)
        await connection.close(4200, "at once")

    async def scenario() -> None:
        async with (
            websocket_server(close_at_once) as endpoint,
            open_stream(endpoint, first_wait=0.05, longest_wait=10, steady=5),
        ):
            await until(lambda: len(attempts) >= 5)

    asyncio.run(scenario())
    waits = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert all(wait >= 0.05 * 2**failures for failures, wait in enumerate(waits)), waits


def test_a_server_that_stops_reading_is_found() -> None:
    async def read_nothing(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await confirm(connection, json.loads(await connection.recv())["data"]["channel"])
        connection.transport.pause_reading()
        await over.wait()

    async def scenario() -> None:
        async with websocket_server(read_nothing) as endpoint:
            async with open_stream(endpoint, quiet=0.05, pong=0.1, goodbye=0.1) as stream:
                await until(lambda: stream.connections >= 2)
            assert stream_threads() == []
            over.set()

    over = asyncio.Event()
    asyncio.run(scenario())


def test_websocket_clients_own_log_stays_quiet_for_streams_and_only_for_them(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with websocket_server(greet_and_confirm) as endpoint:
            for _ in range(3):
                async with open_stream(endpoint) as stream:
                    await ready(stream)

    caplog.set_level(logging.INFO)
    asyncio.run(scenario())
    assert not [record for record in caplog.records if record.name == "websocket"]
    logging.getLogger("websocket").error("another client's")
    assert "another client's" in caplog.text
