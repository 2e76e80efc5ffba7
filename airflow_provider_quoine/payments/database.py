"""Where the ledger is kept: a SQLite file on one host, or PostgreSQL where there are several."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select
from sqlalchemy.pool import NullPool

from airflow_provider_quoine.payments.chain import FIRST_HASH
from airflow_provider_quoine.payments.ledger import LedgerUnusableError
from airflow_provider_quoine.payments.schema import LEDGER, SCHEMA_VERSION, metadata

BUSY_SECONDS = 30
"""How long a writer waits for others (decisions, Payments)."""


def open_file(path: Path) -> Engine:
    """
    Open a ledger in a SQLite file, and make it on first use; nobody but its owner may read it.

    :raises LedgerUnusableError: if the file cannot be used.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Made first, since SQLite would make it readable for others, and takes its mode for the files beside it.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    return open_sqlite(create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_SECONDS}, poolclass=NullPool))


def open_sqlite(engine: Engine) -> Engine:
    """Have SQLite lock, sync and wait as the ledger needs it, and make the tables."""
    event.listen(engine, "connect", _prepare_sqlite)
    # pysqlite would begin late, and as a reader: two writers would then fail instead of waiting for each other.
    event.listen(engine, "begin", _begin_at_once)
    return _with_tables(engine)


def open_server(url: str) -> Engine:
    """
    Open a ledger in PostgreSQL, and make it on first use.

    :param url: SQLAlchemy's.
    :raises LedgerUnusableError: if it cannot be reached.
    """
    return _with_tables(create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": BUSY_SECONDS}))


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_at_once(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _with_tables(engine: Engine) -> Engine:
    with engine.begin() as connection:
        if not inspect(connection).has_table(LEDGER.name):
            metadata.create_all(connection)
        if connection.execute(select(LEDGER)).first() is None:
            new = {"identity": str(uuid.uuid4()), "schema_version": SCHEMA_VERSION, "head": 0, "head_hash": FIRST_HASH}
            connection.execute(insert(LEDGER).values(new))
        version = connection.execute(select(LEDGER.c.schema_version)).scalar_one()
    if version > SCHEMA_VERSION:
        raise LedgerUnusableError(
            f"The ledger was written by a newer version of airflow-provider-quoine (its schema is {version}, this one "
            f"knows {SCHEMA_VERSION}). Nothing was sent. Upgrade this host."
        )
    return engine
