"""Fixtures of the stream's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_quoine.exchange.stream.pusher import open_connections
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.support.streams import stream_threads


@pytest.fixture
def quiet_sandbox() -> Iterator[SandboxServer]:
    """A sandbox that sends only what a test publishes."""
    with SandboxServer(SandboxSettings(market_rate=0)) as server:
        yield server


@pytest.fixture
def no_connection_is_left() -> Iterator[None]:
    """After the test no connection is open, and no thread of one runs."""
    yield
    assert open_connections() == 0
    assert stream_threads() == []
