"""Where the ledger is kept: a SQLite file on one host, or PostgreSQL where there are several."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import uuid
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, insert, inspect, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from airflow_provider_quoine.payments.chain import FIRST_HASH
from airflow_provider_quoine.payments.refusals import LedgerUnusableError
from airflow_provider_quoine.payments.schema import LEDGER, READING, SCHEMA_VERSION, UPGRADES, metadata

BUSY_SECONDS = 30
"""How long a writer waits for others (decisions, Payments)."""

CREATION_LOCK = int.from_bytes(b"quoine")
"""PostgreSQL's advisory lock that a process holds while it makes the tables."""

CONNECT_ARGS = {
    "connect_timeout": BUSY_SECONDS,
    # A host that dies in a transaction, or a server that does, must be noticed.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": BUSY_SECONDS * 1000,
    # PgBouncer gives each transaction another session, which knows no statements of the one before.
    "prepare_threshold": None,
}
"""Of psycopg and libpq."""


def open_file(path: Path) -> Engine:
    """
    Open a ledger in a SQLite file, and make it on first use; nobody but its owner may read it.

    :raises LedgerUnusableError: if the file cannot be used.
    """
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_SECONDS}, poolclass=NullPool)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _make_file(path)
        elif path.stat().st_mode & 0o077:
            # As a file that comes from a backup.
            path.chmod(0o600)
    except OSError as error:
        raise LedgerUnusableError.unreachable(engine.url, error) from error
    return open_sqlite(engine)


def _make_file(path: Path) -> None:
    """
    Make an empty file that nobody but its owner may read; SQLite takes its mode for the files beside it.

    It gets its name after it was closed: to close a file drops all locks that this process has on it, and with them
    those of SQLite in other threads.
    """
    descriptor, unnamed = tempfile.mkstemp(dir=path.parent)
    os.close(descriptor)
    with closing(sqlite3.connect(unnamed)) as connection:
        # Before others can open it: of several that switch to WAL at once, some fail at once instead of waiting.
        connection.execute("PRAGMA journal_mode=WAL").close()
    with suppress(FileExistsError):
        os.link(unnamed, path)
    os.unlink(unnamed)


def open_sqlite(engine: Engine) -> Engine:
    """Have SQLite lock, sync and wait as the ledger needs it, and make the tables."""
    event.listen(engine, "connect", _prepare_sqlite)
    # pysqlite would begin late, and as a reader: two writers would then fail instead of waiting for each other.
    event.listen(engine, "begin", _begin_at_once)
    return _with_tables(engine)


def open_server(url: URL) -> Engine:
    """
    Open a ledger in PostgreSQL, and make it on first use.

    :param url: of a database, with psycopg as the driver.
    :raises LedgerUnusableError: if it cannot be reached or used.
    """
    try:
        engine = create_engine(url, poolclass=NullPool, isolation_level="READ COMMITTED", connect_args=CONNECT_ARGS)
    except ModuleNotFoundError:
        raise LedgerUnusableError(
            "The ledger of payments is in PostgreSQL, and its driver is not installed. Nothing was sent. Install "
            "airflow-provider-quoine[postgres] on this host."
        ) from None
    event.listen(engine, "begin", _set_limits)
    return _with_tables(engine)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    # An event whose text was damaged is read, so that it can be named.
    connection.text_factory = lambda data: data.decode(errors="replace")
    _switch_to_wal(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_BUSY


@retry(retry=retry_if_exception(_is_busy), wait=wait_fixed(0.05), stop=stop_after_delay(BUSY_SECONDS), reraise=True)
def _switch_to_wal(connection: Any) -> None:
    # A file that comes from a dump is not in WAL, and SQLite does not wait for a writer before it changes that.
    connection.execute("PRAGMA journal_mode=WAL").close()


def _begin_at_once(connection: Connection) -> None:
    # A reader sees one state of the ledger, and holds nobody up.
    connection.exec_driver_sql("BEGIN" if _is_reading(connection) else "BEGIN IMMEDIATE")


def _is_reading(connection: Connection) -> bool:
    """Whether a connection was opened to read only."""
    return bool(connection.get_execution_options().get(READING))


def _set_limits(connection: Connection) -> None:
    if _is_reading(connection):
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    # In the transaction and not at the connection's start, which PgBouncer would refuse.
    connection.exec_driver_sql(
        f"SET LOCAL lock_timeout = '{BUSY_SECONDS}s'; SET LOCAL synchronous_commit = on; "
        f"SET LOCAL idle_in_transaction_session_timeout = '{BUSY_SECONDS}s'"
    )


def _with_tables(engine: Engine) -> Engine:
    try:
        with engine.begin() as connection:
            _make_tables(connection)
    except SQLAlchemyError as error:
        raise LedgerUnusableError.unreachable(engine.url, error) from error
    return engine


def _make_tables(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        # On first use several processes make the tables at once. SQLite's transaction locks the whole file already.
        connection.execute(select(func.pg_advisory_xact_lock(CREATION_LOCK)))
    version = None
    if inspect(connection).has_table(LEDGER.name):
        version = connection.execute(select(LEDGER.c.schema_version)).scalar_one_or_none()
    if version is None:
        metadata.create_all(connection)
        new = {"identity": str(uuid.uuid4()), "schema_version": SCHEMA_VERSION, "head": 0, "head_hash": FIRST_HASH}
        connection.execute(insert(LEDGER).values(new))
    elif version > SCHEMA_VERSION:
        raise LedgerUnusableError(
            f"The ledger was written by a newer version of airflow-provider-quoine (its schema is {version}, this one "
            f"knows {SCHEMA_VERSION}). Nothing was sent. Upgrade this host."
        )
    elif version < SCHEMA_VERSION:
        _upgrade(connection)


def _upgrade(connection: Connection) -> None:
    """Bring the tables of an older version up to this one, in the transaction that has found them."""
    # The ledger's row first, as every writer does, so that no two wait for each other.
    version = connection.execute(select(LEDGER.c.schema_version).with_for_update()).scalar_one()
    for older in range(version, SCHEMA_VERSION):
        for statement in UPGRADES[older]:
            connection.execute(text(statement))
    connection.execute(update(LEDGER).values(schema_version=SCHEMA_VERSION))
