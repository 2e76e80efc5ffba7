"""The exchange's REST API. Entrance: :class:`~airflow_provider_quoine.exchange.rest.client.QuoineClient`."""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["auth", "client"]
