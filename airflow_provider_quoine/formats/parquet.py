"""The rows of a part as a Parquet file, which is read without a cast. Needs pyarrow."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_quoine.formats.entries import SCHEMA_VERSION
from airflow_provider_quoine.formats.lines import line_of, row_of
from airflow_provider_quoine.formats.pieces import Row

METADATA = b"quoine"
"""Key of the metadata, a JSON object: ``schema_version`` and ``stream``, the rows' type."""

FLAT_LEVELS = 25
"""Levels of each side that have columns of their own, at most: as many as tardis.dev's deepest snapshot."""

AT_ONCE = 1000
"""Rows that are in memory while a file is read row by row."""

TEXT, TIME, FLAG, COUNT = pa.string(), pa.timestamp("us", tz="UTC"), pa.bool_(), pa.int64()
FLOAT, DECIMAL = pa.float64(), pa.decimal128(38, 18)
LADDER = pa.list_(pa.struct([("price", TEXT), ("quantity", TEXT)]))
#: A number takes three columns: see :func:`_columns`.
NUMBER = object()

FIELDS: dict[str, dict[str, Any]] = {
    "order_book": {
        **dict.fromkeys(("seq",), COUNT),
        **dict.fromkeys(("pair",), TEXT),
        **dict.fromkeys(("due_at", "taken_at"), TIME),
        **dict.fromkeys(("bids", "asks"), LADDER),
        **dict.fromkeys(("bids_received_at", "asks_received_at"), TIME),
        **dict.fromkeys(("bids_age", "asks_age"), FLOAT),
        **dict.fromkeys(("best_bid", "best_ask", "mid", "spread"), NUMBER),
        **dict.fromkeys(("crossed", "stale"), FLAG),
    },
    "product": {
        **dict.fromkeys(("seq",), COUNT),
        **dict.fromkeys(("pair",), TEXT),
        **dict.fromkeys(("due_at", "taken_at", "received_at"), TIME),
        **dict.fromkeys(("age",), FLOAT),
        **dict.fromkeys(("stale",), FLAG),
        **dict.fromkeys(("id", "code", "currency_pair_code"), TEXT),
        **dict.fromkeys(("market_ask", "market_bid", "low_market_bid", "high_market_ask"), NUMBER),
        **dict.fromkeys(("last_traded_price", "last_traded_quantity", "volume_24h", "last_price_24h"), NUMBER),
        **dict.fromkeys(("last_event_timestamp",), NUMBER),
        **dict.fromkeys(("pusher_channel", "other"), TEXT),
    },
    "execution": {
        **dict.fromkeys(("seq",), COUNT),
        **dict.fromkeys(("pair",), TEXT),
        **dict.fromkeys(("received_at",), TIME),
        **dict.fromkeys(("connection",), TEXT),
        **dict.fromkeys(("id",), TEXT),
        **dict.fromkeys(("price", "quantity"), NUMBER),
        **dict.fromkeys(("taker_side",), TEXT),
        **dict.fromkeys(("created_at",), TIME),
        # An execution that could not be read, as it came; the rest is null then.
        **dict.fromkeys(("unreadable",), TEXT),
    },
    "event": {
        **dict.fromkeys(("seq",), COUNT),
        **dict.fromkeys(("received_at",), TIME),
        **dict.fromkeys(("connection",), TEXT),
        **dict.fromkeys(("channel", "event", "data"), TEXT),
    },
}
"""Fields by the rows' type."""


def write_parquet(rows: Iterable[Row], *, stream: str, depth: int | None) -> bytes:
    """
    Write rows.

    :param stream: their type.
    :param depth: levels of a book that are kept of each side; None is all.
    """
    read = [json.loads(row.line) for row in rows]
    levels = min(depth or FLAT_LEVELS, FLAT_LEVELS)
    arrays: dict[str, pa.Array] = {}
    for name, kind in FIELDS[stream].items():
        arrays |= _columns(name, kind, [row.get(name) for row in read], levels)
    metadata = {METADATA: json.dumps({"schema_version": SCHEMA_VERSION, "stream": stream})}
    target = io.BytesIO()
    pq.write_table(pa.table(arrays).replace_schema_metadata(metadata), target, compression="zstd")
    return target.getvalue()


def read_parquet(content: bytes) -> list[Row]:
    """
    Read what :func:`write_parquet` wrote.

    :raises ValueError: if it is no Parquet file, or a damaged one (pyarrow's own error is one).
    :raises LookupError: if it is none of a capture.
    :raises TypeError: if it is a damaged one.
    """
    try:
        return [row_of(line_of(row)) for row in iterate_parquet(content)]
    # Nothing but the content can be wrong: it is in memory.
    except (OSError, OverflowError) as error:
        raise ValueError(str(error)) from None


def iterate_parquet(content: bytes) -> Iterator[dict[str, Any]]:
    """
    Read rows as they stand in JSON Lines, some at a time.

    :raises ValueError: as :func:`read_parquet`.
    :raises LookupError: likewise.
    """
    try:
        yield from _rows(pq.ParquetFile(io.BytesIO(content)))
    except OSError as error:
        # No store is asked any more.
        raise ValueError(str(error)) from None


def _rows(source: pq.ParquetFile) -> Iterator[dict[str, Any]]:
    stream = json.loads((source.schema_arrow.metadata or {})[METADATA])["stream"]
    stored = {f"{name}_text" if kind is NUMBER else name: (name, kind) for name, kind in FIELDS[stream].items()}
    for batch in source.iter_batches(AT_ONCE, columns=list(stored)):
        for row in batch.to_pylist():
            cells = {name: _from_cell(row[column], kind) for column, (name, kind) in stored.items()}
            if stream == "product":
                cells["other"] = json.loads(cells["other"])
            if stream == "execution" and cells["unreadable"] is None:
                del cells["unreadable"]
            yield {"type": stream, **cells}


def _columns(name: str, kind: Any, values: list[Any], levels: int) -> dict[str, pa.Array]:
    """
    Return the columns of a field.

    A number has a float64 under its name, a decimal128 under ``_decimal`` that is null where it does not fit, and
    under ``_text`` all its digits. A side of a book has its levels as tardis.dev names them, as float64, beside the
    list with all digits of all levels.
    """
    if kind is NUMBER:
        return {
            name: pa.array([None if text is None else float(text) for text in values], FLOAT),
            f"{name}_decimal": pa.array([None if text is None else _decimal(text) for text in values], DECIMAL),
            f"{name}_text": pa.array(values, TEXT),
        }
    if kind is LADDER:
        sides = [[{"price": price, "quantity": quantity} for price, quantity in side] for side in values]
        flat = {
            f"{name}[{level}].{called}": pa.array(
                [float(side[level][at]) if level < len(side) else None for side in values], FLOAT
            )
            for level in range(levels)
            for at, called in enumerate(("price", "amount"))
        }
        return {name: pa.array(sides, LADDER), **flat}
    return {name: pa.array([_to_cell(value, kind) for value in values], kind)}


def _decimal(text: str) -> Decimal | None:
    number = Decimal(text)
    exponent = number.as_tuple().exponent
    fits = isinstance(exponent, int) and -exponent <= DECIMAL.scale
    return number if fits and number.adjusted() < DECIMAL.precision - DECIMAL.scale else None


def _to_cell(value: Any, kind: pa.DataType) -> Any:
    if kind is TIME and value is not None:
        return datetime.fromisoformat(value)
    if isinstance(value, dict):
        return json.dumps(value)
    # JSON can say half of a surrogate pair, which is no character: a text of Parquet has its escape instead.
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _from_cell(value: Any, kind: Any) -> Any:
    if kind is TIME and value is not None:
        return value.astimezone(UTC).isoformat()
    if kind is LADDER:
        return [[level["price"], level["quantity"]] for level in value]
    return value
