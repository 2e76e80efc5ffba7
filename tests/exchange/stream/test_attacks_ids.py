"""Ids of connections, while the clock is set back."""

from __future__ import annotations

import dataclasses
from functools import partial

from websockets.asyncio.server import ServerConnection

from airflow_provider_quoine.exchange.clock import Clock
from tests.exchange.stream.pusher_servers import send_event, send_once_subscribed, websocket_server
from tests.support.streams import next_event, open_stream


async def test_ids_of_connections_rise_though_the_clock_is_set_back() -> None:
    async def send(connection: ServerConnection) -> None:
        await send_event(connection, "updates", "1")

    ids = []
    async with websocket_server(send_once_subscribed(send)) as endpoint:
        for now in (2e9, 1e9, 1e9):
            async with open_stream(dataclasses.replace(endpoint, clock=Clock(wall=partial(float, now)))) as stream:
                ids.append((await next_event(stream)).connection)
    assert ids == sorted(set(ids))
