"""
What analysts read captures with: nothing needs a cast, and no digit is lost.

The readers are imported where they are used: each process of `make unit` imports all test modules.
"""

from __future__ import annotations

import glob
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from airflow_provider_quoine.captures.store import PartStore
from tests.datasets.stored import NOON, make

LOST = "9" * 40
"""Has more digits than any decimal of Parquet."""


@pytest.fixture
def files(tmp_path: Path) -> str:
    """The files of a capture, as a pattern."""
    return PartStore(make(tmp_path, "parquet")).pattern


def test_pandas_reads_numbers_and_times(files: str) -> None:
    import pandas

    books = pandas.concat(map(pandas.read_parquet, sorted(glob.glob(files))), ignore_index=True)
    assert len(books) == 289
    kinds = books.dtypes.astype(str)
    for column in ("best_bid", "mid", "spread", "bids[0].price", "asks[1].amount", "bids_age"):
        assert kinds[column] == "float64"
    assert {kinds[column] for column in ("due_at", "taken_at", "bids_received_at")} == {"datetime64[us, UTC]"}
    assert (kinds["stale"], kinds["seq"]) == ("bool", "int64")
    assert (books["asks[0].price"] - books["bids[0].price"]).iloc[0] == pytest.approx(0.9999)
    assert books["due_at"].diff().max() == timedelta(seconds=12)
    assert books["best_bid_decimal"].sum() == sum(map(Decimal, books["best_bid_text"]))


def test_duckdb_reads_numbers_and_times(files: str) -> None:
    import duckdb

    first = duckdb.sql(f"""
        SELECT due_at, "bids[0].price", best_bid, best_bid_decimal, best_bid_text, bids[2].quantity, "bids[1].amount"
        FROM read_parquet('{files}') ORDER BY due_at LIMIT 1
    """)
    assert first is not None
    assert [str(kind) for kind in first.types] == [
        "TIMESTAMP WITH TIME ZONE",
        "DOUBLE",
        "DOUBLE",
        "DECIMAL(38,18)",
        "VARCHAR",
        "VARCHAR",
        "DOUBLE",
    ]
    row = first.pl().row(0)
    assert row[1:6] == (600.0001, 600.0001, Decimal("600.0001"), "600.0001", LOST)
    assert row[6] == pytest.approx(1e40)


def test_polars_reads_numbers_and_times(files: str) -> None:
    import polars

    books = polars.scan_parquet(files).filter(~polars.col("stale")).collect()
    schema = books.schema
    assert {schema["bids[0].price"], schema["best_ask"]} == {polars.Float64()}
    assert schema["best_ask_decimal"] == polars.Decimal(38, 18)
    assert schema["due_at"] == polars.Datetime("us", "UTC")
    assert books["due_at"][0] == NOON + timedelta(seconds=1)
    assert books.select((polars.col("asks[0].price") - polars.col("bids[0].price")).mean()).item() > 0


def test_pyarrow_reads_numbers_and_times(files: str) -> None:
    import pyarrow as pa
    from pyarrow.dataset import dataset

    table = dataset(sorted(glob.glob(files))).to_table()
    assert table.schema.field("asks[0].amount").type == pa.float64()
    assert table.schema.field("spread_decimal").type == pa.decimal128(38, 18)
    assert table.schema.field("due_at").type == pa.timestamp("us", tz="UTC")
    assert table["due_at"][0].as_py() == datetime(2026, 1, 2, 12, 0, 1, tzinfo=UTC)
    assert b'"schema_version": 2' in table.schema.metadata[b"quoine"]


def test_a_folder_read_as_a_whole_has_the_rows_only(files: str) -> None:
    from pyarrow.dataset import dataset

    folder = files.rpartition("/")[0]
    assert dataset(folder, format="parquet").count_rows() == 289


@pytest.mark.parametrize("file_format", ["jsonl", "jsonl.gz"])
def test_pandas_reads_json_lines_without_a_sparse_column(tmp_path: Path, file_format: str) -> None:
    import pandas

    files = PartStore(make(tmp_path, file_format)).pattern
    books = pandas.concat(pandas.read_json(path, lines=True, dtype=False) for path in sorted(glob.glob(files)))
    assert len(books) == 289
    assert len(books.columns) == 17
    assert not books.isna().any(axis=None)
