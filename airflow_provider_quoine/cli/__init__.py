"""The commands of ``airflow quoine``."""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["captures", "definition", "exports", "payments"]
