"""Operators that create users and withdrawals and take order-book snapshots."""
