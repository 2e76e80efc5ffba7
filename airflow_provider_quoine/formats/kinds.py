"""The kinds of stream and of file."""

from __future__ import annotations

from enum import StrEnum


class StreamKind(StrEnum):
    """The kinds of stream; also the type of the rows."""

    ORDER_BOOK = "order_book"
    """A pair's order book, by time."""
    PRODUCT = "product"
    """A product's ticker, by time."""
    EXECUTION = "execution"
    """A pair's executions, every one."""
    EVENT = "event"
    """Some channels' events, every one, as they came."""


BY_TIME = (StreamKind.ORDER_BOOK, StreamKind.PRODUCT)
"""Streams of which a snapshot is captured every interval; of the others, every event is."""


def placed_by(stream: str) -> str:
    """Return the field that places the rows of a stream in time."""
    return "due_at" if stream in BY_TIME else "received_at"


class FileFormat(StrEnum):
    """The form of a file, and the end of its name."""

    JSONL = "jsonl"
    JSONL_GZ = "jsonl.gz"
    PARQUET = "parquet"
