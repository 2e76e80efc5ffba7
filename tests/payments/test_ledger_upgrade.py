"""A ledger of an older schema is upgraded in place: whole or not at all, by one of many."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, inspect, make_url, select, text
from sqlalchemy.pool import NullPool

from airflow_provider_quoine.payments import database
from airflow_provider_quoine.payments.refusals import LedgerUnusableError, PaymentRefusedError
from airflow_provider_quoine.payments.schema import LEDGER, PAYMENTS, SCHEMA_VERSION, UPGRADES, Step
from tests.payments.processes import Processes, identities, open_engine, open_ledger, payment

#: Written by the code of version 1: one payment prepared, one sent, one unknown, one refused, and one held.
VERSION_1 = (Path(__file__).parent / "ledger_of_version_1.sql").read_text(encoding="utf-8")
IDENTITY = "70dbae6a-72e2-473c-ae3e-817ea8f0b6cb"


@pytest.fixture
def old(where: str) -> str:
    """A database with a ledger of version 1."""
    url: URL = make_url(where)
    if url.drivername == "sqlite":
        Path(str(url.database)).parent.mkdir()
    with create_engine(url, poolclass=NullPool).begin() as connection:
        for statement in VERSION_1.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
    return where


def columns(where: str) -> dict[str, tuple[str, bool]]:
    """The columns of the payments, with type and whether they may be empty."""
    found = inspect(open_engine(where)).get_columns(PAYMENTS.name)
    return {column["name"]: (str(column["type"]), column["nullable"]) for column in found}


def version(where: str) -> int:
    """The schema's version that a database says, without an upgrade."""
    with create_engine(where, poolclass=NullPool).connect() as connection:
        return int(connection.execute(select(LEDGER.c.schema_version)).scalar_one())


def test_what_was_in_it_is_there_and_goes_on(old: str) -> None:
    ledger = open_ledger(old)
    assert (ledger.identity, ledger.faults(), version(old)) == (IDENTITY, [], SCHEMA_VERSION)
    found = {payment.order.reference: payment for payment in ledger.all()}
    assert [found[f"invoice-{number}"].step for number in range(1, 6)] == [
        Step.PREPARED,
        Step.SENT,
        Step.UNKNOWN,
        Step.REFUSED,
        Step.HELD,
    ]
    sent = found["invoice-2"]
    assert (sent.exchange_id, sent.state, sent.order.conn_id, sent.order.details) == (
        "5002",
        "",
        "",
        payment(2).details,
    )
    assert ledger.prepare(payment(1), actor="task").step == Step.PREPARED
    with pytest.raises(PaymentRefusedError, match="outcome is unknown"):
        ledger.prepare(payment(3), actor="task")
    ledger.release(payment(5), who="ann", why="not paid")
    assert ledger.faults() == []


def test_it_then_has_the_columns_of_a_new_one(old: str) -> None:
    upgraded = columns(old)
    assert upgraded.keys() == {column.name for column in PAYMENTS.columns}
    assert all(upgraded[column.name][1] == column.nullable for column in PAYMENTS.columns)
    indexes = {index["name"] for index in inspect(open_engine(old)).get_indexes(PAYMENTS.name)}
    assert indexes == {index.name for index in PAYMENTS.indexes}


def test_of_many_that_open_it_at_once_one_upgrades_it(old: str, processes: Processes) -> None:
    assert set(processes.run(identities, old)) == {IDENTITY}
    assert version(old) == SCHEMA_VERSION


def test_a_file_from_a_dump_is_opened_once_its_writer_is_done(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    # As `sqlite3 dump | sqlite3 ledger.db` does: the file is not in WAL.
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as writer:
        writer.executescript(VERSION_1)
        writer.execute("BEGIN IMMEDIATE")
        done = threading.Timer(0.3, writer.commit)
        done.start()
        try:
            assert open_ledger(f"sqlite:///{path}").identity == IDENTITY
        finally:
            done.join()


def test_an_upgrade_that_fails_leaves_the_old_one(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        steps = (*UPGRADES[1], "ALTER TABLE nowhere ADD COLUMN x TEXT")
        broken.setattr(database, "UPGRADES", {1: steps})
        with pytest.raises(LedgerUnusableError, match="Nothing is sent without it"):
            open_ledger(old)
    assert version(old) == 1
    with create_engine(old, poolclass=NullPool).connect() as connection:
        names = connection.execute(text("SELECT * FROM quoine_payments")).keys()
    assert "conn_id" not in names
    assert open_ledger(old).identity == IDENTITY
