"""Withdrawals and new users: each is sent at most once, and only as the policy allows."""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["policy", "records", "send_once", "withdrawals"]
