"""What the sandbox's tests share: a partner to call it, and a clock to turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.sandbox.partner import Partner


class Clock:
    """A clock that stands until it is turned."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    """Stand at a time that the vectors were signed at."""
    return Clock(1411793717.0)


@pytest.fixture
def partner(sandbox: SandboxServer) -> Partner:
    """Call the sandbox of this test."""
    return Partner(sandbox)


@pytest.fixture
def by_hand() -> Iterator[Partner]:
    """Call a sandbox in which nothing moves by itself, and no two codes are the same by chance."""
    with SandboxServer(SandboxSettings(pace=None, code_digits=12)) as server:
        yield Partner(server)


@pytest.fixture
def quiet() -> Iterator[SandboxServer]:
    """A sandbox whose market is silent, so that a test says every event itself."""
    with SandboxServer(SandboxSettings(market_rate=0)) as server:
        yield server
