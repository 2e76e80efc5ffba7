"""The ledger's databases: first use by many, a server that is killed, and each way in which a ledger cannot be used."""

from __future__ import annotations

import json
import shutil
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import URL, update

from airflow_provider_quoine.payments import configuration
from airflow_provider_quoine.payments.attempt import Attempt
from airflow_provider_quoine.payments.database import open_file, open_server
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.refusals import LedgerUnusableError
from airflow_provider_quoine.payments.schema import IN_DOUBT, LEDGER, SCHEMA_VERSION, Step
from tests.payments.memory import Memory
from tests.payments.processes import Processes, identities, open_engine, open_ledger, pay_on, payment
from tools.postgres_server import PostgresServer

OutOfReach = Callable[[str], AbstractContextManager[None]]


@pytest.mark.parametrize("round_", range(5))
def test_on_first_use_by_many_one_ledger_is_made(where: str, processes: Processes, round_: int) -> None:
    made = processes.run(identities, where)
    assert len(made) == 16
    assert len(set(made)) == 1


@pytest.mark.cluster
def test_postgresql_is_killed_in_the_middle(postgres: PostgresServer, processes: Processes) -> None:
    payments, where = 60, str(postgres.new_database())
    ledger = open_ledger(where)
    paying = processes.start(pay_on, where, payments, 8.0)
    for _ in range(3):
        time.sleep(1)
        postgres.kill()
        postgres.start()
    requests = [request for done in paying for request in done.result()]

    assert max(Counter(number for number, _ in requests).values()) == 1
    assert ledger.faults() == []
    # Each payment has gone on, or can be settled by a person: then it goes on.
    for number in range(payments):
        found = ledger.find(payment(number))
        if found is not None and found.step in IN_DOUBT:
            ledger.absent(payment(number), who="ann", why="it is not at the exchange")
        if found is None or found.step != Step.SENT:
            ledger.prepare(payment(number), actor="task")
            ledger.start_sending(
                payment(number), attempt="last", task="task", in_flight=timedelta(0), allow=lambda _: "policy"
            )
    assert ledger.faults() == []


# What makes a ledger unusable


def refused(ledger: Ledger) -> str:
    """Try to pay; return the words, and see that nothing was sent."""
    sent: list[str] = []
    attempt = Attempt(ledger=ledger, order=payment(1), task="task")
    with pytest.raises(LedgerUnusableError) as caught:
        attempt.begin()
    with pytest.raises(LedgerUnusableError):
        attempt.send(lambda _: sent.append("request"), identify=str, in_flight=timedelta(0), allow=lambda _: "policy")
    assert sent == []
    return str(caught.value)


def test_a_ledger_that_cannot_be_reached_any_more(where: str, out_of_reach: OutOfReach) -> None:
    memory = Memory()
    ledger = Ledger(open_engine(where), pin=memory)
    with out_of_reach(where):
        words = refused(ledger)
        with pytest.raises(LedgerUnusableError, match="cannot be reached"):
            open_engine(where)
    assert "cannot be reached, or it failed. Nothing is sent without it" in words
    assert "Once the database answers, clear the task." in words


def test_a_ledger_that_nobody_serves() -> None:
    url = URL.create(
        "postgresql+psycopg", username="u", password="hunter2", host="127.0.0.1", port=1, database="payments"
    )
    with pytest.raises(LedgerUnusableError, match=r"u:\*\*\*@127.0.0.1:1/payments cannot be reached") as caught:
        open_server(url)
    assert "hunter2" not in str(caught.value)


def test_a_server_without_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(LedgerUnusableError, match=r"Nothing was sent. Install airflow-provider-quoine\[postgres\]"):
        open_server(URL.create("postgresql+psycopg", host="127.0.0.1", port=1))


def test_another_ledger_than_the_pinned_one(where: str, tmp_path: Path) -> None:
    memory = Memory()
    Ledger(open_file(tmp_path / "first.db"), pin=memory).hold(payment(0), who="ann", why="paid by hand")
    words = refused(Ledger(open_engine(where), pin=memory))
    assert "is not the one that this Airflow's payments are in" in words
    assert "Nothing was sent. Configure the right one in [quoine] ledger_conn_id, or restore it." in words


def test_a_ledger_from_a_backup(tmp_path: Path) -> None:
    memory = Memory()
    ledger = Ledger(open_file(tmp_path / "ledger.db"), pin=memory)
    ledger.hold(payment(0), who="ann", why="paid by hand")
    shutil.copy(tmp_path / "ledger.db", tmp_path / "backup.db")
    ledger.release(payment(0), who="ann", why="not paid after all")
    words = refused(Ledger(open_file(tmp_path / "backup.db"), pin=memory))
    assert "This ledger is older than what Airflow has seen: event 3 is missing or another." in words
    assert "Nothing was sent. Restore a newer one, or follow 'A ledger from a backup'" in words


def test_a_ledger_of_a_newer_version_is_left_alone(where: str) -> None:
    engine = open_engine(where)
    with engine.begin() as connection:
        connection.execute(update(LEDGER).values(schema_version=SCHEMA_VERSION + 1))
    with pytest.raises(LedgerUnusableError, match=r"by a newer version of .+ Nothing was sent. Upgrade"):
        open_engine(where)


# Airflow's configuration


@pytest.mark.parametrize("executor", ["CeleryExecutor", "LocalExecutor,KubernetesExecutor", "a.module.Executor"])
def test_a_local_file_under_an_executor_with_several_hosts(monkeypatch: pytest.MonkeyPatch, executor: str) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    with pytest.raises(LedgerUnusableError, match=r"may run tasks on others. Nothing was sent. Name a"):
        configuration.open_ledger(pin=Memory())


def test_a_local_file_under_an_executor_with_one_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    configuration.open_ledger(pin=Memory()).prepare(payment(0), actor="task")
    assert stat.S_IMODE((tmp_path / "quoine" / "ledger.db").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("connection", "words"),
    [(None, "and there is none. Nothing was sent."), ({"conn_type": "mysql"}, "is of type mysql. Nothing was sent.")],
)
def test_a_connection_that_is_none(
    monkeypatch: pytest.MonkeyPatch, connection: dict[str, str] | None, words: str
) -> None:
    monkeypatch.setenv("AIRFLOW__QUOINE__LEDGER_CONN_ID", "payments_db")
    if connection:
        monkeypatch.setenv("AIRFLOW_CONN_PAYMENTS_DB", json.dumps(connection))
    with pytest.raises(LedgerUnusableError, match=words):
        configuration.open_ledger(pin=Memory())


def test_fields_of_a_connection_become_a_url_whatever_is_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"host": "db.example", "port": 6432, "login": "us@er:/", "password": "p@ss/%w:rd", "schema": "pay?ments"}
    monkeypatch.setenv("AIRFLOW__QUOINE__LEDGER_CONN_ID", "payments_db")
    monkeypatch.setenv(
        "AIRFLOW_CONN_PAYMENTS_DB",
        json.dumps({"conn_type": "postgres", **fields, "extra": {"sslmode": "verify-full", "sslrootcert": "/a b"}}),
    )
    given: list[URL] = []
    monkeypatch.setattr(configuration, "open_server", given.append)
    configuration.open_ledger(pin=Memory())
    (url,) = given
    assert (url.host, url.port, url.username, url.password, url.database) == tuple(fields.values())
    assert url.query == {"sslmode": "verify-full", "sslrootcert": "/a b"}


@pytest.mark.cluster
def test_the_ledger_of_a_connection_is_used(monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer) -> None:
    url = postgres.new_database()
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW__QUOINE__LEDGER_CONN_ID", "payments_db")
    fields = {"host": url.host, "port": url.port, "login": url.username, "schema": url.database}
    monkeypatch.setenv("AIRFLOW_CONN_PAYMENTS_DB", json.dumps({"conn_type": "postgres", **fields}))
    configuration.open_ledger(pin=Memory()).hold(payment(0), who="ann", why="paid by hand")
    found = open_ledger(str(url)).find(payment(0))
    assert found is not None
    assert found.step == Step.HELD


@pytest.mark.parametrize("name", ["sslpassword", "password"])
def test_no_secret_of_the_connections_extra_fields_is_told(name: str) -> None:
    url = URL.create(
        "postgresql+psycopg", host="127.0.0.1", port=1, database="payments", query={name: "hunter2-secret"}
    )
    with pytest.raises(LedgerUnusableError) as caught:
        open_server(url)
    assert "hunter2-secret" not in str(caught.value)


def test_a_file_that_came_from_a_backup_is_read_by_its_owner_only(tmp_path: Path) -> None:
    """As after SQLite's ``.backup``, which makes a file by the umask."""
    path = tmp_path / "ledger.db"
    open_file(path)
    path.chmod(0o644)
    open_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
