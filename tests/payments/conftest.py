"""Ledgers for tests: in a file, and in a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

from airflow_provider_quoine.payments.ledger import Ledger
from tests.payments.processes import Processes, open_ledger
from tools.postgres_server import PostgresServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Run PostgreSQL."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    """Run processes that use a ledger at the same time."""
    running = Processes()
    yield running
    running.stop()


@pytest.fixture(params=["file", pytest.param("postgresql", marks=pytest.mark.cluster)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """SQLAlchemy's URL of a database for a new ledger, of either kind."""
    if request.param == "file":
        return f"sqlite:///{tmp_path / 'quoine' / 'ledger.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return str(server.new_database())


@pytest.fixture
def ledger(where: str) -> Ledger:
    """An empty ledger of either kind."""
    return open_ledger(where)


@contextmanager
def _out_of_reach(where: str, request: pytest.FixtureRequest) -> Iterator[None]:
    if where.startswith("sqlite"):
        # A folder in the file's place: its modes would not keep root out.
        path = Path(str(make_url(where).database))
        path.rename(path.with_name("away"))
        path.mkdir()
        yield
        path.rmdir()
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        server.kill()
        yield
        server.start()


@pytest.fixture
def out_of_reach(request: pytest.FixtureRequest) -> Callable[[str], AbstractContextManager[None]]:
    """Take a database away for a while."""
    return lambda where: _out_of_reach(where, request)
