"""Ledgers for tests of the desk, in a file and in PostgreSQL."""

from __future__ import annotations

# Fixtures are found by their names here.
from tests.payments.conftest import ledger, postgres, where

__all__ = ["ledger", "postgres", "where"]
