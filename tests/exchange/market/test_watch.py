"""A watch: what it writes down before it tells, and what two of them make of each other's memory."""

from __future__ import annotations

import json

import pytest

from airflow_provider_quoine.exchange.market.conditions import Condition, PriceReaches, SpreadAbove, TradeAbove
from airflow_provider_quoine.exchange.market.edge_detector import EdgeDetector
from airflow_provider_quoine.exchange.market.market_state import MarketState
from airflow_provider_quoine.exchange.market.pairs import Pair
from airflow_provider_quoine.exchange.market.watch import MOST_TOLD, Watch
from airflow_provider_quoine.exchange.market.watcher_memory import Event, WatcherMemory
from tests.exchange.market.states import book, state, trade

RISE = PriceReaches.of(level="600")


def watch(condition: Condition = RISE, *, life: str = "a", memory: WatcherMemory | None = None) -> Watch:
    detector = EdgeDetector(pair=Pair("btcjpy"), condition=condition, cooldown=0, source="it", memory=memory)
    return Watch(detector, life=life)


def stored(one: Watch) -> WatcherMemory:
    return WatcherMemory.of(json.loads(json.dumps(one.memory().as_json())))


def tell(one: Watch, *states: MarketState, other: WatcherMemory | None = None) -> list[str]:
    """Have it take states, and do what a watcher does."""
    one.observe(states)
    if not one.due():
        return []
    if other:
        one.merge(other)
    return [event["event_id"].rpartition("/")[2] for event in one.release()]


def test_an_event_is_in_the_memory_before_it_is_told() -> None:
    one = watch()
    one.observe([trade("599", 1), trade("601", 2, id_="7")])
    assert one.due()
    memory = stored(one)
    assert [event["event_id"] for _, event in memory.told] == ["it/price_crossed/btcjpy/600/up/last_trade/7"]
    assert memory.position == "true"
    assert memory.life == "a"


def test_the_next_watcher_tells_once_more_what_may_not_have_been_told() -> None:
    one = watch()
    assert tell(one, trade("599", 1), trade("601", 2, id_="7")) == ["7"]
    two = watch(life="b", memory=stored(one))
    assert tell(two, state(30)) == ["7"]
    assert tell(two, trade("602", 31, id_="8")) == []


def test_what_was_told_a_while_ago_is_not_told_again() -> None:
    one = watch()
    assert tell(one, trade("599", 1), trade("601", 2, id_="7")) == ["7"]
    assert tell(one, state(15)) == []
    assert stored(one).told == []


def test_events_that_come_fast_are_written_and_told_together() -> None:
    one = watch(TradeAbove.of(size="5"))
    burst = [trade("1", clock / 10, quantity="9", id_=str(clock)) for clock in range(25)]
    told = [len(tell(one, each)) for each in burst]
    assert told == [1] + [0] * 9 + [10] + [0] * 9 + [10] + [0] * 4


def test_the_memory_is_not_written_for_each_price() -> None:
    one, writes = watch(), 0
    for second in range(600):
        one.observe([trade(str(500 + second % 90), second)])
        if one.due():
            writes += 1
            one.release()
    assert writes == 10


def test_a_side_that_changes_without_an_event_is_written_within_ten_seconds() -> None:
    one = watch()
    written = []
    for clock in range(30):
        one.observe([trade("601" if clock < 5 else "599", clock)])
        if one.due():
            one.release()
            written.append(clock)
    assert written == [0, 10]


def test_what_does_not_fit_into_the_memory_is_said_to_be_unknown() -> None:
    one = watch(TradeAbove.of(size="5"))
    one.observe([trade("1", 1 + number / 100, quantity="9", id_=str(number)) for number in range(MOST_TOLD + 10)])
    memory = stored(one)
    assert len(memory.told) == MOST_TOLD
    assert memory.unknown_since == trade("1", 1).at
    assert stored(one).as_json() == memory.as_json()
    assert len(one.release()) == MOST_TOLD + 10


def test_an_event_with_an_id_that_was_told_is_not_told_again() -> None:
    one = watch(TradeAbove.of(size="5"))
    assert tell(one, trade("1", 1, quantity="9")) == ["90001"]
    assert tell(one, trade("1", 3, quantity="9")) == []


def after_a_gap(*, other: WatcherMemory | None) -> tuple[Watch, list[Event]]:
    """Return a watch that saw a crossing after a gap, and what it tells once it has waited for the other."""
    one = watch()
    one.observe([trade("599", 1), trade("602", 20, epoch=2, id_="9")])
    assert not one.due()
    one.observe([state(24, epoch=2)])
    assert one.due()
    if other:
        one.merge(other)
    return one, one.release()


def seen_by_other(*states: MarketState) -> WatcherMemory:
    other = watch(life="b")
    other.observe(states)
    return stored(other)


def test_a_crossing_in_a_gap_is_told_after_a_while() -> None:
    _, (event,) = after_a_gap(other=None)
    assert event["seen_after_gap"]


def test_a_crossing_in_a_gap_that_another_watcher_saw_has_that_one_s_id() -> None:
    other = seen_by_other(trade("599", 1), trade("601", 10, id_="7"), trade("602", 20, id_="9"))
    _, (event,) = after_a_gap(other=other)
    assert event["event_id"].endswith("/7")
    assert not event["seen_after_gap"]


def test_a_crossing_in_a_gap_that_another_watcher_told_long_ago_is_not_told_again() -> None:
    other = watch(life="b")
    assert tell(other, trade("599", 1), trade("601", 2, id_="7")) == ["7"]
    assert tell(other, trade("602", 13, id_="8"), trade("599", 23, id_="10")) == []
    one, told = after_a_gap(other=stored(other))
    assert told == []
    assert tell(one, trade("599", 26, epoch=2), trade("600", 27, epoch=2, id_="11")) == ["11"]


def test_what_another_watcher_has_not_seen_either_is_told() -> None:
    before = seen_by_other(trade("599", 1))
    beyond = seen_by_other(trade("601", 0.5))
    for other in (before, beyond):
        _, (event,) = after_a_gap(other=other)
        assert event["event_id"].endswith("/9")


def test_two_watchers_of_the_same_book_tell_the_same_id() -> None:
    spread = SpreadAbove.of(bound="5")
    one, other = watch(spread), watch(spread, life="b")
    assert len(tell(one, book("599", "600", 1), book("600", "609", 9.95))) == 1
    other.observe([book("599", "600", 1), book("600", "609", 10.05)])
    other.merge(stored(one))
    assert [event["event_id"] for event in other.release()] == [event["event_id"] for _, event in stored(one).told]


def test_an_event_after_one_that_took_another_watcher_s_id_is_told() -> None:
    spread = SpreadAbove.of(bound="5")
    one, other = watch(spread), watch(spread, life="b")
    other.observe([book("599", "600", 1), book("600", "609", 10.05)])
    assert tell(one, book("599", "600", 1), book("600", "609", 9.95), book("600", "608", 10.1), other=stored(other))
    assert tell(one, book("599", "600", 12), book("600", "609", 13)) == ["2026-01-02T12:00:10+00:00#2"]


def test_a_price_that_flaps_within_a_second_has_an_id_for_each_event_in_two_watchers() -> None:
    either = PriceReaches.of(level="600", direction="either", price="best_bid")
    flaps = [book("599" if step % 2 else "601", "700", 1 + step / 10) for step in range(6)]
    one, other = watch(either), watch(either, life="b")
    other.observe(flaps[:3])
    one.observe(flaps)
    one.merge(stored(other))
    ids = [event["event_id"] for event in one.release()]
    assert len(set(ids)) == 5
    assert ids[:2] == [event["event_id"] for _, event in stored(other).told]


def test_a_watcher_goes_on_from_another_s_newer_memory() -> None:
    one = watch()
    assert tell(one, trade("599", 1)) == []
    one.merge(seen_by_other(trade("599", 1), trade("601", 5, id_="7"), trade("598", 6), trade("601", 7, id_="8")))
    assert [event["event_id"][-1] for event in one.release()] == ["7", "8"]
    assert stored(one).position == "true"
    assert tell(one, trade("602", 9, epoch=2), state(13, epoch=2)) == []


def test_its_own_memory_tells_it_nothing() -> None:
    one = watch()
    assert tell(one, trade("599", 1), trade("601", 2, id_="7")) == ["7"]
    one.merge(stored(one))
    assert not one.has_events


def test_a_watch_that_saw_nothing_has_nothing_to_do() -> None:
    one = watch()
    assert not one.due()
    with pytest.raises(AssertionError, match="nothing was observed"):
        one.release()


@pytest.mark.parametrize(
    "change",
    [
        {"told": [["2026-01-02T12:00:00+00:00", {}]]},
        {"told": [["2026-01-02T12:00:00+00:00", {"event_id": "1", "at": "2026-01-02T12:00:00+00:00"}]]},
        {"last": {"up": ["2026-01-02T12:00:00", "1"]}},
        {"as_of": "2026-01-02T12:00:00"},
    ],
)
def test_a_stored_memory_that_somebody_has_changed_is_refused_before_a_watcher_fails_by_it(change: Event) -> None:
    one = watch()
    one.observe([trade("599", 1), trade("601", 2)])
    with pytest.raises(ValueError, match=r"memory|offset"):
        WatcherMemory.of({**one.memory().as_json(), **change})
