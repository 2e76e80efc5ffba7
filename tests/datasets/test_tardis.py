"""Captures as tardis.dev's CSV."""

from __future__ import annotations

import csv
import gzip
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.sdk import ObjectStoragePath

from airflow_provider_quoine.captures.parts import Part
from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.captures.store import PartStore
from airflow_provider_quoine.datasets.reading import one_capture
from airflow_provider_quoine.datasets.tardis import convert
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.formats.pieces import Span, Stretch
from tests.datasets.stored import NOON, book, make, spec_of

#: The columns of tardis.dev's book_snapshot_5, as far as two levels: interleaved, asks first.
HEADER = (
    "exchange,symbol,timestamp,local_timestamp,asks[0].price,asks[0].amount,bids[0].price,bids[0].amount,"
    "asks[1].price,asks[1].amount,bids[1].price,bids[1].amount"
)


def converted(folder: Path, **given: int) -> tuple[Path, list[list[str]], int]:
    """Convert the one capture of a folder: the file, its lines, and how many books were left out."""
    path, rows, left_out = convert(one_capture(str(folder)), ObjectStoragePath(str(folder / "csv")), **given)
    lines = list(csv.reader(gzip.decompress(Path(str(path)).read_bytes()).decode().split("\n")[:-1]))
    assert len(lines) == rows + 1
    return Path(str(path)), lines, left_out


@pytest.mark.parametrize("file_format", ["jsonl", "jsonl.gz", "parquet"])
def test_every_digit_of_every_level_is_in_its_column(tmp_path: Path, file_format: str) -> None:
    make(tmp_path, file_format)
    path, (header, first, *rest), left_out = converted(tmp_path)
    assert path.name == "quoine_book_snapshot_2_1s_2026-01-02_BTCJPY.csv.gz"
    assert ",".join(header) == HEADER
    due_at = int(NOON.timestamp()) * 1_000_000 + 1_000_000
    newest = str(due_at - 20_000)
    levels = ["601", "0.00000001", "600.0001", "0.5", "700.123456789", "2", "0.1", "9" * 40]
    assert first == ["quoine", "BTCJPY", newest, str(due_at), *levels]
    assert (len(rest), left_out) == (288, 0)
    assert {path.name for path in (tmp_path / "csv").iterdir()} == {path.name}


def test_levels_that_are_not_there_are_empty(tmp_path: Path) -> None:
    make(tmp_path)
    path, (header, first, *_), _ = converted(tmp_path, depth=3)
    assert path.name == "quoine_book_snapshot_3_1s_2026-01-02_BTCJPY.csv.gz"
    assert header[-4:] == ["asks[2].price", "asks[2].amount", "bids[2].price", "bids[2].amount"]
    assert first[-4:] == ["", "", "", ""]


@pytest.mark.parametrize(("interval", "name"), [(0.05, "50ms"), (1, "1s"), (90, "90s"), (120, "2m"), (7200, "2h")])
def test_stale_books_are_left_out_and_the_interval_is_in_the_name(tmp_path: Path, interval: float, name: str) -> None:
    given = spec_of(tmp_path).as_json() | {"interval": interval, "duration": 2 * interval, "part_seconds": 2 * interval}
    spec = CaptureSpec.of(**given)
    store, until = PartStore(spec), NOON + timedelta(seconds=2 * interval)
    store.open()
    rows = [book(NOON + timedelta(seconds=interval)), book(until, stale=True)]
    store.write(Part(rows=rows, stretches=[Stretch(NOON, until)]), Span(NOON, until))
    store.write_manifest()
    path, lines, left_out = converted(tmp_path)
    assert path.name == f"quoine_book_snapshot_2_{name}_2026-01-02_BTCJPY.csv.gz"
    assert (len(lines), left_out) == (2, 1)


def test_what_cannot_be_converted_is_refused_in_words(tmp_path: Path) -> None:
    make(tmp_path / "books")
    with pytest.raises(QuoineInputError, match="depth is 0"):
        converted(tmp_path / "books", depth=0)
    given = spec_of(tmp_path / "trades").as_json() | {"stream": "execution", "interval": None}
    spec = CaptureSpec.of(**given)
    store = PartStore(spec)
    store.open()
    store.write_manifest()
    with pytest.raises(QuoineInputError, match="only order books"):
        converted(tmp_path / "trades")
    with pytest.raises(QuoineInputError, match="2 captures"):
        converted(tmp_path)
    assert not (tmp_path / "books" / "csv").exists()
