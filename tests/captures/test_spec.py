"""The specification of a capture: what it refuses, and how often it checks a pair."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.captures.capturing import run
from tests.support.pairs import counted_pair_checks

Begin = Callable[..., CaptureSpec]

GIVEN: dict[str, Any] = {
    "stream": "order_book",
    "folder": "/captures",
    "file_format": "jsonl",
    "began_at": "2026-01-02T21:00:00.000001+09:00",
    "part_seconds": 60,
    "pair": "BTCJPY",
}
NOON = datetime(2026, 1, 2, 12, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "interval", "duration"),
    [
        ({"interval": 0.1, "duration": 0.3}, 0.1, 0.3),
        ({"interval": 7, "duration": 20}, 7, 14),
        ({"interval": 1, "count": 9}, 1, 9),
        ({"count": 3, "duration": 1}, 0.333333, 0.999999),
        ({"interval": 1 / 3, "duration": 86_400.000001}, 0.333333, 86_399.9136),
    ],
)
def test_a_capture_by_time_ends_with_its_last_snapshot_and_is_the_same_in_the_triggerer_to_the_microsecond(
    given: dict[str, Any], interval: float, duration: float
) -> None:
    spec = CaptureSpec.of(**GIVEN, **given)
    assert spec.schedule is not None
    assert spec.schedule.interval == timedelta(seconds=interval)
    assert spec.periods.began_at == NOON
    assert spec.periods.ends_at == NOON + timedelta(seconds=duration)
    assert CaptureSpec.of(**json.loads(json.dumps(spec.as_json()))) == spec


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"duration": 0}, "duration"),
        ({"part_seconds": -1}, "part_seconds"),
        ({"part_seconds": 1e-9}, "part_seconds is 1e-09: give a microsecond or more"),
        ({"part_seconds": 1e-6}, "give more seconds"),
        ({"interval": None}, "interval"),
        ({"duration": None}, "needs an end"),
        ({"interval": 600}, "shorter than the interval"),
        ({"pair": "BTC/JPY"}, "no currency pair"),
        ({"pair": None}, "None is no currency pair"),
        ({"depth": 0}, "depth"),
        ({"on_doubt": "?"}, "on_doubt"),
        ({"began_at": "now"}, "began_at"),
        ({"file_format": "csv"}, "file_format is 'csv': give one of 'jsonl', 'jsonl.gz', 'parquet'"),
        ({"stream": "product", "pair": "qashjpy"}, "product id"),
        ({"stream": "execution", "duration": None}, "duration"),
        ({"stream": "event", "channels": []}, "list of channels"),
        ({"stream": "event", "channels": "a"}, "list of channels"),
        ({"stream": "event", "channels": ["a", 5]}, "list of channels"),
        ({"stream": "trades"}, "'order_book', 'product', 'execution', 'event'"),
    ],
)
def test_wrong_input_is_refused_in_words(given: dict[str, Any], words: str) -> None:
    with pytest.raises(QuoineInputError, match=re.escape(words)):
        CaptureSpec.of(**{**GIVEN, "interval": 1, "duration": 60, **given})


@pytest.mark.parametrize("stream", ["order_book", "product", "execution"])
@pytest.mark.long
async def test_a_pair_is_checked_once_per_capture_and_never_per_row(
    market: SandboxServer, begin: Begin, stream: str
) -> None:
    given = begin(stream).as_json()
    with counted_pair_checks() as checked:
        result = await run(CaptureSpec.of(**given))
    assert result.summary["rows"] > 5
    assert checked == ["btcjpy"]
