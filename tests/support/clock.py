"""A clock for tests."""

from __future__ import annotations


class ManualClock:
    """
    A clock that stands still until a test sets it.

    :param seconds: Unix seconds
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds
