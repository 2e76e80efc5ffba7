"""Which ledger Airflow's configuration names, and what Airflow remembers of it."""

from __future__ import annotations

import json
from typing import Any

from airflow.sdk import BaseHook, Variable, conf
from airflow.sdk.exceptions import AirflowNotFoundException, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse, GetVariable, VariableResult
from sqlalchemy import URL

from airflow_provider_quoine.hooks.configuration import SECTION, airflow_home, executors_on_other_hosts
from airflow_provider_quoine.payments.database import open_file, open_server
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.records import Head, Pin
from airflow_provider_quoine.payments.refusals import LedgerUnusableError

PIN = "quoine_ledger"
"""Name of the Airflow Variable that remembers the ledger. It holds no secret."""

POSTGRES = frozenset({"postgres", "postgresql"})
"""Connection types of PostgreSQL: Airflow reads the second out of a URL."""


class VariablePin:
    """Airflow's memory of the ledger in an Airflow Variable, for code that runs in a task."""

    def read(self) -> Head | None:
        """
        Return the ledger's last event that Airflow has seen; None before the first.

        :raises LedgerUnusableError: if Airflow does not answer. ``Variable.get`` would take that for a Variable that
            there is not, and then any ledger would do.
        """
        from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

        answer: Any = SUPERVISOR_COMMS.send(GetVariable(key=PIN))
        if isinstance(answer, VariableResult):
            return read_pin(answer.value)
        if isinstance(answer, ErrorResponse) and answer.error == ErrorType.VARIABLE_NOT_FOUND:
            return None
        raise LedgerUnusableError(
            f"Airflow does not say which ledger its payments are in (Variable {PIN}): {answer!r:.200}. Nothing was "
            "sent. Clear the task once Airflow's API server answers."
        )

    def write(self, head: Head) -> None:
        """Remember a ledger's last event."""
        Variable.set(PIN, write_pin(head), description="The ledger of payments, as this Airflow has seen it last.")


def read_pin(text: str | None) -> Head | None:
    """
    Read the Variable.

    :raises LedgerUnusableError: if somebody has put something else into it.
    """
    if text is None:
        return None
    try:
        return Head(**json.loads(text))
    except (ValueError, TypeError):
        raise LedgerUnusableError(
            f"The Variable {PIN} is not as this provider wrote it, so nobody knows which ledger this Airflow's "
            "payments are in. Nothing was sent. Restore the Variable from a backup of Airflow's database."
        ) from None


def write_pin(head: Head) -> str:
    """Write the Variable."""
    return json.dumps({"identity": head.identity, "number": head.number, "hash": head.hash})


def open_ledger(*, pin: Pin | None = None) -> Ledger:
    """
    Open the ledger of this Airflow; it is made on first use.

    :param pin: Airflow's memory of it; by default the Variable, as tasks see it.
    :raises LedgerUnusableError: if there is none that this host may use.
    """
    conn_id = conf.get(SECTION, "ledger_conn_id", fallback="")
    if conn_id:
        return Ledger(open_server(_server_url(conn_id)), pin=pin or VariablePin())
    if executors := executors_on_other_hosts():
        raise LedgerUnusableError(
            f"The ledger of payments is a file on this host, and the executor ({', '.join(executors)}) may run "
            f"tasks on others. Nothing was sent. Name a connection to PostgreSQL in [{SECTION}] ledger_conn_id."
        )
    return Ledger(open_file(airflow_home() / "quoine" / "ledger.db"), pin=pin or VariablePin())


def _server_url(conn_id: str) -> URL:
    """Make a URL of a connection's fields. Its extra fields are libpq's parameters, such as ``sslmode``."""
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise LedgerUnusableError(
            f"[{SECTION}] ledger_conn_id names the connection {conn_id!r}, and there is none. Nothing was sent. Create "
            "it (type Postgres), or correct the setting."
        ) from None
    if connection.conn_type not in POSTGRES:
        raise LedgerUnusableError(
            f"[{SECTION}] ledger_conn_id names the connection {conn_id!r}, which is of type {connection.conn_type}. "
            "Nothing was sent. The ledger needs one of type Postgres."
        )
    return URL.create(
        "postgresql+psycopg",
        username=connection.login,
        password=connection.password,
        host=connection.host,
        port=connection.port,
        database=connection.schema,
        query={name: str(value) for name, value in connection.extra_dejson.items()},
    )
