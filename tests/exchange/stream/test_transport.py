"""
Streams against servers that misbehave: each override of pysher has a server here that needs it.

Where each row of the table of pysher's defects (pusher, Defects of pysher) has its test, here unless another file is
named:

============================================  =======================================================================
c:83-88 ``disconnect()`` hangs                test_pusher: closing_leaves_no_thread_descriptor_or_task
c:97-102 connection lives on                  the same (stop_at_once); closing_does_not_wait_for_a_server...
c:292 40xx tells nobody                       test_pusher: a_refusal_for_good...; test_hub: ...reaches_all...
c:95, 298 no wait after 42xx                  a_server_that_fails_again_and_again_is_not_hammered
c:140, 174 close codes ignored                a_close_code_is_read...; test_pusher: a_lost_connection_is_made_again...
c:57, 60 ``activity_timeout`` ignored         test_pusher: a_quiet_market_is_no_outage
c:147, 243, 276 stale pong flag               a_dead_peer_is_found_again_after_a_pong_that_came
c:107-115 no time-out for connecting          a_server_that_stops_halfway...; test_abortable_socket: every_phase...
p:110-112 subscribing too early is lost       test_hub: fifty_streams_that_join_at_once...
p:110-112 a second one drops the first's      test_hub_lifetimes: a_channel_lives_from_its_first_user...
p:110-112 send errors swallowed               what_cannot_be_sent_is_no_error...; a_server_that_stops_reading_is_found
p:147-155 channels lost while reconnecting    test_hub_lifetimes: comings_and_goings_during_outages...
c:165 deaf after a bad frame                  frames_that_are_not_pushers_cost_nothing_but_one_warning
p:19, p:15 port 443, protocol 6               no_ping_and_protocol_7_at_the_start
c:144, p:18 payloads and levels in the log    nothing_that_comes_is_logged_and_no_level_is_changed
c:184-199 scheduler thread left behind        test_hub_lifetimes: two_hundred_cycles_of_start_and_cancel...
p:69 no TLS options                           test_abortable_socket: an_own_authority_is_trusted_when_named
c:251 greeting with object data               every_form_of_greeting_connects
wsc: slow validation of UTF-8                 test_inboxes: what_turns_out_broken...; benchmarks/streams.py
wsc: "goodbye" at ERROR                       websocket_clients_own_log_stays_quiet...
============================================  =======================================================================
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any

import pysher.connection
import pytest
import websocket
from websockets.asyncio.server import ServerConnection

from airflow_provider_quoine.exchange.errors import QuoineStreamRefusedError, QuoineSubscriptionRefusedError
from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint
from airflow_provider_quoine.exchange.stream.transport import PusherTransport
from tests.exchange.stream.pusher_servers import (
    GREETING,
    KEY,
    accept_only,
    confirm,
    greet_and_confirm,
    greeting,
    send_event,
    tcp_server,
    websocket_server,
)
from tests.support.streams import next_event, open_stream, our_records, ready, stream_threads, until


async def say_nothing(connection: ServerConnection) -> None:
    await connection.wait_closed()


async def greet_only(connection: ServerConnection) -> None:
    await connection.send(GREETING)
    await connection.wait_closed()


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (lambda: tcp_server(accept_only), "did not greet in time"),
        (lambda: websocket_server(say_nothing), "did not greet in time"),
        (lambda: websocket_server(greet_only), "did not confirm updates in time"),
    ],
)
async def test_a_server_that_stops_halfway_is_left_and_tried_again(
    server: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    factory: AbstractAsyncContextManager[PusherEndpoint] = server()
    async with factory as endpoint:
        # Each time left at another moment of an attempt or its end.
        for _ in range(8):
            async with open_stream(endpoint, connect_timeout=0.05, subscribe_timeout=0.05, close_timeout=0.1) as stream:
                await until(lambda: words in (stream.problem or ""))
                await until(lambda: "quoine-stream" in stream_threads())
            assert stream_threads() == []
    assert words in caplog.text


async def test_closing_does_not_wait_for_a_server_that_never_answers() -> None:
    async with tcp_server(accept_only) as endpoint:
        async with open_stream(endpoint, connect_timeout=60) as stream:
            await until(lambda: "quoine-stream" in stream_threads())
            start = time.monotonic()
        assert time.monotonic() - start < 30
        assert (stream.connections, stream_threads()) == (0, [])


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_close_code_is_read_even_if_the_server_does_not_wait_for_our_answer(reset: bool) -> None:
    async def close_hard(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await connection.recv()
        transport = connection.transport
        if reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        payload = struct.pack("!H", 4001) + f"App {KEY} is gone".encode()
        transport.write(bytes([0x88, len(payload)]) + payload)
        transport.close()

    async with websocket_server(close_hard) as endpoint, open_stream(endpoint) as stream:
        with pytest.raises(QuoineStreamRefusedError, match=r"App \*\*\* is gone \(code 4001\)"):
            await next_event(stream)


@pytest.mark.long
async def test_a_complaint_without_code_or_channel_is_a_refusal_if_a_channel_stays_unconfirmed() -> None:
    async def refuse_one(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        async for message in connection:
            channel = json.loads(message).get("data", {}).get("channel")
            if channel == "good":
                await confirm(connection, channel)
            elif channel:
                await connection.send('{"event": "pusher:error", "data": {"message": "no such channel", "code": null}}')

    async with (
        websocket_server(refuse_one) as endpoint,
        open_stream(endpoint, "good", "bad", subscribe_timeout=2) as stream,
    ):
        with pytest.raises(QuoineSubscriptionRefusedError, match=r"refuses bad: no such channel"):
            await next_event(stream)


@pytest.mark.parametrize(
    "data", [{"socket_id": "1.1", "activity_timeout": 120}, "{}", "no JSON", None, '{"activity_timeout": 0}']
)
async def test_every_form_of_greeting_connects(data: Any) -> None:
    async def greet(connection: ServerConnection) -> None:
        await connection.send(greeting(data))
        await confirm(connection, json.loads(await connection.recv())["data"]["channel"])
        await connection.wait_closed()

    async with websocket_server(greet) as endpoint, open_stream(endpoint) as stream:
        await ready(stream)


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


async def test_frames_that_are_not_pushers_cost_nothing_but_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def talk_nonsense(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await confirm(connection, json.loads(await connection.recv())["data"]["channel"])
        for frame in NO_FRAMES:
            await connection.send(frame)
        await send_event(connection, "updates", "sense")
        await connection.wait_closed()

    async with websocket_server(talk_nonsense) as endpoint, open_stream(endpoint) as stream:
        event = await next_event(stream)
        assert event.data == "sense"
        await ready(stream)
        assert stream.connections == 1
    assert [record.levelname for record in our_records(caplog)] == ["WARNING"]


async def test_a_servers_ping_is_answered() -> None:
    answered: list[str] = []

    async def ping(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await connection.send('{"event": "pusher:ping"}')
        for _ in range(2):
            answered.append(json.loads(await connection.recv())["event"])  # noqa: PERF401 - as they come

    async with websocket_server(ping) as endpoint, open_stream(endpoint):
        await until(lambda: "pusher:pong" in answered)


@pytest.mark.long
async def test_events_are_a_sign_of_life_even_if_pings_stay_unanswered() -> None:
    async def no_pong(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await confirm(connection, json.loads(await connection.recv())["data"]["channel"])
        for number in itertools.count():
            await asyncio.sleep(0.1)
            await send_event(connection, "updates", str(number))

    async with (
        websocket_server(no_pong) as endpoint,
        open_stream(endpoint, activity_timeout=0.05, pong_timeout=1.5) as stream,
    ):
        events = [await next_event(stream) for _ in range(20)]
        assert len({event.connection for event in events}) == 1


async def test_no_ping_and_protocol_7_at_the_start() -> None:
    first: list[str] = []

    async def look(connection: ServerConnection) -> None:
        assert connection.request is not None
        first.append(connection.request.path)
        await connection.send(GREETING)
        first.append(json.loads(await connection.recv())["event"])

    async with websocket_server(look) as endpoint, open_stream(endpoint):
        await until(lambda: len(first) >= 2)
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


async def test_an_http_answer_is_an_outage_with_its_status() -> None:
    text = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    async with tcp_server(http_answer(text)) as endpoint, open_stream(endpoint) as stream:
        await until(lambda: "HTTP 503" in (stream.problem or ""))


async def test_a_redirect_is_not_followed_with_the_key() -> None:
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


async def test_a_server_that_fails_again_and_again_is_not_hammered() -> None:
    attempts: list[float] = []

    async def close_at_once(connection: ServerConnection) -> None:
        attempts.append(time.monotonic())
        await connection.send(GREETING)
        await connection.close(4200, "at once")

    async with (
        websocket_server(close_at_once) as endpoint,
        open_stream(endpoint, first_wait=0.05, longest_wait=10, steady=5),
    ):
        await until(lambda: len(attempts) >= 5)
    waits = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert all(wait >= 0.05 * 2**failures for failures, wait in enumerate(waits)), waits


async def test_a_server_that_stops_reading_is_found() -> None:
    async def read_nothing(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await confirm(connection, json.loads(await connection.recv())["data"]["channel"])
        connection.transport.pause_reading()
        await over.wait()

    over = asyncio.Event()
    async with websocket_server(read_nothing) as endpoint:
        async with open_stream(endpoint, activity_timeout=0.05, pong_timeout=0.1, close_timeout=0.1) as stream:
            await until(lambda: stream.connections >= 2)
        assert stream_threads() == []
        over.set()


async def test_websocket_clients_own_log_stays_quiet_for_streams_and_only_for_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with websocket_server(greet_and_confirm) as endpoint:
        for _ in range(3):
            async with open_stream(endpoint) as stream:
                await ready(stream)
    assert not [record for record in caplog.records if record.name == "websocket"]
    logging.getLogger("websocket").error("another client's")
    assert "another client's" in caplog.text


async def test_nothing_that_comes_is_logged_and_no_level_is_changed(caplog: pytest.LogCaptureFixture) -> None:
    secret = "what-was-sent"

    async def talk(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await confirm(connection, json.loads(await connection.recv())["data"]["channel"])
        await send_event(connection, "updates", secret)
        await connection.send(json.dumps({"event": "updated", "channel": "updates", "data": {"no": secret}}))
        await connection.send(json.dumps({"event": "pusher:what", "data": secret}))
        await connection.wait_closed()

    names = [None, "pysher", "pysher.connection", "websocket", "airflow_provider_quoine"]
    caplog.set_level(logging.DEBUG)
    # The server of this test logs what it sends.
    logging.getLogger("websockets").setLevel(logging.INFO)
    levels = [logging.getLogger(name).level for name in names]
    async with websocket_server(talk) as endpoint, open_stream(endpoint) as stream:
        assert (await next_event(stream)).data == secret
        await until(lambda: our_records(caplog))
    assert secret not in caplog.text
    assert [logging.getLogger(name).level for name in names] == levels
    assert not websocket.isEnabledForTrace()


async def test_a_dead_peer_is_found_again_after_a_pong_that_came() -> None:
    async def answer_one_ping(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        answered = 0
        async for message in connection:
            event = json.loads(message)["event"]
            if event == "pusher:subscribe":
                await confirm(connection, "updates")
            if event == "pusher:ping" and not answered:
                answered += 1
                await connection.send('{"event": "pusher:pong", "data": ""}')

    async with (
        websocket_server(answer_one_ping) as endpoint,
        open_stream(endpoint, activity_timeout=0.05, pong_timeout=0.1, close_timeout=0.1) as stream,
    ):
        await until(lambda: stream.connections >= 3)
        assert all("ping was not answered" in gap.reason for gap in stream.gaps)


def test_what_cannot_be_sent_is_no_error_and_not_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    endpoint = PusherEndpoint(key=KEY, host="127.0.0.1", port=1, tls=False)
    with ThreadPoolExecutor() as worker:
        transport = PusherTransport(endpoint, lambda *_: None, lambda *_: None, worker=worker, tls=None)
        transport.send("pusher:subscribe", {"channel": "updates"})
    assert caplog.records == []


def test_what_is_overridden_is_still_there() -> None:
    assert "run" in vars(pysher.connection.Connection)
    assert "redirect_limit" in (websocket.WebSocket.connect.__doc__ or "")
    buffer = websocket.WebSocket().frame_buffer
    assert callable(buffer.recv)
    assert callable(buffer.recv_frame)
