"""Waits for the exchange: status queries, and one poller for thousands of deferred waits."""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["poller", "status_queries"]
