"""Pusher servers that misbehave in ways that the sandbox does not."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint

KEY = "app-key-of-the-tests"
Script = Callable[[ServerConnection], Awaitable[None]]
TcpScript = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def greeting(data: Any) -> str:
    return json.dumps({"event": "pusher:connection_established", "data": data})


GREETING = greeting('{"socket_id": "1.1", "activity_timeout": 120}')


async def greet_and_confirm(connection: ServerConnection) -> None:
    """Behave: greet, confirm every channel, answer every ping."""
    await connection.send(GREETING)
    async for message in connection:
        frame = json.loads(message)
        if frame["event"] == "pusher:subscribe":
            await confirm(connection, frame["data"]["channel"])
        if frame["event"] == "pusher:ping":
            await connection.send('{"event": "pusher:pong", "data": {}}')


async def confirm(connection: ServerConnection, channel: str) -> None:
    await connection.send(
        json.dumps({"event": "pusher_internal:subscription_succeeded", "channel": channel, "data": {}})
    )


async def send_event(connection: ServerConnection, channel: str, data: Any) -> None:
    await connection.send(json.dumps({"event": "updated", "channel": channel, "data": data}))


@asynccontextmanager
async def websocket_server(script: Script, *, tls: SSLContext | None = None) -> AsyncIterator[PusherEndpoint]:
    """Run a script for every WebSocket that is opened."""

    async def play(connection: ServerConnection) -> None:
        try:
            await script(connection)
        except ConnectionClosed:
            return

    async with serve(play, "127.0.0.1", 0, ssl=tls, ping_interval=None, close_timeout=0.2) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield PusherEndpoint(key=KEY, host="127.0.0.1", port=port, tls=tls is not None)


async def accept_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept a connection and say nothing."""
    await reader.read()


@asynccontextmanager
async def tcp_server(script: TcpScript) -> AsyncIterator[PusherEndpoint]:
    """Run a script for every TCP connection."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(play, "127.0.0.1", 0)
    try:
        yield PusherEndpoint(key=KEY, host="127.0.0.1", port=server.sockets[0].getsockname()[1], tls=False)
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def black_hole() -> AsyncIterator[PusherEndpoint]:
    """Be a port where no TCP connection is ever answered: a listener whose queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            await asyncio.sleep(0)
            yield PusherEndpoint(key=KEY, host="127.0.0.1", port=listener.getsockname()[1], tls=False)
        finally:
            for filler in fillers:
                filler.close()


def send_once_subscribed(send: Script) -> Script:
    """Make a server that confirms the channel ``updates``, sends, and waits."""

    async def script(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await connection.recv()
        await confirm(connection, "updates")
        await send(connection)
        await connection.wait_closed()

    return script
