"""The heap of a process of tests: most of it is Airflow."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept() -> Iterator[None]:
    """
    Keep what a block imports or makes out of all garbage collections: it stays to the end.

    Looking through Airflow takes 0.3 s each time, and through its API servers as long again.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
