"""Ids of connections, while the clock is set back."""

from __future__ import annotations

import dataclasses
from functools import partial

from airflow_provider_quoine.exchange.clock import Clock
from tests.exchange.stream.pusher_servers import greet_and_confirm, websocket_server
from tests.support.streams import open_stream, ready


async def test_ids_of_connections_rise_though_the_clock_is_set_back() -> None:
    ids = []
    async with websocket_server(greet_and_confirm) as endpoint:
        for now in (2e9, 1e9, 1e9):
            async with open_stream(dataclasses.replace(endpoint, clock=Clock(wall=partial(float, now)))) as stream:
                await ready(stream)
                ids.append(stream.connection)
    assert ids == sorted(set(ids))
