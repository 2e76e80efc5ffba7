"""A part of a capture as a Parquet file; what is no row stands in the schema's metadata. Needs pyarrow."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_quoine.captures.lines import (
    gap_entry,
    gap_from,
    line_of,
    row_of,
    stretches_from,
    summary_of,
)
from airflow_provider_quoine.captures.parts import Part, Row, Span

METADATA = b"quoine"
"""Key of the metadata, a JSON object: what the last line of a JSON Lines part says, and ``gap_rows``."""

TEXT, TIME, FLAG, NUMBER = pa.string(), pa.timestamp("us", tz="UTC"), pa.bool_(), pa.int64()
SECONDS = pa.float64()
LADDER = pa.list_(pa.struct([("price", TEXT), ("quantity", TEXT)]))

COLUMNS = {
    "order_book": {
        **dict.fromkeys(("pair",), TEXT),
        **dict.fromkeys(("due_at", "taken_at"), TIME),
        **dict.fromkeys(("bids", "asks"), LADDER),
        **dict.fromkeys(("bids_received_at", "asks_received_at"), TIME),
        **dict.fromkeys(("bids_age", "asks_age"), SECONDS),
        **dict.fromkeys(("best_bid", "best_ask", "mid", "spread"), TEXT),
        **dict.fromkeys(("crossed", "stale"), FLAG),
    },
    "product": {
        **dict.fromkeys(("pair",), TEXT),
        **dict.fromkeys(("due_at", "taken_at", "received_at"), TIME),
        **dict.fromkeys(("age",), SECONDS),
        **dict.fromkeys(("stale",), FLAG),
        **dict.fromkeys(("id", "code", "currency_pair_code", "market_ask", "market_bid", "low_market_bid"), TEXT),
        **dict.fromkeys(("high_market_ask", "last_traded_price", "last_traded_quantity", "volume_24h"), TEXT),
        **dict.fromkeys(("last_price_24h", "last_event_timestamp", "pusher_channel", "other"), TEXT),
    },
    "execution": {
        **dict.fromkeys(("pair",), TEXT),
        **dict.fromkeys(("received_at",), TIME),
        **dict.fromkeys(("connection",), NUMBER),
        **dict.fromkeys(("id", "price", "quantity", "taker_side"), TEXT),
        **dict.fromkeys(("created_at",), TIME),
        # An execution that could not be read, as it came; the rest is null then.
        **dict.fromkeys(("unreadable",), TEXT),
    },
    "event": {
        **dict.fromkeys(("received_at",), TIME),
        **dict.fromkeys(("connection",), NUMBER),
        **dict.fromkeys(("channel", "event", "data"), TEXT),
    },
}
"""
Columns by the rows' type. Prices and quantities are strings, as in JSON Lines: no decimal type of Parquet holds every
number that the exchange may send.
"""


def write_parquet(part: Part, span: Span, stream: str) -> bytes:
    """
    Write a part.

    :param stream: type of its rows.
    """
    columns = COLUMNS[stream]
    rows = [json.loads(row.line) for row in part.rows]
    summary = {**summary_of(part, span), "stream": stream, "gap_rows": [gap_entry(gap) for gap in part.gaps]}
    table = pa.table(
        {name: pa.array([_to_cell(row.get(name), kind) for row in rows], kind) for name, kind in columns.items()}
    )
    target = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({METADATA: json.dumps(summary)}), target, compression="zstd")
    return target.getvalue()


def read_parquet(content: bytes) -> Part:
    """
    Read what :func:`write_parquet` wrote.

    :raises ValueError: if it is no Parquet file (pyarrow's own error is one).
    :raises LookupError: if it is none of a capture.
    """
    table = pq.read_table(io.BytesIO(content))
    summary = json.loads((table.schema.metadata or {})[METADATA])
    columns = COLUMNS[summary["stream"]]
    part = Part(period=summary["period"], stretches=stretches_from(summary))
    part.gaps.extend(gap_from(entry) for entry in summary["gap_rows"])
    for row in table.to_pylist():
        cells = {name: _from_cell(row[name], kind) for name, kind in columns.items()}
        part.rows.append(_row(summary["stream"], cells))
    return part


def _row(stream: str, cells: dict[str, Any]) -> Row:
    if stream == "product":
        cells["other"] = json.loads(cells["other"])
    if stream == "execution" and cells["unreadable"] is None:
        del cells["unreadable"]
    return row_of(line_of({"type": stream, **cells}))


def _to_cell(value: Any, kind: pa.DataType) -> Any:
    if kind is TIME and value is not None:
        return datetime.fromisoformat(value)
    if kind is LADDER:
        return [{"price": price, "quantity": quantity} for price, quantity in value]
    return json.dumps(value) if isinstance(value, dict) else value


def _from_cell(value: Any, kind: pa.DataType) -> Any:
    if kind is TIME and value is not None:
        return value.astimezone(UTC).isoformat()
    if kind is LADDER:
        return [[level["price"], level["quantity"]] for level in value]
    return value
