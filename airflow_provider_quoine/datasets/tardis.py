"""Writes order books as tardis.dev's CSV of snapshots (facts, Tardis)."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.datasets.writing import whole_file
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.formats.entries import span_from
from airflow_provider_quoine.formats.kinds import StreamKind

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_quoine.datasets.reading import StoredCapture

EXCHANGE = "quoine"

DEEPEST = 25
"""Levels of tardis.dev's deepest snapshot."""

UNITS = (("h", timedelta(hours=1)), ("m", timedelta(minutes=1)), ("s", timedelta(seconds=1)))

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def columns(depth: int) -> list[str]:
    """Return the columns, in their order."""
    levels = [
        f"{side}[{level}].{name}" for level in range(depth) for side in ("asks", "bids") for name in ("price", "amount")
    ]
    return ["exchange", "symbol", "timestamp", "local_timestamp", *levels]


def convert(
    capture: StoredCapture, folder: ObjectStoragePath, *, depth: int | None = None
) -> tuple[ObjectStoragePath, int, int]:
    """
    Write a capture of an order book as one compressed CSV, named as tardis.dev names its files.

    Stale books are left out: the form has no place to say that they are.

    :param depth: levels of each side; by default as many as were captured, 25 at most.
    :return: the file, its rows, and how many books were left out.
    :raises QuoineInputError: if the capture is none of an order book, or the depth is none.
    :raises ValueError: if the capture is damaged.
    :raises OSError: if a store refuses, or cannot be reached.
    """
    told = capture.manifest["capture"]
    if told["stream"] != StreamKind.ORDER_BOOK:
        raise QuoineInputError(f"{capture} is a capture of {told['stream']}: only order books can be converted.")
    depth = min(told["depth"] or DEEPEST, DEEPEST) if depth is None else depth
    if depth < 1:
        raise QuoineInputError(f"depth is {depth}: give a whole number above 0.")
    began_at, _ = span_from(capture.manifest)
    kind, symbol = f"book_snapshot_{depth}_{_interval(told['interval'])}", told["pair"].upper()
    target = folder / f"{EXCHANGE}_{kind}_{began_at:%Y-%m-%d}_{symbol}.csv.gz"
    folder.mkdir(parents=True, exist_ok=True)
    written = left_out = 0
    with (
        whole_file(target) as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="ascii", newline="") as text,
    ):
        table = csv.writer(text, lineterminator="\n")
        table.writerow(columns(depth))
        for row in capture.rows():
            if row["stale"]:
                left_out += 1
                continue
            table.writerow([EXCHANGE, symbol, *_cells(row, depth)])
            written += 1
    return target, written, left_out


def _cells(row: dict[str, Any], depth: int) -> Iterator[Any]:
    # The exchange states no time, so it is that of the newest message, as tardis.dev has it then.
    yield _microseconds(max(row["bids_received_at"], row["asks_received_at"], key=datetime.fromisoformat))
    yield _microseconds(row["due_at"])
    for level in range(depth):
        for side in (row["asks"], row["bids"]):
            yield from side[level] if level < len(side) else ("", "")


def _microseconds(moment: str) -> int:
    return (datetime.fromisoformat(moment) - EPOCH) // timedelta(microseconds=1)


def _interval(seconds: float) -> str:
    interval = timedelta(seconds=seconds)
    for name, unit in UNITS:
        if not interval % unit:
            return f"{interval // unit}{name}"
    return f"{interval / timedelta(milliseconds=1):g}ms"
