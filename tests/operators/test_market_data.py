"""The snapshot operators: what it refuses, what it defers, and what it makes of the trigger's event."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

from airflow_provider_quoine.operators.market_data import (
    QuoineExecutionsSnapshotOperator,
    QuoineOrderBookSnapshotOperator,
    QuoineProductSnapshotOperator,
    SnapshotOperator,
)
from airflow_provider_quoine.triggers.events import QuoineForeignEventError
from tests.support.events import event_of
from tests.support.pairs import counted_pair_checks


def make_operator(**given: Any) -> QuoineOrderBookSnapshotOperator:
    return QuoineOrderBookSnapshotOperator(task_id="snapshot", **{"pair": "BTCJPY", **given})


def test_it_waits_in_the_triggerer_with_the_pair_as_channels_name_it() -> None:
    with pytest.raises(TaskDeferred) as deferred, counted_pair_checks() as checked:
        make_operator(depth=5, snapshot_timeout=7.5, quoine_conn_id="mine").execute({})
    assert checked == ["BTCJPY"]
    assert deferred.value.method_name == "execute_complete"
    told = deferred.value.trigger.serialize()[1]
    assert type(told["pair"]) is str
    wanted = {"quoine_conn_id": "mine", "pair": "btcjpy", "timeout": 7.5, "depth": 5, "on_doubt": "mark"}
    assert told.items() >= wanted.items()
    assert [told[name] for name in ("interval", "count", "duration")] == [None] * 3


def test_ticker_and_executions_wait_in_the_triggerer_too() -> None:
    operators: list[SnapshotOperator] = [
        QuoineProductSnapshotOperator(task_id="ticker", pair="QASHJPY", product_id=50),
        QuoineExecutionsSnapshotOperator(task_id="trades", pair="BTCJPY", count=7),
    ]
    told = []
    for operator in operators:
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute({})
        told.append(deferred.value.trigger.serialize()[1])
    assert (told[0]["pair"], told[0]["product_id"]) == ("qashjpy", 50)
    assert (told[1]["pair"], told[1]["count"]) == ("btcjpy", 7)


def test_executions_are_the_result_with_what_was_missed() -> None:
    result = {"executions": [{"id": "1"}], "dropped": 2, "reconnects": 1, "gap_seconds": 0.5}
    operator = QuoineExecutionsSnapshotOperator(task_id="trades", pair="btcjpy")
    assert operator.execute_complete({}, event_of("success", result=result)) == result


@pytest.mark.parametrize("count", [0, None, 10**6, "3"])
def test_a_senseless_number_of_executions_fails_at_once(count: Any) -> None:
    with pytest.raises(AirflowFailException, match="count"):
        QuoineExecutionsSnapshotOperator(task_id="trades", pair="btcjpy", count=count).execute({})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pair": "BTC/JPY"}, "no currency pair"),
        ({"pair": ""}, "no currency pair"),
        ({"pair": None}, "no currency pair"),
        ({"depth": 0}, "depth"),
        ({"depth": True}, "depth"),
        ({"depth": "5"}, "depth"),
        ({"on_doubt": "guess"}, "on_doubt"),
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
    snapshot = {"pair": "btcjpy"}
    assert make_operator().execute_complete({}, event_of("success", result=snapshot)) == snapshot


@pytest.mark.parametrize("status", ["timeout", "error"])
def test_the_triggers_words_are_the_failure_and_may_be_retried(status: str) -> None:
    with pytest.raises(AirflowException, match="why") as caught:
        make_operator().execute_complete({}, event_of(status, message="why"))
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize(
    "event",
    [None, {}, {"status": "success"}, {"status": "success", "snapshot": {}}, event_of("success") | {"version": 0}],
)
def test_an_event_that_is_none_of_the_triggers_is_never_a_success(event: dict[str, Any] | None) -> None:
    with pytest.raises(QuoineForeignEventError, match=r"does\s+not\s+understand"):
        make_operator().execute_complete({}, event)
