"""The forms of a file of rows: how one is written, read whole, and read row by row, however large it is."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any, BinaryIO

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.formats.kinds import FileFormat
from airflow_provider_quoine.formats.lines import read_lines, read_packed_lines, write_lines, write_packed_lines
from airflow_provider_quoine.formats.pieces import Row

LONGEST_LINE = 64 * 1024 * 1024
"""Bytes; no row comes near it."""

Form = tuple[Callable[[list[Row]], bytes], Callable[[bytes], list[Row]]]
"""What writes rows, and what reads them again."""


def form_of(file_format: FileFormat, *, stream: str, depth: int | None) -> Form:
    """
    Return the functions that write and read the rows of a part.

    :param stream: the rows' type.
    :param depth: levels of a book that are kept of each side; None is all.
    :raises QuoineInputError: if it needs a library that is not installed.
    """
    if file_format is FileFormat.JSONL:
        return write_lines, read_lines
    if file_format is FileFormat.JSONL_GZ:
        return write_packed_lines, read_packed_lines
    parquet = _parquet()
    return partial(parquet.write_parquet, stream=stream, depth=depth), parquet.read_parquet


def _parquet() -> Any:
    """Return the module that needs pyarrow."""
    try:
        return import_module("airflow_provider_quoine.formats.parquet")
    except ImportError as error:
        raise QuoineInputError(
            f"Parquet needs pyarrow, which cannot be loaded here ({error}). Nothing was read or written. Install "
            "airflow-provider-quoine[parquet] where this runs (for a capture, where the triggerer does), or choose "
            "the format jsonl or jsonl.gz."
        ) from None


def rows_in(file: BinaryIO, name: str) -> Iterator[dict[str, Any]]:
    """
    Yield the rows of an open file, as they stand in JSON Lines.

    :param name: of the file, which says its format.
    :raises QuoineInputError: if its format needs a library that is not installed.
    :raises ValueError: if it is none, or damaged.
    :raises OSError: if it cannot be read.
    """
    try:
        if name.endswith(FileFormat.PARQUET):
            yield from _parquet().iterate_parquet(file.read())
        elif name.endswith(FileFormat.JSONL_GZ):
            with gzip.open(file) as lines:
                yield from _lines(lines)
        else:
            yield from _lines(file)
    except (zlib.error, EOFError, gzip.BadGzipFile, LookupError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _lines(file: Any) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no row")
        yield row
