"""Putting an order book together from its two sides."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_quoine.exchange.errors import QuoineStreamDataError
from airflow_provider_quoine.exchange.market.order_book import OrderBook
from airflow_provider_quoine.exchange.market.pairs import Pair
from airflow_provider_quoine.exchange.stream.pusher import StreamEvent
from tests.support.pairs import counted_pair_checks

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def event(side: str, rows: object, *, after: float = 0, name: str = "updated") -> StreamEvent:
    data = rows if isinstance(rows, str) else json.dumps(rows)
    return StreamEvent(f"price_ladders_cash_btcjpy_{side}", name, data, NOON + timedelta(seconds=after), 1)


def book_of(*events: StreamEvent, depth: int | None = None) -> OrderBook:
    book = OrderBook(pair=Pair("BTCJPY"), depth=depth)
    for each in events:
        book.update(each)
    return book


def test_a_pair_is_checked_once_for_a_book_not_for_its_events_and_snapshots() -> None:
    with counted_pair_checks() as checked:
        book = book_of(*[event(side, []) for side in ("buy", "sell") * 5])
        rows = [book.snapshot(NOON).as_dict() for _ in range(5)]
    assert checked == ["BTCJPY"]
    assert {type(row["pair"]) for row in rows} == {str}


def test_a_snapshot_states_everything_as_json() -> None:
    book = book_of(
        event("buy", [["599", "2"], ["600.5", "0.00000001"]], after=1),
        event("sell", [["602", "3"], ["601", "1E+1"]], after=2),
    )
    due_at = NOON + timedelta(seconds=2.5)
    snapshot = book.snapshot(NOON + timedelta(seconds=3), due_at=due_at).as_dict()
    assert json.loads(json.dumps(snapshot)) == {
        "pair": "btcjpy",
        "due_at": "2026-01-02T12:00:02.500000+00:00",
        "taken_at": "2026-01-02T12:00:03+00:00",
        "bids": [["600.5", "0.00000001"], ["599", "2"]],
        "asks": [["601", "10"], ["602", "3"]],
        "bids_received_at": "2026-01-02T12:00:01+00:00",
        "asks_received_at": "2026-01-02T12:00:02+00:00",
        "bids_age": 1.5,
        "asks_age": 0.5,
        "best_bid": "600.5",
        "best_ask": "601",
        "mid": "600.75",
        "spread": "0.5",
        "crossed": False,
        "stale": False,
    }


@pytest.mark.parametrize(
    ("bid", "crossed", "spread"), [("601.5", True, "-0.5"), ("601", True, "0"), ("600", False, "1")]
)
def test_a_bid_at_or_above_the_ask_is_crossed(bid: str, crossed: bool, spread: str) -> None:
    snapshot = book_of(event("buy", [[bid, "1"]]), event("sell", [["601", "1"]])).snapshot(NOON).as_dict()
    assert (snapshot["crossed"], snapshot["spread"]) == (crossed, spread)


def test_an_empty_side_leaves_mid_spread_and_crossed_unknown() -> None:
    book = book_of(event("buy", []), event("sell", [["601", "1"]]))
    snapshot = book.snapshot(NOON).as_dict()
    assert [snapshot[key] for key in ("best_bid", "mid", "spread", "crossed")] == [None] * 4
    assert (snapshot["best_ask"], snapshot["bids"]) == ("601", [])


def test_the_middle_of_the_finest_and_the_largest_price_is_exact() -> None:
    fine, large = "0." + "0" * 29 + "1", "9" * 40
    snapshot = book_of(event("buy", [[fine, fine]]), event("sell", [[large, large]])).snapshot(NOON).as_dict()
    assert snapshot["mid"] == "4" + "9" * 39 + ".5" + "0" * 29 + "5"


def test_an_event_replaces_its_whole_side() -> None:
    book = book_of(event("sell", []), event("buy", [["1", "1"], ["2", "2"]]), event("buy", [["3", "3"]], after=9))
    snapshot = book.snapshot(NOON).as_dict()
    assert (snapshot["bids"], snapshot["bids_received_at"]) == ([["3", "3"]], "2026-01-02T12:00:09+00:00")


def test_depth_keeps_the_best_of_each_side() -> None:
    book = book_of(event("buy", [["1", "1"], ["2", "1"]]), event("sell", [["4", "1"], ["3", "1"]]), depth=1)
    snapshot = book.snapshot(NOON).as_dict()
    assert (snapshot["bids"], snapshot["asks"]) == ([["2", "1"]], [["3", "1"]])


def test_other_channels_and_events_are_ignored() -> None:
    other = StreamEvent("price_ladders_cash_ethjpy_buy", "updated", "[]", NOON, 1)
    book = book_of(event("buy", [["1", "1"]]), event("sell", []), other, event("buy", [], name="deleted"))
    assert book.snapshot(NOON).as_dict()["bids"] == [["1", "1"]]


def test_a_book_without_one_of_its_sides_has_no_snapshot() -> None:
    with pytest.raises(KeyError):
        book_of(event("buy", [])).snapshot(NOON)


def test_an_unreadable_side_fails_one_snapshot_not_the_book() -> None:
    book = book_of(event("buy", "garbage"), event("sell", []))
    with pytest.raises(QuoineStreamDataError):
        book.snapshot(NOON)
    book.update(event("buy", []))
    assert book.snapshot(NOON).bids == ()


def test_data_that_came_after_the_due_moment_has_the_age_0() -> None:
    book = book_of(event("buy", [], after=5), event("sell", []))
    snapshot = book.snapshot(NOON + timedelta(seconds=6), due_at=NOON + timedelta(seconds=4)).as_dict()
    assert (snapshot["bids_age"], snapshot["asks_age"]) == (0.0, 4.0)


@pytest.mark.parametrize(("bid", "doubt"), [("600", None), ("601", "crossed")])
def test_a_doubtful_snapshot_gives_its_reason(bid: str, doubt: str | None) -> None:
    book = book_of(event("buy", [[bid, "1"]]), event("sell", [["601", "1"]]))
    assert book.snapshot(NOON).doubt == doubt
    assert book.snapshot(NOON, stale=True).doubt == "stale"
