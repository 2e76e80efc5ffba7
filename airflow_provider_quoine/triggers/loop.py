"""Keeping Airflow's event loop free while our clients are loaded."""

from __future__ import annotations

import functools
import gc


@functools.cache
def spare_the_loop() -> None:
    """
    Take what is alive now out of the garbage collector's sight, once per process.

    The first import of a client library, on whichever thread, sets off a full collection. Over all the objects of a
    triggerer that holds the interpreter for more than 0.1 s, which Airflow reports as a blocked event loop. What a
    triggerer has loaded by then lives as long as it does.
    """
    gc.freeze()
