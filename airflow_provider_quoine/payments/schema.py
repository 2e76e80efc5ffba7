"""The ledger's tables: one row per payment, one appended row per event, and one row for the ledger itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

SCHEMA_VERSION = 4

#: By the version that it upgrades: the statements that make the next one, in both databases.
UPGRADES: dict[int, tuple[str, ...]] = {
    1: (
        *(
            f"ALTER TABLE quoine_payments ADD COLUMN {column} TEXT NOT NULL DEFAULT ''"
            for column in ("conn_id", "credentials_variable", "state", "looked_up_at")
        ),
        "UPDATE quoine_payments SET reserved_at = NULL WHERE step IN ('prepared', 'refused')",
    ),
    2: ("CREATE INDEX ix_quoine_payments_exchange_id ON quoine_payments (exchange_id)",),
    3: ("CREATE INDEX ix_quoine_payments_created_at ON quoine_payments (created_at)",),
}

metadata = MetaData()

#: One row. Every transaction that writes locks it first, so that writers follow each other.
LEDGER = Table(
    "quoine_ledger",
    metadata,
    Column("identity", String(36), primary_key=True),
    Column("schema_version", Integer, nullable=False),
    Column("head", BigInteger, nullable=False),
    Column("head_hash", String(64), nullable=False),
    Column("stopped_at", String(32)),
    Column("stopped_by", Text),
    Column("stopped_why", Text),
)

#: Times are ISO 8601 in UTC with microseconds, so that they sort as text and hash the same in every database.
PAYMENTS = Table(
    "quoine_payments",
    metadata,
    Column("exchange", Text, primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("reference", String(200), primary_key=True),
    Column("step", String(16), nullable=False, index=True),
    Column("owner", String(64)),
    Column("account", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("satoshis", BigInteger, nullable=False),
    Column("exchange_id", Text, index=True),
    Column("reserved_at", String(32)),
    Column("in_doubt_until", String(32)),
    Column("policy", String(64)),
    Column("reason", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("created_at", String(32), nullable=False, index=True),
    Column("changed_at", String(32), nullable=False, index=True),
    # How to look it up, and what was seen then; empty where nobody knows.
    Column("conn_id", Text, nullable=False, server_default=""),
    Column("credentials_variable", Text, nullable=False, server_default=""),
    Column("state", Text, nullable=False, server_default=""),
    Column("looked_up_at", Text, nullable=False, server_default=""),
    # For the caps. By the step alone, SQLite would go through all payments that were ever sent.
    Index("quoine_payments_reserved", "account", "reserved_at"),
)

#: Appended only. Each event carries the hash of the one before it.
EVENTS = Table(
    "quoine_payment_events",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", String(32), nullable=False),
    Column("exchange", Text, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("reference", String(200), nullable=False, index=True),
    Column("event", String(32), nullable=False),
    Column("actor", Text, nullable=False),
    Column("data", Text, nullable=False),
    Column("hash_before", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)


READING = "quoine_reading"
"""Execution option of a connection that only reads."""


class Step(StrEnum):
    """Where a payment stands. Only ``prepared`` and ``refused`` may become ``sending``."""

    PREPARED = "prepared"
    SENDING = "sending"
    SENT = "sent"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    HELD = "held"
    """A person has taken it out of every task's hands."""


class Kind(StrEnum):
    """What a reference stands for."""

    WITHDRAWAL = "withdrawal"
    USER = "user"


class Note(StrEnum):
    """An event that says what people did, or what was seen, and changes no step."""

    SEEN = "seen"
    """The exchange has it in another state than when it was looked up before."""

    RUN_STARTED = "run_started"
    """A person has started a run for it, and so has asked for it."""

    ASKED = "asked"
    """For the authentication code."""
    APPROVAL_ASKED = "approval_asked"
    APPROVED = "approved"
    REJECTED = "rejected"
    CONFIRMED = "confirmed"
    """A task has gone on with an id that a person has recorded."""

    RENAMED = "renamed"
    """A person has named another connection or Variable by which it is looked up."""

    ABSENT_ASKED = "absent_asked"
    """One person says that the payment does not exist, and a second one has to say so as well."""

    DOUBT_TOLD = "doubt_told"
    """A task has told people that the outcome is unknown."""


EXPORTED = "exported"
"""An event of the ledger: somebody has exported events, and which."""

SENDABLE = frozenset({Step.PREPARED, Step.REFUSED})
"""From any other step, and from a word that is none of these, nothing is sent."""

IN_DOUBT = frozenset({Step.SENDING, Step.UNKNOWN})
"""Nobody can know whether the exchange carries it out."""

RESERVED = frozenset({Step.SENDING, Step.UNKNOWN, Step.SENT, Step.HELD})
"""Counts against the caps, once it has begun to be sent; one that is held may have been in doubt before."""

SETTLED_BY: dict[Step, dict[str, Any]] = {
    Step.UNKNOWN: {},
    Step.SENT: {"in_doubt_until": None},
    Step.REFUSED: {"in_doubt_until": None, "reserved_at": None},
    Step.PREPARED: {"in_doubt_until": None, "reserved_at": None},
}
"""The columns that a result empties: the end of the doubt, and what counts against the caps."""


def late(step: Step) -> str:
    """Return the event of a result that came after a person had settled the payment."""
    return f"late_{step}"


LATE = frozenset({late(Step.SENT), late(Step.UNKNOWN)})
"""Late results of requests that may have been carried out."""
