"""Fixtures of the tests of triggers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings


@pytest.fixture
def market(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    """Run a silent market that ``quoine_default`` connects to."""
    with SandboxServer(SandboxSettings(market_rate=0)) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", sandbox.airflow_connection())
        yield sandbox
