"""Ways to receive a stream; each counts the messages that it received between two moments."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

WARM_UP = 1.0
Count = Callable[[], int]


def subscribe_frame(channel: str) -> str:
    """Write the frame that subscribes to a channel."""
    return json.dumps({"event": "pusher:subscribe", "data": {"channel": channel}})


def run(pipe: Connection, core: int | None, way: str, port: int, channels: list[str], seconds: float) -> None:
    """Receive a stream in one way; report messages a second, and their cost."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    pipe.send(WAYS[way](port, channels, seconds))
    os._exit(0)


def _measure(count: Count, seconds: float) -> dict[str, float]:
    time.sleep(WARM_UP)
    before, began, cpu = count(), time.perf_counter(), time.process_time()
    time.sleep(seconds)
    return _figures(count() - before, time.perf_counter() - began, time.process_time() - cpu)


async def _measure_on_loop(count: Count, seconds: float) -> dict[str, float]:
    await asyncio.sleep(WARM_UP)
    before, began, cpu = count(), time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    return _figures(count() - before, time.perf_counter() - began, time.process_time() - cpu)


def _figures(taken: int, took: float, cpu: float) -> dict[str, float]:
    return {"messages/s": taken / took, "us of processor each": 1e6 * cpu / max(taken, 1)}


def stock_pysher(port: int, channels: list[str], seconds: float) -> dict[str, float]:
    """Take it by pysher as it comes, with one callback for each channel that keeps the newest text."""
    import pysher

    logging.basicConfig(filename=os.devnull, level=logging.WARNING)
    newest: dict[str, str] = {}
    taken = 0
    client = pysher.Pusher("key", secure=False, custom_host="127.0.0.1", port=port)

    def keep(channel: str) -> Callable[[str], None]:
        def callback(data: str) -> None:
            nonlocal taken
            newest[channel] = data
            taken += 1

        return callback

    def subscribe(_: str) -> None:
        for channel in channels:
            client.subscribe(channel).bind("updated", keep(channel))

    client.connection.bind("pusher:connection_established", subscribe)
    client.connect()
    return _measure(lambda: taken, seconds)


def bare_websocket_client(port: int, channels: list[str], seconds: float) -> dict[str, float]:
    """Take it by a bare loop over websocket-client, decoding each frame to keep the newest of each channel."""
    import websocket

    link = websocket.create_connection(f"ws://127.0.0.1:{port}/app/key?protocol=7")
    for channel in channels:
        link.send(subscribe_frame(channel))
    return _loop(lambda: json.loads(link.recv()), seconds)


def _loop(take: Callable[[], dict[str, Any]], seconds: float) -> dict[str, float]:
    newest: dict[str | None, Any] = {}
    taken, cpu = 0, 0.0
    warm = time.perf_counter() + WARM_UP
    began = end = 0.0
    while not end or time.perf_counter() < end:
        frame = take()
        newest[frame.get("channel")] = frame.get("data")
        taken += 1
        if not end and time.perf_counter() >= warm:
            taken, cpu, began = 0, time.process_time(), time.perf_counter()
            end = began + seconds
    return _figures(taken, time.perf_counter() - began, time.process_time() - cpu)


def bare_websockets(port: int, channels: list[str], seconds: float) -> dict[str, float]:
    """Take it by the ``websockets`` library, and do nothing with it: the most that it can."""
    return asyncio.run(_by_websockets(port, channels, seconds, lambda message: None))


def websockets_newest(port: int, channels: list[str], seconds: float) -> dict[str, float]:
    """Take it by the ``websockets`` library, decoding each frame to keep the newest of each channel."""
    newest: dict[str | None, Any] = {}

    def keep(message: str | bytes) -> None:
        frame = json.loads(message)
        newest[frame.get("channel")] = frame.get("data")

    return asyncio.run(_by_websockets(port, channels, seconds, keep))


async def _by_websockets(
    port: int, channels: list[str], seconds: float, use: Callable[[str | bytes], None]
) -> dict[str, float]:
    from websockets.asyncio.client import connect

    taken = 0
    async with connect(f"ws://127.0.0.1:{port}/app/key?protocol=7", compression=None) as link:
        for channel in channels:
            await link.send(subscribe_frame(channel))
        measuring = asyncio.create_task(_measure_on_loop(lambda: taken, seconds))
        async for message in link:
            use(message)
            taken += 1
            if measuring.done():
                break
        return await measuring


def ours_newest(port: int, channels: list[str], seconds: float) -> dict[str, float]:
    """Keep the newest of each channel by our stream."""
    return asyncio.run(_by_ours(port, channels, seconds, None))


def ours_queue(port: int, channels: list[str], seconds: float) -> dict[str, float]:
    """Hand every message to a consumer on the loop by our stream."""
    return asyncio.run(_by_ours(port, channels, seconds, 100_000))


async def _by_ours(port: int, channels: list[str], seconds: float, queue_size: int | None) -> dict[str, float]:
    from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint, PusherStream

    endpoint = PusherEndpoint(key="key", host="127.0.0.1", port=port, tls=False)
    async with PusherStream(endpoint=endpoint, channels=channels, queue_size=queue_size) as stream:
        inboxes = tuple(stream._listener.channels.values())
        if queue_size is None:
            figures = await _measure_on_loop(lambda: sum(inbox.count for inbox in inboxes), seconds)
            assert all(stream.newest(channel) for channel in channels)
            return figures
        taken = 0
        measuring = asyncio.create_task(_measure_on_loop(lambda: taken, seconds))
        async for _ in stream:
            taken += 1
            if measuring.done():
                break
        return {**await measuring, "dropped": float(stream.dropped)}


WAYS: dict[str, Callable[[int, list[str], float], dict[str, float]]] = {
    "pysher as it is": stock_pysher,
    "websocket-client, bare loop": bare_websocket_client,
    "websockets, nothing kept": bare_websockets,
    "websockets, newest kept": websockets_newest,
    "ours, newest kept": ours_newest,
    "ours, every one on the loop": ours_queue,
}
