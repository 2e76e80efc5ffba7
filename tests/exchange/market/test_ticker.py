"""A product's ticker at one moment."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_quoine.exchange.errors import QuoineStreamDataError
from airflow_provider_quoine.exchange.market.pairs import Pair
from airflow_provider_quoine.exchange.market.ticker import Ticker
from airflow_provider_quoine.exchange.stream.pusher import StreamEvent

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def event(data: str, *, name: str = "updated", channel: str = "product_cash_btcjpy_5") -> StreamEvent:
    return StreamEvent(channel, name, data, NOON, 1)


def test_a_snapshot_states_everything_as_json() -> None:
    ticker = Ticker(pair=Pair("BTCJPY"))
    ticker.update(event('{"id": 5, "market_ask": 600.10, "brand_new": 1.50}'))
    ticker.update(event('{"id": 6}', name="deleted"))
    ticker.update(event('{"id": 7}', channel="product_cash_ethjpy_29"))
    taken_at = NOON + timedelta(seconds=3)
    snapshot = ticker.snapshot(taken_at, due_at=NOON + timedelta(seconds=2), stale=True)
    assert snapshot.doubt == "stale"
    told = json.loads(json.dumps(snapshot.as_dict()))
    assert {name: value for name, value in told.items() if value is not None} == {
        "pair": "btcjpy",
        "due_at": "2026-01-02T12:00:02+00:00",
        "taken_at": "2026-01-02T12:00:03+00:00",
        "received_at": "2026-01-02T12:00:00+00:00",
        "age": 2.0,
        "stale": True,
        "id": "5",
        "market_ask": "600.1",
        "other": {"brand_new": "1.5"},
    }


def test_an_unreadable_ticker_fails_one_snapshot() -> None:
    ticker = Ticker(pair=Pair("btcjpy"))
    with pytest.raises(KeyError):
        ticker.snapshot(NOON)
    ticker.update(event("[]"))
    with pytest.raises(QuoineStreamDataError):
        ticker.snapshot(NOON)
    ticker.update(event("{}"))
    assert ticker.snapshot(NOON).doubt is None
