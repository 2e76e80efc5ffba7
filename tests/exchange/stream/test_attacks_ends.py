"""An event loop that ends before its streams were left, or while they are being left."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint, open_connections
from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.support.streams import endpoint_of, open_stream, ready, stream_threads


async def never_leave(endpoint: PusherEndpoint) -> None:
    stream = open_stream(endpoint)
    await stream.__aenter__()
    await ready(stream)


async def never_leave_what_is_not_ready(endpoint: PusherEndpoint) -> None:
    await open_stream(endpoint).__aenter__()


async def end_while_it_is_left(endpoint: PusherEndpoint) -> None:
    stream = open_stream(endpoint)
    await stream.__aenter__()
    await ready(stream)
    leaving = asyncio.create_task(stream.__aexit__(None, None, None))
    await asyncio.sleep(0)
    leaving.cancel()


@pytest.mark.parametrize("use", [never_leave, never_leave_what_is_not_ready, end_while_it_is_left])
def test_the_end_of_the_loop_closes_what_is_still_open(quiet_sandbox: SandboxServer, use: object) -> None:
    assert callable(use)
    asyncio.run(use(endpoint_of(quiet_sandbox)))
    assert open_connections() == 0
    assert stream_threads() == []
