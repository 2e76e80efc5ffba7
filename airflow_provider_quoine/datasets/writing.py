"""Writes files that have their names only once they are whole."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath


@contextmanager
def whole_file(target: ObjectStoragePath, *, private: bool = False) -> Iterator[BinaryIO]:
    """
    Open a file for writing, in a folder that is there.

    :param private: on a local disk nobody but its owner may read it.
    :raises OSError: if the store refuses, or cannot be reached.
    """
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
    try:
        if private and target.protocol in ("", "file"):
            os.close(os.open(temporary.path, os.O_CREAT | os.O_EXCL, 0o600))
        with temporary.open("wb") as file:  # type: ignore[no-untyped-call]  # Airflow's
            yield file
        temporary.replace(target)
    except BaseException:
        # What has failed before may fail again.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
