"""The market sensors: the input that they refuse, the trigger that they defer to, and their results."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_quoine.sensors.market_events import (
    QuoineLargeTradeSensor,
    QuoinePriceSensor,
    QuoineSilentBookSensor,
    QuoineSpreadSensor,
)
from airflow_provider_quoine.triggers.events import QuoineForeignEventError, Status
from tests.support.events import event_of
from tests.support.pairs import counted_pair_checks


def make(kind: type[BaseSensorOperator] = QuoinePriceSensor, **given: Any) -> BaseSensorOperator:
    given = given or {"level": "600"}
    return kind(task_id="wait", **{"pair": "BTCJPY", **given})


@pytest.mark.parametrize(
    ("kind", "given", "condition", "arguments"),
    [
        (
            QuoinePriceSensor,
            {"level": "600.50", "direction": "down", "price": "mid"},
            "price_crossed",
            {"level": "600.5", "direction": "down", "price": "mid"},
        ),
        (QuoineSpreadSensor, {"bound": "2.50"}, "spread_above", {"bound": "2.5"}),
        (QuoineLargeTradeSensor, {"size": "5"}, "trade_above", {"size": "5"}),
        (QuoineSilentBookSensor, {"seconds": 60}, "book_silent", {"seconds": 60.0}),
    ],
)
def test_it_defers_to_the_triggerer_with_its_timeout(
    kind: type[BaseSensorOperator], given: dict[str, Any], condition: str, arguments: dict[str, Any]
) -> None:
    with counted_pair_checks() as checked, pytest.raises(TaskDeferred) as deferred:
        make(kind, **given, timeout=7, quoine_conn_id="mine").execute({})
    assert checked == ["BTCJPY"]
    assert (deferred.value.method_name, deferred.value.timeout) == ("execute_complete", timedelta(seconds=7))
    assert deferred.value.trigger.serialize()[1] == {
        "pair": "btcjpy",
        "condition": condition,
        "arguments": arguments,
        "quoine_conn_id": "mine",
    }


@pytest.mark.parametrize("soft_fail", [False, True])
@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (QuoinePriceSensor, {"level": "600", "pair": "BTC/JPY"}, "no currency pair"),
        (QuoinePriceSensor, {"level": 600.5}, "level is 600.5"),
        (QuoinePriceSensor, {"level": "600", "direction": "either"}, "'up' or 'down'"),
        (QuoinePriceSensor, {"level": "600", "direction": "sideways"}, "direction is 'sideways'"),
        (QuoinePriceSensor, {"level": "600", "price": "bid"}, "price is 'bid'"),
        (QuoineSpreadSensor, {"bound": "-1"}, "bound is '-1'"),
        (QuoineLargeTradeSensor, {"size": "much"}, "size is 'much'"),
        (QuoineSilentBookSensor, {"seconds": 0}, "seconds is 0"),
    ],
)
def test_wrong_input_fails_at_once_without_retry_despite_soft_fail(
    kind: type[BaseSensorOperator], given: dict[str, Any], words: str, soft_fail: bool
) -> None:
    with pytest.raises(AirflowFailException, match=words):
        make(kind, **given, soft_fail=soft_fail).execute({})


def resume(sensor: BaseSensorOperator, event: Any) -> Any:
    """Resume the task as Airflow does."""
    return sensor.resume_execution("execute_complete", {"event": event}, {})


def test_the_market_event_is_the_result() -> None:
    seen = {"event": "price_crossed", "price": "601"}
    assert resume(make(), event_of(Status.SUCCESS, result=seen)) == seen


def test_a_stream_that_cannot_be_read_fails_and_may_be_retried_or_is_skipped() -> None:
    event = event_of(Status.ERROR, message="why")
    with pytest.raises(AirflowException, match="why") as caught:
        resume(make(), event)
    assert not isinstance(caught.value, AirflowFailException)
    with pytest.raises(AirflowSkipException):
        resume(make(level="600", soft_fail=True), event)


@pytest.mark.parametrize("soft_fail", [False, True])
@pytest.mark.parametrize(
    ("event", "words"),
    [
        (None, r"The market trigger sent None, which this version does\s+not\s+understand"),
        ({"status": "success"}, r"does\s+not\s+understand"),
        ({"status": "success", "seen": {"event": "price_crossed"}}, r"does\s+not\s+understand"),
        (event_of(Status.SUCCESS) | {"version": 0}, r"does\s+not\s+understand"),
    ],
)
def test_an_event_of_another_version_fails_also_softly(event: Any, words: str, soft_fail: bool) -> None:
    with pytest.raises(QuoineForeignEventError, match=words):
        resume(make(level="600", soft_fail=soft_fail), event)


def test_a_timeout_is_that_of_a_sensor() -> None:
    failure = {"error": "Trigger timeout"}
    with pytest.raises(AirflowSensorTimeout):
        make().resume_execution("__fail__", failure, {})
    with pytest.raises(AirflowSkipException):
        make(level="600", soft_fail=True).resume_execution("__fail__", failure, {})
