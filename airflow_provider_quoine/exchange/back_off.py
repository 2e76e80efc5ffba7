"""Waits between tries that fail in a row."""

from __future__ import annotations

import random


def back_off(failures: int, *, first: float, longest: float) -> float:
    """
    Return the seconds to wait before the next try: doubled each time, capped, with jitter.

    :param failures: how many tries in a row failed; after none, half of the first wait is enough.
    :param first: seconds; the first wait is between this and twice this.
    :param longest: seconds; no wait is longer.
    """
    doubled = first * 2.0 ** min(failures - 1, 16)
    return min(doubled, longest / 2) * random.uniform(1, 2)  # noqa: S311 - only jitter
