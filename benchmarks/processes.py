"""Processes of a measurement, each at the other end of a pipe."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

ANSWER_TIMEOUT = 120.0
"""Seconds until a process that says nothing is given up."""

_CONTEXT = multiprocessing.get_context("spawn")


@contextmanager
def process(work: Callable[..., None], *given: Any) -> Iterator[Connection]:
    """Run a process that takes the other end of a pipe first; at the end it is told to stop."""
    here, there = _CONTEXT.Pipe()
    worker = _CONTEXT.Process(target=work, args=(there, *given), daemon=True)
    worker.start()
    there.close()
    try:
        yield here
        here.send("stop")
    except BrokenPipeError:
        pass
    finally:
        worker.join(timeout=10)
        worker.kill()
        worker.join()


def answer(pipe: Connection) -> Any:
    """
    Receive from a process.

    :raises TimeoutError: if nothing comes.
    """
    if not pipe.poll(ANSWER_TIMEOUT):
        raise TimeoutError(f"A process of the measurement said nothing for {ANSWER_TIMEOUT:g} s.")
    return pipe.recv()
