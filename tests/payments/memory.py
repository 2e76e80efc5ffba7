"""Airflow's memory of the ledger, for tests without an Airflow."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_quoine.payments.records import Head


@dataclass
class Memory:
    """
    What Airflow remembers.

    :param head: the ledger's last event that it was told of.
    """

    head: Head | None = None

    def read(self) -> Head | None:
        """Return it."""
        return self.head

    def write(self, head: Head) -> None:
        """Take it."""
        self.head = head
