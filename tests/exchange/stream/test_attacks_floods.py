"""A server that sends the protocol's own events faster than they are acted on."""

from __future__ import annotations

import asyncio

from airflow_provider_quoine.exchange.stream import supervisor
from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.support.streams import endpoint_of, open_stream, ready, until


async def test_a_flood_of_the_protocols_own_events_leaves_other_tasks_their_turns(quiet_sandbox: SandboxServer) -> None:
    async with open_stream(endpoint_of(quiet_sandbox)) as stream:
        await ready(stream)
        assert stream._hub is not None
        session = stream._hub.supervisor._session
        assert session is not None
        for _ in range(1_000):
            session.signals.put_nowait(("pusher:cache_miss", {}, None))
        for _ in range(10):
            await asyncio.sleep(0)
        assert session.signals.qsize() > 900, "else all of them were acted on in one turn of the event loop"


async def test_a_flood_without_end_ends_the_connection(quiet_sandbox: SandboxServer) -> None:
    async with open_stream(endpoint_of(quiet_sandbox)) as stream:
        await ready(stream)
        assert stream._hub is not None
        session = stream._hub.supervisor._session
        assert session is not None
        for _ in range(supervisor.MOST_SIGNALS + 10):
            session.signals.put_nowait(("pusher:cache_miss", {}, None))
        await until(lambda: stream.gaps)
        assert "more of the protocol's own events" in stream.gaps[0].reason
