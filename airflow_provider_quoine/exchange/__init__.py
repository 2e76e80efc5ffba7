"""
The exchange's API and streams; knows nothing of Airflow.

Entrances: :mod:`.rest.client` for requests, :mod:`.stream.pusher` for streams, :mod:`.market` for what the streams
say, :mod:`.budget.request_budget` for the request limit.
"""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = [
    "addresses",
    "amounts",
    "back_off",
    "boot_clock",
    "choices",
    "clock",
    "countries",
    "errors",
    "exact_json",
    "models",
    "observer",
]
