"""The capture operators: what they refuse, what they defer, and what becomes of a retry and of a clear."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import AssetAlias
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

from airflow_provider_quoine.assets import CAPTURES
from airflow_provider_quoine.operators.capture import (
    CaptureOperator,
    QuoineCaptureEventsOperator,
    QuoineCaptureExecutionsOperator,
    QuoineCaptureOrderBookOperator,
    QuoineCaptureProductOperator,
    path_name,
)
from airflow_provider_quoine.triggers.events import QuoineForeignEventError
from tests.support.events import event_of
from tests.support.pairs import counted_pair_checks

SUMMARY = {
    "path": "/x/*.jsonl",
    "files": 1,
    "rows": 2,
    "gap_seconds": 0.5,
    "completeness": 0.99,
    "from": "2026-01-02T03:04:05+00:00",
    "until": "2026-01-02T03:05:05+00:00",
}


class Store(dict[str, Any]):
    """The part of the task state store that the operators use."""

    def set(self, key: str, value: Any) -> None:
        """Write the value under a key."""
        self[key] = value

    def delete(self, key: str) -> None:
        """Forget a key."""
        self.pop(key, None)


def context_of(store: Store | None = None, *, map_index: int = -1) -> Any:
    run = {"dag_id": "books", "run_id": "manual__2026-01-02T03:04:05+00:00", "task_id": "group.capture"}
    told: list[dict[str, str]] = []
    outlet = SimpleNamespace(add=lambda _, extra: told.append(extra))
    return {
        "ti": SimpleNamespace(**run, map_index=map_index),
        "task_state_store": Store() if store is None else store,
        "outlet_events": defaultdict(lambda: outlet),
        "task": SimpleNamespace(outlets=[AssetAlias(f"{CAPTURES.name}/books")]),
        "told": told,
    }


def book_of(**given: Any) -> CaptureOperator:
    defaults = {"task_id": "capture", "path": "s3://mine@bucket/captures/", "pair": "BTCJPY", "interval": 1}
    return QuoineCaptureOrderBookOperator(**{**defaults, "duration": 60, **given})


def deferred_arguments(operator: CaptureOperator, context: Any) -> dict[str, Any]:
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    assert deferred.value.method_name == "execute_complete"
    arguments: dict[str, Any] = deferred.value.trigger.serialize()[1]
    return {"quoine_conn_id": arguments["quoine_conn_id"], **arguments["spec"]}


def test_it_captures_in_the_triggerer_into_a_folder_of_its_own_run_and_task() -> None:
    told = deferred_arguments(book_of(depth=5, on_doubt="skip", quoine_conn_id="mine"), context_of(map_index=3))
    folder = told["folder"].split("/")
    assert folder[:5] == ["s3:", "", "mine@bucket", "captures", "books"]
    assert folder[5].startswith("manual__2026-01-02T03_04_05_00_00-")
    assert folder[6:] == ["group.capture", "3"]
    wanted = {
        "quoine_conn_id": "mine",
        "stream": "order_book",
        "pair": "btcjpy",
        "interval": 1.0,
        "duration": 60.0,
        "depth": 5,
        "on_doubt": "skip",
        "part_seconds": 60,
        "file_format": "jsonl",
    }
    assert told.items() >= wanted.items()
    began_at = datetime.fromisoformat(told["began_at"])
    assert began_at.microsecond == 0
    assert timedelta(0) <= datetime.now(UTC) - began_at < timedelta(minutes=1)


def test_templates_may_write_the_numbers() -> None:
    told = deferred_arguments(book_of(interval="0.5", duration=None, count="120", part_seconds="30"), context_of())
    assert (told["interval"], told["duration"], told["part_seconds"]) == (0.5, 60.0, 30)


def test_the_other_streams_are_captured_likewise() -> None:
    where = {"task_id": "capture", "path": "/captures"}
    ticker = QuoineCaptureProductOperator(**where, pair="qashjpy", product_id=50, interval=1, count=9)
    trades = QuoineCaptureExecutionsOperator(**where, pair="btcjpy", duration=60)
    events = QuoineCaptureEventsOperator(**where, channels=("a", "b"), duration="60", file_format="jsonl.gz")
    told = [deferred_arguments(operator, context_of()) for operator in (ticker, trades, events)]
    assert [one["stream"] for one in told] == ["product", "execution", "event"]
    assert [one["duration"] for one in told] == [9.0, 60, 60]
    assert (told[0]["product_id"], told[1]["pair"], told[2]["channels"]) == (50, "btcjpy", ["a", "b"])


def test_a_pair_is_checked_once() -> None:
    with counted_pair_checks() as checked:
        deferred_arguments(book_of(), context_of())
    assert checked == ["BTCJPY"]


def test_a_retry_goes_on_with_the_same_capture_and_a_clear_after_success_begins_a_new_one() -> None:
    context = context_of(Store(quoine_capture={"began_at": "2026-01-02T03:04:05+00:00"}))
    assert deferred_arguments(book_of(), context)["began_at"] == "2026-01-02T03:04:05+00:00"
    with pytest.raises(AirflowException):
        book_of().execute_complete(context, event_of("error", message="why"))
    assert deferred_arguments(book_of(), context)["began_at"] == "2026-01-02T03:04:05+00:00"
    assert book_of().execute_complete(context, event_of("success", result=SUMMARY)) == SUMMARY
    assert deferred_arguments(book_of(), context)["began_at"] > "2026-01-02T03:04:05+00:00"


def test_a_capture_that_has_ended_is_an_event_of_an_asset_that_airflow_knows() -> None:
    operator, context = book_of(), context_of()
    assert operator.execute_complete(context, event_of("success", result=SUMMARY)) == SUMMARY
    assert context["told"] == [
        {
            "event_id": "capture//x/*.jsonl",
            "stream": "order_book",
            "path": "/x/*.jsonl",
            "rows": "2",
            "gap_seconds": "0.5",
            "completeness": "0.99",
            "from": "2026-01-02T03:04:05+00:00",
            "until": "2026-01-02T03:05:05+00:00",
        }
    ]
    assert CAPTURES in operator.inlets
    assert AssetAlias(f"{CAPTURES.name}/{operator.dag_id}") in operator.outlets


def test_a_fixed_time_is_captured_from_its_beginning_whenever_the_task_starts() -> None:
    context = context_of()
    told = deferred_arguments(book_of(began_at="2026-01-02T00:00:00+09:00", duration="86400"), context)
    assert (told["began_at"], told["duration"]) == ("2026-01-01T15:00:00+00:00", 86400.0)


def test_a_time_that_is_over_is_refused_in_words_without_a_retry() -> None:
    past = book_of(began_at="2026-01-02T00:00:00+09:00", duration="86400")
    with pytest.raises(
        AirflowFailException, match=r"(?s)86400 s from 2026-01-02T00:00:00\+09:00 on, is over.*has no past"
    ):
        past.execute_complete(context_of(), event_of("empty", message="over"))
    with pytest.raises(AirflowFailException, match="Not one row"):
        past.execute_complete(context_of(), event_of("empty", result=SUMMARY, message="Not one row was captured"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"began_at": "yesterday"}, "ISO 8601"),
        ({"pair": "BTC/JPY"}, "no currency pair"),
        ({"depth": 0}, "depth"),
        ({"interval": None}, "interval"),
        ({"duration": None}, "needs an end"),
        ({"count": 3}, "give two"),
        ({"interval": "soon"}, "interval is 'soon'"),
        ({"part_seconds": 0}, "part_seconds"),
        ({"on_doubt": "?"}, "on_doubt"),
        ({"file_format": "csv"}, "format"),
        ({"path": "captures"}, r"relative\s+path\s+is\s+another\s+folder\s+on\s+each\s+host"),
        ({"path": "./captures"}, r"relative\s+path\s+is\s+another\s+folder\s+on\s+each\s+host"),
    ],
)
def test_wrong_input_fails_at_once_without_retry_and_begins_nothing(given: dict[str, Any], words: str) -> None:
    store = Store()
    with pytest.raises(AirflowFailException, match=words):
        book_of(**given).execute(context_of(store))
    assert store == {}


@pytest.mark.parametrize(
    ("status", "again", "kept"), [("refused", False, True), ("error", True, True), ("empty", True, False)]
)
def test_the_triggers_words_are_the_failure(status: str, again: bool, kept: bool) -> None:
    context = context_of(Store(quoine_capture={"began_at": "2026-01-02T03:04:05+00:00"}))
    with pytest.raises(AirflowException, match="why") as caught:
        book_of().execute_complete(context, event_of(status, message="why"))
    assert isinstance(caught.value, AirflowFailException) is not again
    assert bool(context["task_state_store"]) is kept


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"status": "success"},
        {"status": "success", **SUMMARY},
        event_of("success", result=SUMMARY) | {"version": 0},
    ],
)
def test_an_event_that_is_none_of_the_triggers_is_never_a_success(event: dict[str, Any] | None) -> None:
    context = context_of(Store(quoine_capture={"began_at": "2026-01-02T03:04:05+00:00"}))
    with pytest.raises(QuoineForeignEventError, match=r"does\s+not\s+understand"):
        book_of().execute_complete(context, event)
    assert context["task_state_store"]


def test_names_are_safe_and_of_one_id_only() -> None:
    given = ["daily", "manual__2026-01-02T03:04:05+00:00", "a/b", "a_b", "a:b", "..", ".", "日本", "x" * 300, "x" * 301]
    made = [path_name(text) for text in given]
    assert len(set(made)) == len(given)
    assert made[0] == "daily"
    assert made[1].startswith("manual__2026-01-02T03_04_05_00_00-")
    assert all(name.strip(".") and "/" not in name and len(name) < 100 for name in made)
