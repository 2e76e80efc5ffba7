"""The order-book operator: what it refuses, what it defers, and what it makes of the trigger's event."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

from airflow_provider_quoine.operators.market_data import QuoineOrderBookSnapshotOperator


def make_operator(**given: Any) -> QuoineOrderBookSnapshotOperator:
    return QuoineOrderBookSnapshotOperator(task_id="snapshot", **{"pair": "BTCJPY", **given})


def test_it_waits_in_the_triggerer_with_the_pair_as_channels_name_it() -> None:
    with pytest.raises(TaskDeferred) as deferred:
        make_operator(depth=5, snapshot_timeout=7.5, quoine_conn_id="mine").execute({})
    assert deferred.value.method_name == "execute_complete"
    assert deferred.value.trigger.serialize()[1] == {
        "quoine_conn_id": "mine",
        "pair": "btcjpy",
        "timeout": 7.5,
        "depth": 5,
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pair": "BTC/JPY"}, "no currency pair"),
        ({"pair": ""}, "no currency pair"),
        ({"pair": None}, "no currency pair"),
        ({"depth": 0}, "depth"),
        ({"depth": True}, "depth"),
        ({"depth": "5"}, "depth"),
        ({"snapshot_timeout": 0}, "snapshot_timeout"),
        ({"snapshot_timeout": float("nan")}, "snapshot_timeout"),
        ({"snapshot_timeout": float("inf")}, "snapshot_timeout"),
        ({"snapshot_timeout": "60"}, "snapshot_timeout"),
    ],
)
def test_wrong_input_fails_at_once_and_without_retry(given: dict[str, Any], words: str) -> None:
    operator = make_operator(**given)
    with pytest.raises(AirflowFailException, match=words):
        operator.execute({})


def test_a_snapshot_is_the_result() -> None:
    assert make_operator().execute_complete({}, {"status": "success", "snapshot": {"pair": "btcjpy"}}) == {
        "pair": "btcjpy"
    }


@pytest.mark.parametrize("status", ["timeout", "error"])
def test_the_triggers_words_are_the_failure_and_may_be_retried(status: str) -> None:
    with pytest.raises(AirflowException, match="why") as caught:
        make_operator().execute_complete({}, {"status": status, "message": "why"})
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize(
    "event",
    [None, {}, {"status": "success"}, {"status": "success", "snapshot": None}, {"status": "done", "message": "x"}],
)
def test_an_event_that_is_none_of_the_triggers_is_never_a_success(event: dict[str, Any] | None) -> None:
    with pytest.raises(AirflowException, match="no snapshot"):
        make_operator().execute_complete({}, event)
