"""Fixtures of the sandbox's tests: clients of the partner API, and a clock."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.support.clock import ManualClock
from tests.support.partner import Partner


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands at the time at which the test vectors were signed."""
    return ManualClock(1411793717.0)


@pytest.fixture
def partner(sandbox: SandboxServer) -> Partner:
    """A client of the sandbox that every test may use."""
    return Partner(sandbox)


@pytest.fixture
def by_hand() -> Iterator[Partner]:
    """A client of a sandbox where nothing advances by itself, with codes too long to be equal by chance."""
    with SandboxServer(SandboxSettings(pace=None, code_digits=12)) as server:
        yield Partner(server)
