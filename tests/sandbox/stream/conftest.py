"""Sandboxes for the tests of the stream."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings


@pytest.fixture
def quiet() -> Iterator[SandboxServer]:
    """A sandbox with a silent market, so that only the events of the test are sent."""
    with SandboxServer(SandboxSettings(market_rate=0)) as server:
        yield server


@pytest.fixture
def busy() -> Iterator[SandboxServer]:
    """A sandbox with 100 events per second on each channel."""
    with SandboxServer(SandboxSettings(market_rate=100)) as server:
        yield server
