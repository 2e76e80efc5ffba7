"""Operators that a DAG imports."""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = [
    "approval",
    "authorization",
    "capture",
    "datasets",
    "findings",
    "market_data",
    "onboarding",
    "reconciliation",
    "withdrawals",
]
