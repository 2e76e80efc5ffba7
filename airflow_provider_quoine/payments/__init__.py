"""Withdrawals and new users: each is sent at most once; a withdrawal only if the policy allows it."""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["policy", "records", "send_once", "withdrawals"]
