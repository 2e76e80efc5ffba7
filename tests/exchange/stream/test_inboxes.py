"""Messages on their way to the event loop: every form that they may have, and their cost while no stream waits."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode

from airflow_provider_quoine.exchange.clock import CLOCK
from airflow_provider_quoine.exchange.errors import QuoineStreamRefusedError
from airflow_provider_quoine.exchange.stream.channels import Channel, Listener
from airflow_provider_quoine.exchange.stream.events import Moment
from airflow_provider_quoine.exchange.stream.inboxes import Inboxes
from airflow_provider_quoine.exchange.stream.pusher import PusherStream
from tests.exchange.stream.pusher_servers import GREETING, send_event, send_once_subscribed, websocket_server
from tests.support.streams import LIMIT, next_event, open_stream, our_records, ready, until


async def data_of(stream: PusherStream, count: int) -> list[str]:
    return [(await next_event(stream)).data for _ in range(count)]


FORMS = [
    json.dumps({name: {"event": "updated", "channel": "updates", "data": "%s"}[name] for name in names}, separators=by)
    for names in itertools.permutations(("event", "channel", "data"))
    for by in ((",", ":"), (", ", ": "))
] + [
    '{"event":"updated","channel":"updates","data":"%s","user_id":"1"}',
    '{"event":"updated","channel":"upd\\u0061tes","data":"%s"}',
    '{"channel":"others","event":"updated","channel":"updates","data":"%s"}',
]


@pytest.mark.parametrize("form", FORMS)
async def test_a_frame_may_be_written_in_any_way_that_json_allows(form: str) -> None:
    sent = ["1", '\\u00fc and \\"data\\":\\" \\\\', "", "[]"]

    async def send(connection: ServerConnection) -> None:
        for data in sent:
            await connection.send(form % data)

    async with (
        websocket_server(send_once_subscribed(send)) as endpoint,
        open_stream(endpoint) as all_of_it,
        open_stream(endpoint, queue_size=None) as newest,
    ):
        assert await data_of(all_of_it, 4) == [json.loads(f'"{data}"') for data in sent]
        event = newest.newest("updates")
        assert event is not None
        assert (event.channel, event.event, event.data) == ("updates", "updated", "[]")


async def test_what_turns_out_broken_when_asked_for_is_left_out_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    prefix = '{"event":"updated","channel":"updates","data":"'
    broken = [b'1","data":2}', b'1","channel":"others"}', b"1", b'\xff"}', b'\\x"}', b'1","data":{}}', b'"1"}']

    async def send(connection: ServerConnection) -> None:
        await connection.send(f'{prefix}good"}}')
        for tail in broken:
            connection.transport.write(Frame(Opcode.TEXT, prefix.encode() + tail).serialize(mask=False))
        await go_on.wait()
        await connection.send(f'{prefix}better"}}')

    go_on = asyncio.Event()
    async with (
        websocket_server(send_once_subscribed(send)) as endpoint,
        open_stream(endpoint) as all_of_it,
        open_stream(endpoint, queue_size=None) as newest,
    ):
        await until(lambda: newest._listener.channels["updates"].count >= 1)
        assert await data_of(all_of_it, 1) == ["good"]
        await until(lambda: newest._listener.channels["updates"].count == 1 + len(broken))
        newest.newest("updates")
        go_on.set()
        assert await data_of(all_of_it, 1) == ["better"]
        event = newest.newest("updates")
        assert event is not None
        assert event.data == "better"
        assert newest.connections == 1
    assert [record.levelname for record in our_records(caplog)] == ["WARNING"]


async def test_a_broken_frame_leaves_the_event_before_it() -> None:
    async def send(connection: ServerConnection) -> None:
        await send_event(connection, "updates", "good")
        await go_on.wait()
        await connection.send('{"event": "updated", "channel": "updates", "data": "1')

    go_on = asyncio.Event()
    async with (
        websocket_server(send_once_subscribed(send)) as endpoint,
        open_stream(endpoint, queue_size=None) as stream,
    ):
        await until(lambda: stream.newest("updates"))
        before = stream.newest("updates")
        go_on.set()
        await until(lambda: stream._listener.channels["updates"].count == 2)
        assert stream.newest("updates") is before
        assert before is not None
        assert (stream.is_current(before), stream.unreadable, len(stream.gaps)) == (False, 1, 1)
        assert "could not be read" in stream.gaps[0].reason


@pytest.mark.parametrize(
    "frame", ["no JSON", b"\xff", '{"event": "updated", "channel": "updates", "data": {"a": 0.1}}']
)
async def test_what_cannot_be_read_makes_every_book_doubtful_until_a_newer_one_comes(frame: str | bytes) -> None:
    async def send(connection: ServerConnection) -> None:
        await send_event(connection, "updates", "good")
        await connection.send(frame)
        await go_on.wait()
        await send_event(connection, "updates", "better")

    go_on = asyncio.Event()
    async with (
        websocket_server(send_once_subscribed(send)) as endpoint,
        open_stream(endpoint, queue_size=None) as newest,
        open_stream(endpoint) as all_of_it,
    ):
        await until(lambda: newest.unreadable)
        event = newest.newest("updates", "updated")
        assert event is not None
        assert (event.data, newest.is_current(event), all_of_it.unreadable) == ("good", False, 1)
        go_on.set()
        await until(lambda: (found := newest.newest("updates", "updated")) and newest.is_current(found))
        assert await data_of(all_of_it, 2) == ["good", "better"]
        assert [gap.reason for gap in newest.gaps] == [gap.reason for gap in all_of_it.gaps] != []


async def test_an_event_of_another_name_hides_no_newer_one() -> None:
    def of(event: str, data: str) -> str:
        return json.dumps({"event": event, "channel": "updates", "data": data})

    async def send(connection: ServerConnection) -> None:
        for event, data in [("updated", "old"), ("other", "1"), ("updated", "new"), ("other", "2")]:
            await connection.send(of(event, data))

    async with (
        websocket_server(send_once_subscribed(send)) as endpoint,
        open_stream(endpoint, queue_size=None) as stream,
    ):
        await until(lambda: stream._listener.channels["updates"].count == 4)
        newest = {event: stream.newest("updates", event) for event in ("updated", "other", None, "none")}
        told = {name: event and event.data for name, event in newest.items()}
        assert told == {"updated": "new", "other": "2", None: "2", "none": None}


async def test_names_of_events_without_end_take_no_memory_without_end() -> None:
    inboxes = Inboxes(asyncio.get_running_loop())
    channel = inboxes.channels["updates"] = Channel("updates", 1.0)
    for number in range(1_000):
        text = json.dumps({"event": str(number), "channel": "updates", "data": "1"})
        inboxes.take(1, print, [text.encode()], Moment(0.0, 0.0))
        channel.newest_event(None)
    assert len(channel.newest) <= 100
    assert len(channel.decoded) <= 100


async def test_messages_come_in_order_whatever_their_length_and_however_they_are_cut() -> None:
    texts = ["", "1" * 60, "2" * 125, "3" * 126, "4" * 65_400, "5" * 65_536, "6" * 200_000, "7"]

    async def send(connection: ServerConnection) -> None:
        for text in texts:
            frame = json.dumps({"event": "updated", "channel": "updates", "data": text})
            await connection.send(frame)
            await connection.send([frame[:10], frame[10:20], frame[20:]])
            await connection.ping()

    async with websocket_server(send_once_subscribed(send)) as endpoint, open_stream(endpoint) as stream:
        assert await data_of(stream, 2 * len(texts)) == [text for text in texts for _ in range(2)]
        assert stream.connections == 1


async def test_frames_that_arrive_in_one_piece_are_all_seen_the_last_ones_too() -> None:
    def text(event: str, data: str) -> bytes:
        payload = json.dumps({"event": event, "channel": "updates", "data": data}).encode()
        return Frame(Opcode.TEXT, payload).serialize(mask=False)

    async def in_one_piece(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await connection.recv()
        ping = Frame(Opcode.PING, b"!").serialize(mask=False)
        close = b"\x88\x02" + (4001).to_bytes(2)
        confirmed = text("pusher_internal:subscription_succeeded", "{}")
        connection.transport.write(text("updated", "1") + ping + confirmed + text("updated", "2") + ping + close)
        await connection.wait_closed()

    async with websocket_server(in_one_piece) as endpoint, open_stream(endpoint) as stream:
        assert await data_of(stream, 2) == ["1", "2"]
        with pytest.raises(QuoineStreamRefusedError, match="4001"):
            await next_event(stream)


async def test_nothing_crosses_to_the_loop_unless_somebody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def send(connection: ServerConnection) -> None:
        for round_ in range(2):
            await go_on[round_].wait()
            for number in range(500):
                await send_event(connection, "updates", f"{round_} {number}")

    go_on = [asyncio.Event(), asyncio.Event()]
    loop = asyncio.get_running_loop()
    crossings = 0

    def count(*args: Any, original: Callable[..., Any] = loop.call_soon_threadsafe, **kwargs: Any) -> Any:
        nonlocal crossings
        crossings += 1
        return original(*args, **kwargs)

    async with (
        websocket_server(send_once_subscribed(send)) as endpoint,
        open_stream(endpoint, queue_size=None) as newest,
        open_stream(endpoint) as all_of_it,
    ):
        await ready(newest)
        inbox = newest._listener.channels["updates"]
        monkeypatch.setattr(loop, "call_soon_threadsafe", count)
        go_on[0].set()
        await until(lambda: inbox.count == 500)
        assert crossings == 0
        assert len(await data_of(all_of_it, 500)) == 500
        assert crossings == 0, "messages that are there already need no wake-up"
        await newest.news()
        waiting = asyncio.create_task(newest.news())
        await asyncio.sleep(0)
        go_on[1].set()
        await until(lambda: inbox.count == 1000)
        await waiting
        assert crossings == 1


async def test_a_message_in_the_middle_of_a_fragmented_one_breaks_the_connection() -> None:
    text = b'{"event":"updated","channel":"updates","data":"1"}'

    async def send(connection: ServerConnection) -> None:
        # Its beginning is known from then on, and such messages take the short way.
        await connection.send(text.decode())
        begun = Frame(Opcode.TEXT, text[:9], fin=False).serialize(mask=False)
        connection.transport.write(begun + Frame(Opcode.TEXT, text).serialize(mask=False))

    async with websocket_server(send_once_subscribed(send)) as endpoint, open_stream(endpoint) as stream:
        await until(lambda: stream.connections >= 2)
        assert "Illegal frame" in stream.gaps[0].reason


async def test_a_message_that_comes_just_before_it_is_wanted_is_not_slept_over(monkeypatch: pytest.MonkeyPatch) -> None:
    message = b'{"event":"updated","channel":"updates","data":"1"}'

    inboxes = Inboxes(asyncio.get_running_loop())
    channel = inboxes.channels["updates"] = Channel("updates", 1.0)
    listener = Listener(["updates"], None, CLOCK)
    listener.channels["updates"] = channel

    def want(self: Channel, wanted: bool) -> None:
        if wanted and not channel.count:
            inboxes.take(1, print, [message], Moment(0.0, 0.0))

    monkeypatch.setattr(Channel, "wanted", property(lambda self: False, want), raising=False)
    async with asyncio.timeout(LIMIT):
        await listener.wait_until(lambda: listener.news)


@pytest.mark.parametrize("together", [True, False])
async def test_an_event_that_came_in_one_segment_after_a_message_that_cannot_be_read_is_current(together: bool) -> None:
    inboxes, at = Inboxes(asyncio.get_running_loop()), Moment(1.0, 70_000.0)
    channel = inboxes.channels["updates"] = Channel("updates", 1.0)

    def take(*payloads: bytes) -> None:
        # Whole frames that are short are taken one by one, with the moment of their segment.
        for each in [list(payloads)] if together else [[payload] for payload in payloads]:
            inboxes.take(1, lambda *_: None, each, at)

    def is_current() -> bool:
        event = channel.newest_event("updated")
        assert event is not None
        return channel.doubtful_until < event.monotonic

    good, bad = b'{"event":"updated","channel":"updates","data":"1"}', b"no JSON"
    take(good, bad)
    assert not is_current()
    take(bad, good)
    assert is_current()
    take(bad, good, bad)
    assert not is_current()
    take(good)
    assert is_current()
