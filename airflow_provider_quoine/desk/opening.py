"""Opens the ledger for a person, with Airflow's memory of it read in Airflow's database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from airflow.models.variable import Variable
from airflow.sdk.exceptions import AirflowNotFoundException
from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_quoine.desk.typed_codes import wipe_typed_codes
from airflow_provider_quoine.payments.configuration import PIN, open_ledger, read_pin, write_pin
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.records import Head
from airflow_provider_quoine.payments.refusals import LedgerUnusableError, PaymentRefusedError


class ModelPin:
    """Airflow's memory of the ledger, read and written in Airflow's database."""

    def read(self) -> Head | None:
        """Return the ledger's last event that Airflow has seen; None before the first."""
        return read_pin(Variable.get(PIN, default_var=None))

    def write(self, head: Head) -> None:
        """Remember a ledger's last event."""
        Variable.set(PIN, write_pin(head), description="The ledger of payments, as this Airflow has seen it last.")


@contextmanager
def as_server() -> Iterator[None]:
    """Find the connections and Variables that are in Airflow's database, as the API server does."""
    before = os.environ.get("_AIRFLOW_PROCESS_CONTEXT")
    if before == "server":
        # The API server's own setting, which its other threads need meanwhile.
        yield
        return
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    try:
        yield
    finally:
        os.environ.pop("_AIRFLOW_PROCESS_CONTEXT")
        if before is not None:
            os.environ["_AIRFLOW_PROCESS_CONTEXT"] = before


@contextmanager
def opened_ledger() -> Iterator[Ledger]:
    """
    Open the ledger of this Airflow.

    :raises LedgerUnusableError: if it, or Airflow's own database, cannot be used.
    :raises PaymentRefusedError: if a connection that is needed is not there.
    """
    try:
        with as_server():
            yield open_ledger(pin=ModelPin())
    except AirflowNotFoundException as error:
        raise PaymentRefusedError(f"{error}. Nothing was changed.") from None
    except SQLAlchemyError as error:
        raise LedgerUnusableError(f"A database cannot be used, so nothing was changed: {error}") from None


def wipe_in_passing() -> str:
    """
    Wipe the codes that were typed for tasks which could not take them. Where it fails, a stop must not wait for it.

    :return: why it failed; empty if it did not.
    """
    try:
        wipe_typed_codes()
    except SQLAlchemyError as error:
        return f"Codes that were typed in vain could not be wiped from Airflow's tables: {error}"
    return ""
