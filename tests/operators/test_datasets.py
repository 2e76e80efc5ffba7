"""The operators that verify and draw captures."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time.xcom import XCom

from airflow_provider_quoine.links.captures import QuoineCaptureReportLink
from airflow_provider_quoine.operators.datasets import QuoineCaptureReportOperator, QuoineVerifyCaptureOperator
from tests.datasets.stored import STEM, make, part

CONTEXT: Any = {}


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """All that was logged, whether Airflow's logging is set up in this process or not."""
    caplog.set_level(logging.INFO)
    return lambda: caplog.text + capsys.readouterr().out


def test_a_clean_capture_gives_its_numbers(tmp_path: Path) -> None:
    make(tmp_path)
    found = QuoineVerifyCaptureOperator(task_id="verify", path=f"{tmp_path}/{STEM}_*.jsonl").execute(CONTEXT)
    assert (found["parts"], found["rows"], found["faults"]) == (5, 289, 0)


def test_damage_fails_without_a_retry_and_is_named_in_the_log(tmp_path: Path, said: Callable[[], str]) -> None:
    make(tmp_path)
    part(tmp_path, 4).write_bytes(b"")
    with pytest.raises(AirflowFailException, match=r"(?s)1 faults: .*The table in this task's log names each"):
        QuoineVerifyCaptureOperator(task_id="verify", path=str(tmp_path)).execute(CONTEXT)
    assert f"changed   {part(tmp_path, 4).name}" in said()


@pytest.mark.parametrize("operator", [QuoineVerifyCaptureOperator, QuoineCaptureReportOperator])
def test_a_folder_without_a_capture_fails_without_a_retry(tmp_path: Path, operator: Any) -> None:
    with pytest.raises(AirflowFailException, match="no capture in"):
        operator(task_id="task", path=str(tmp_path)).execute(CONTEXT)


def test_the_picture_is_beside_the_capture_and_log_and_link_lead_there(
    tmp_path: Path, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    report = QuoineCaptureReportOperator(task_id="report", path=str(tmp_path), timezone="Asia/Tokyo")
    picture = report.execute(CONTEXT)
    assert Path(picture) == tmp_path / f"_{STEM}.report.svg"
    assert "Asia/Tokyo" in Path(picture).read_text()
    assert f"The picture is {picture}" in said()
    (link,) = report.operator_extra_links
    monkeypatch.setattr(XCom, "get_value", lambda *, ti_key, key: picture)
    assert isinstance(link, QuoineCaptureReportLink)
    ti_key: Any = SimpleNamespace()
    assert link.get_link(report, ti_key=ti_key) == Path(picture).as_uri()
    monkeypatch.setattr(XCom, "get_value", lambda *, ti_key, key: None)
    assert link.get_link(report, ti_key=ti_key) == ""
