"""
The partner API: signatures, rate limit, users, authentication codes, withdrawals.

Entrances: :data:`.endpoints.router` behind :class:`.middleware.RequestMiddleware`; :class:`.exchange.Exchange` with the
state; :mod:`.fixtures`, which adds many users and withdrawals for tests; :mod:`.limiter`, for a benchmark.
"""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["endpoints", "exchange", "fixtures", "limiter", "middleware"]
