"""One request budget for all processes. Entrance: :class:`.request_budget.RequestBudget`, with a store."""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["file_store", "redis_store", "request_budget", "rules", "slot"]
