"""An Airflow connection becomes a client of the exchange. Entrance: :class:`.quoine.QuoineHook`."""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["configuration", "connection", "quoine"]
