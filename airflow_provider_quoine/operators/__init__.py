"""Operators that a DAG imports."""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["approval", "authorization", "capture", "market_data", "onboarding", "withdrawals"]
