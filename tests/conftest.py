"""What every test may use: a sandbox exchange of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    """Run a fresh sandbox on a free port, with a fast pace."""
    with SandboxServer(SandboxSettings(pace=0.05)) as server:
        yield server
