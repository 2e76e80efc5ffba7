"""``airflow quoine captures``: what it prints, writes and exits with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.datasets.stored import STEM, make, part


def captures_cli(*words: str) -> None:
    """Run ``airflow quoine captures`` in this process."""
    from airflow.cli import cli_parser

    told = cli_parser.get_parser().parse_args(["quoine", "captures", *words])
    told.func(told)


def refused(*words: str) -> str:
    """Run a command that must refuse, and return its words."""
    with pytest.raises(SystemExit) as caught:
        captures_cli(*words)
    assert isinstance(caught.value.code, str)
    return caught.value.code


def test_a_clean_capture_is_verified_with_a_short_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path)
    captures_cli("verify", str(tmp_path))
    assert capsys.readouterr().out.splitlines() == [
        "1 captures, 5 parts, 289 rows; 10 s of gaps, completeness 96.3333%",
        "Every part is as it was written, every row in its place, and all that is missing is stated.",
    ]


def test_damage_is_named_and_the_exit_code_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path)
    missing = part(tmp_path, 1)
    missing.unlink()
    assert refused("verify", str(tmp_path)) == "1 faults: these captures are not as they were written."
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"missing   {missing.name}",
        "          it is not there",
    ]


def test_a_picture_is_drawn_beside_the_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path)
    captures_cli("report", str(tmp_path), "--timezone", "Asia/Tokyo")
    picture = tmp_path / f"_{STEM}.report.svg"
    assert capsys.readouterr().out.splitlines()[-1] == f"The picture is {picture}."
    assert "Asia/Tokyo" in picture.read_text()


def test_books_are_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "books")
    captures_cli("convert", str(tmp_path / "books"), str(tmp_path / "csv"), "--depth", "1")
    (table,) = (tmp_path / "csv").iterdir()
    assert capsys.readouterr().out == f"289 books are in {table}. 0 stale ones were left out.\n"


def test_what_cannot_be_read_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("_AIRFLOW_PROCESS_CONTEXT", raising=False)
    assert refused("verify", str(tmp_path)).startswith("There is no capture in")
    assert "cannot be used: FileNotFoundError" in refused("report", f"{tmp_path}/{STEM}_*.jsonl")
    make(tmp_path)
    assert "cannot be used" in refused("report", str(tmp_path), "--timezone", "Asia/Edo")
    assert "_AIRFLOW_PROCESS_CONTEXT" not in os.environ
