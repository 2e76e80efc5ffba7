"""
Payments: withdrawals and new users, each sent at most once per reference.

The ledger (:mod:`.ledger`) is the authority, whatever Airflow forgets. :class:`.withdrawals.WithdrawalPayment` is the
entrance for withdrawals, and :class:`.attempt.Attempt` for anything else.
"""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = [
    "approvals",
    "attempt",
    "chain",
    "configuration",
    "database",
    "ledger",
    "policy",
    "reconciliation",
    "records",
    "refusals",
    "replay",
    "schema",
    "transaction",
    "users",
    "withdrawals",
]
