"""The picture of a capture."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_quoine.captures.parts import Part
from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.captures.store import PartStore
from airflow_provider_quoine.datasets.reading import one_capture
from airflow_provider_quoine.datasets.report import LEFT, WIDTH, write_report
from airflow_provider_quoine.formats.lines import line_of, row_of
from airflow_provider_quoine.formats.pieces import Span, Stretch
from tests.datasets.stored import NOON, make, spec_of

SVG = "{http://www.w3.org/2000/svg}"


def drawn(folder: Path, timezone: str = "UTC") -> ElementTree.Element:
    """Draw the one capture of a folder, and read the picture."""
    path = write_report(one_capture(str(folder)), timezone=timezone)
    return ElementTree.fromstring(path.read_text())


def of_class(picture: ElementTree.Element, name: str) -> list[dict[str, str]]:
    """The attributes of all shapes of a class."""
    return [shape.attrib for shape in picture.iter() if shape.get("class") == name]


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_it_shows_when_was_listened_each_gap_and_the_spread_between(tmp_path: Path, file_format: str) -> None:
    make(tmp_path, file_format)
    picture = drawn(tmp_path, "Asia/Tokyo")
    words = [text.text or "" for text in picture.iter(f"{SVG}text")]
    assert "order_book btcjpy; 2026-01-02 21:00:00 to 2026-01-02 21:05:00 Asia/Tokyo" in words
    assert any("289 rows; 1 gaps, 10.0 s" in each for each in words)
    (gap,) = of_class(picture, "gap")
    assert float(gap["x"]) == pytest.approx(LEFT + WIDTH * 140 / 300, abs=0.01)
    assert float(gap["width"]) == pytest.approx(WIDTH * 10 / 300, abs=0.01)
    # The third minute was listened to before its gap and after it.
    assert len(of_class(picture, "listened")) == 6
    before, after = (line["points"].split() for line in of_class(picture, "line"))
    # No line is drawn over the gap.
    assert float(before[-1].split(",")[0]) <= float(gap["x"]) + WIDTH / 288
    assert float(after[0].split(",")[0]) >= float(gap["x"]) + float(gap["width"]) - WIDTH / 288


def test_of_executions_it_shows_how_many_came(tmp_path: Path) -> None:
    given = spec_of(tmp_path).as_json() | {"stream": "execution", "interval": None, "pair": "btcjpy"}
    spec = CaptureSpec.of(**given)
    store = PartStore(spec)
    store.open()
    since, until = spec.periods.span(1)
    moments = [(since + timedelta(seconds=second)).isoformat() for second in (10.2, 10.4, 20)]
    trade = {
        "type": "execution",
        "pair": "btcjpy",
        "seq": 1,
        "connection": "a-1",
        "id": "1",
        "price": "1",
        "quantity": "1",
    }
    rows = [
        row_of(line_of({**trade, "received_at": at, "taker_side": "buy", "created_at": NOON.isoformat()}))
        for at in moments
    ]
    store.write(Part(rows=rows, stretches=[Stretch(since, until)]), Span(since, until))
    store.write_manifest()
    picture = drawn(tmp_path)
    words = [text.text for text in picture.iter(f"{SVG}text")]
    assert "rows" in words
    assert "2" in words
    assert of_class(picture, "band") == []


def test_of_a_capture_without_rows_there_is_a_picture_too(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    store = PartStore(spec)
    store.open()
    for period in range(5):
        store.write(Part(), spec.periods.span(period))
    store.write_manifest()
    picture = drawn(tmp_path)
    assert of_class(picture, "line") == []
    assert len(of_class(picture, "gap")) == 1
