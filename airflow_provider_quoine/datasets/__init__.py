"""
Captures as data: found, read row by row, verified, converted and drawn.

Everything here reads what :mod:`~airflow_provider_quoine.captures` wrote, some rows at a time, from any object store.
"""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["depth", "reading", "report", "tardis", "timeline", "verification", "writing"]
