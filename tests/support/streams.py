"""Helpers for tests of streams: short time-outs, waiting for a condition, counting threads and descriptors."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint, PusherStream, StreamEvent, StreamTiming
from airflow_provider_quoine.sandbox.server import SandboxServer

BIDS = "price_ladders_cash_btcjpy_buy"
ASKS = "price_ladders_cash_btcjpy_sell"
"""The two sides of a pair's order book."""

LIMIT = 60.0
"""Seconds after which a wait in a test fails; none takes as long, on a busy machine neither."""


def endpoint_of(sandbox: SandboxServer, **changes: Any) -> PusherEndpoint:
    """Return the endpoint of a sandbox's stream."""
    given = {"key": sandbox.pusher_key, "host": "127.0.0.1", "port": sandbox.port, "tls": False}
    return PusherEndpoint(**{**given, **changes})


def figures(sandbox: SandboxServer) -> dict[str, Any]:
    """Return a sandbox's figures about its stream."""
    stream: dict[str, Any] = sandbox.control.state(requests=0)["stream"]
    return stream


async def control(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a control of the sandbox, off the event loop."""
    return await asyncio.to_thread(partial(call, *args, **kwargs))


def open_stream(
    endpoint: PusherEndpoint, *channels: str, queue_size: int | None = 1000, **timing: float
) -> PusherStream:
    """Return a stream that reconnects within a tenth of a second."""
    fast = StreamTiming(**{"first_wait": 0.01, "longest_wait": 0.1, "steady": 0.0, **timing})
    return PusherStream(
        endpoint=replace(endpoint, timing=fast), channels=channels or ("updates",), queue_size=queue_size
    )


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition; fail after :data:`LIMIT`."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - the condition is not an asyncio one
            await asyncio.sleep(0.005)


async def next_event(stream: PusherStream) -> StreamEvent:
    """Wait for one event; fail after :data:`LIMIT`."""
    async with asyncio.timeout(LIMIT):
        return await anext(aiter(stream))


async def ready(stream: PusherStream) -> None:
    """Wait until every channel is confirmed."""
    await until(lambda: stream.problem is None)


def stream_threads() -> list[str]:
    """Return the names of the running threads of streams."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("quoine-stream", "Pysher"))]


def open_descriptors() -> int:
    """Count the open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def our_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the records of streams; the servers of the tests log in the same process."""
    return [record for record in caplog.records if record.name.startswith("airflow_provider_quoine.exchange")]
