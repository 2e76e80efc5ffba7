"""Triggers: deferred waits, market data, captures, and market events that start DAGs."""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["capture", "events", "market_data", "market_events", "polling"]
