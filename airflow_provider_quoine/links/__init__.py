"""Links from a task to the exchange's pages and to pictures of captures."""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["captures", "withdrawals"]
