"""A server that confirms what nobody asked for, twice, too late, not at all, or before it greets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from websockets.asyncio.server import ServerConnection

from tests.exchange.stream.pusher_servers import GREETING, confirm, send_event, websocket_server
from tests.support.streams import next_event, open_stream, ready, until


async def subscriptions_but_steady(connection: ServerConnection) -> AsyncIterator[str]:
    """Greet, confirm the channel "steady", and yield the other channels as they are subscribed to."""
    await connection.send(GREETING)
    async for text in connection:
        frame = json.loads(text)
        if frame["event"] == "pusher:subscribe" and frame["data"]["channel"] == "steady":
            await confirm(connection, "steady")
        elif frame["event"] == "pusher:subscribe":
            yield frame["data"]["channel"]


async def test_a_channel_confirmed_twice_is_not_ready_too_early_later() -> None:
    asked, looked = 0, asyncio.Event()

    async def script(connection: ServerConnection) -> None:
        nonlocal asked
        async for _ in subscriptions_but_steady(connection):
            asked += 1
            if asked == 1:
                await confirm(connection, "fickle")
                await confirm(connection, "fickle")
                await send_event(connection, "fickle", "confirmed twice")
            if asked == 3:
                await confirm(connection, "fickle")
                await send_event(connection, "steady", "the second subscription is confirmed")
                await looked.wait()
                await confirm(connection, "fickle")
                await send_event(connection, "fickle", "first of the third subscription")

    async with websocket_server(script) as endpoint, open_stream(endpoint, "steady") as steady:
        await ready(steady)
        async with open_stream(endpoint, "fickle") as fickle:
            assert (await next_event(fickle)).data == "confirmed twice"
            for _ in range(10):
                # Turns in which both confirmations are acted on: each takes one.
                await asyncio.sleep(0)
        async with open_stream(endpoint, "fickle"):
            pass
        async with open_stream(endpoint, "fickle") as fickle:
            assert (await next_event(steady)).data == "the second subscription is confirmed"
            assert not fickle.confirmed, "the third one is not"
            looked.set()
            assert (await next_event(fickle)).data == "first of the third subscription"
            await until(lambda: fickle.confirmed)


async def test_what_is_confirmed_before_the_greeting_was_not_asked_for_yet() -> None:
    looked = asyncio.Event()

    async def script(connection: ServerConnection) -> None:
        await confirm(connection, "updates")
        await connection.send(GREETING)
        async for text in connection:
            frame = json.loads(text)
            if frame["event"] == "pusher:subscribe":
                await send_event(connection, "updates", "asked")
                await looked.wait()
                await confirm(connection, "updates")

    async with websocket_server(script) as endpoint, open_stream(endpoint) as stream:
        assert (await next_event(stream)).data == "asked"
        assert not stream.confirmed
        looked.set()
        await ready(stream)


async def test_a_late_answer_is_not_taken_for_that_of_the_next_subscription() -> None:
    looked = asyncio.Event()

    async def script(connection: ServerConnection) -> None:
        asked = 0
        async for _ in subscriptions_but_steady(connection):
            asked += 1
            if asked == 2:
                await confirm(connection, "late")
                await send_event(connection, "steady", "the first subscription is confirmed")
                await looked.wait()
                await confirm(connection, "late")
                await send_event(connection, "late", "first of the second subscription")

    async with (
        websocket_server(script) as endpoint,
        open_stream(endpoint, "steady", "late", subscribe_timeout=2.0) as stream,
    ):
        assert (await next_event(stream)).data == "the first subscription is confirmed"
        too_early = stream.confirmed
        looked.set()
        assert not too_early, "the second one is not"
        assert (await next_event(stream)).data == "first of the second subscription"
        await until(lambda: stream.confirmed)
        assert stream.connections == 1


async def test_a_channel_is_ready_at_last_where_an_answer_was_lost() -> None:
    async def script(connection: ServerConnection) -> None:
        asked = 0
        await connection.send(GREETING)
        async for text in connection:
            frame = json.loads(text)
            if frame["event"] == "pusher:subscribe":
                asked += 1
                # That to the first subscription of the second channel.
                if asked != 2:
                    await confirm(connection, frame["data"]["channel"])

    async with (
        websocket_server(script) as endpoint,
        open_stream(endpoint, "steady", "silent", subscribe_timeout=0.2) as stream,
    ):
        await until(lambda: stream.confirmed)
        assert stream.connections == 1
