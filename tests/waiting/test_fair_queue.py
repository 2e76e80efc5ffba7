"""The fair queue, by a clock that the tests set."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from itertools import pairwise
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quoine.waiting.fair_queue import SHORTEST_REST, FairQueue, Place


def visits(
    intervals: dict[str, float], *, gap: float, seconds: float, start: float = 0.0, seed: int = 1
) -> dict[str, list[float]]:
    """Visit for some time, at most once per gap; return the times of each waiter's visits."""
    queue: FairQueue[str] = FairQueue(chance=random.Random(seed).random)
    for name, interval in intervals.items():
        queue.join(name, interval=interval, now=start)
    now, seen = start, defaultdict(list)
    while now < start + seconds:
        place = queue.take(now)
        if place is None:
            next_at = queue.next_at()
            assert next_at is not None
            assert next_at > now
            now = next_at
            continue
        seen[place.item].append(now)
        queue.rest(place, visited_at=now)
        now += gap
    return seen


def gaps(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


def some(count: int, interval: float) -> dict[str, float]:
    return {f"{interval:g}-{number}": interval for number in range(count)}


@pytest.mark.parametrize(("count", "gap"), [(1, 1.0), (15, 1.0), (45, 1.0), (5000, 0.01), (5000, 1.0)])
def test_nobody_is_visited_sooner_than_wished_or_much_later_than_the_others(count: int, gap: float) -> None:
    round_seconds = max(30.0, count * gap)
    seen = visits(some(count, 30.0), gap=gap, seconds=6 * round_seconds)
    assert len(seen) == count
    # The first round is the way in.
    all_gaps = [each for times in seen.values() for each in gaps(times[1:])]
    assert min(all_gaps) >= 30.0
    assert max(all_gaps) <= 1.3 * mean(all_gaps)
    assert mean(all_gaps) <= 1.1 * round_seconds


def test_all_wait_longer_by_the_same_factor_where_visits_are_scarce() -> None:
    seen = visits(some(60, 10.0) | some(60, 100.0), gap=1.0, seconds=20_000)
    stretch = {name: mean(gaps(times)) / float(name.partition("-")[0]) for name, times in seen.items()}
    assert min(stretch.values()) > 6
    assert max(stretch.values()) <= 1.1 * min(stretch.values())


def test_one_more_than_there_is_room_for_slows_all_down_a_little() -> None:
    fifteen = visits(some(15, 30.0), gap=2.2, seconds=3000)
    sixteen = visits(some(16, 30.0), gap=2.2, seconds=3000)
    means = [mean(mean(gaps(times)) for times in seen.values()) for seen in (fifteen, sixteen)]
    assert means[0] < means[1] <= means[0] * 16 / 15 * 1.01


def test_the_first_visits_of_many_come_spread_over_an_interval() -> None:
    seen = visits(some(3000, 60.0), gap=0.0, seconds=60.0)
    per_second = Counter(int(times[0]) for times in seen.values())
    assert len(seen) == 3000
    assert max(per_second.values()) < 100


def test_waits_that_began_together_drift_apart() -> None:
    queue: FairQueue[int] = FairQueue(chance=random.Random(1).random)
    together = [queue.join(number, interval=60.0, now=0.0) for number in range(1000)]
    while queue.take(60.0):
        pass
    for place in together:
        queue.rest(place, visited_at=60.0)
    assert sum(queue.take(now) is not None for now in [121.0] * 1000) < 300


def test_one_that_joins_late_gets_as_many_turns_as_the_others() -> None:
    queue: FairQueue[str] = FairQueue(chance=lambda: 0.0)
    for number in range(10):
        queue.join(f"old-{number}", interval=1.0, now=0.0)
    for now in range(1, 1000):
        place = queue.take(float(now))
        assert place is not None
        queue.rest(place, visited_at=float(now))
    queue.join("new", interval=1.0, now=1000.0)
    order: list[str] = []
    for now in range(1000, 1022):
        place = queue.take(float(now))
        assert place is not None
        order.append(place.item)
        queue.rest(place, visited_at=float(now))
    assert set(Counter(order).values()) == {2}


def test_one_that_leaves_is_never_visited_again_wherever_it_was() -> None:
    queue: FairQueue[str] = FairQueue(chance=lambda: 0.5)
    resting, queued, visited, stays = (queue.join(name, interval=10.0, now=0.0) for name in "rqvs")
    assert queue.take(5.0) is resting
    queue.rest(resting, visited_at=5.0)
    assert queue.take(5.0) is queued
    queue.rest(queued, visited_at=-10.0)
    assert queue.take(5.0) is visited
    for place in (resting, queued, visited, visited):
        queue.leave(place)
    queue.rest(visited, visited_at=5.0)
    assert len(queue) == 1
    assert queue.take(5.0) is stays
    assert queue.take(1000.0) is None
    assert queue.next_at() is None


def test_those_that_come_and_go_leave_nothing_behind() -> None:
    queue: FairQueue[int] = FairQueue()
    stays = queue.join(0, interval=86_400.0, now=0.0)
    for number in range(10_000):
        queue.leave(queue.join(number, interval=86_400.0, now=0.0))
    for number in range(10_000):
        place = queue.join(number, interval=0.0, now=-1.0)
        assert queue.take(0.0) is place
        queue.leave(place)
        queue.rest(place, visited_at=0.0)
    assert len(queue) == 1
    assert len(queue._resting) < 200
    assert queue.take(86_400.0) is stays


def test_late_tells_by_how_much() -> None:
    queue: FairQueue[str] = FairQueue(chance=lambda: 0.0)
    place = queue.join("a", interval=10.0, now=0.0)
    assert queue.take(4.0) is place
    assert place.late == 4.0
    queue.rest(place, visited_at=4.0)
    assert queue.take(13.9) is None
    assert queue.next_at() == 14.0
    assert queue.take(14.0) is place
    assert place.late == 0.0


def test_without_a_pause_there_still_is_one() -> None:
    seen = visits({"a": 0.0, "b": 0.0, "c": 1.0}, gap=0.01, seconds=20)
    assert min(gaps(seen["a"])) >= SHORTEST_REST
    assert max(gaps(seen["c"])) < 1.3


@given(
    st.lists(
        st.tuples(st.sampled_from(["join", "leave", "visit", "rest"]), st.integers(0, 9), st.floats(0, 50)),
        max_size=200,
    )
)
def test_whatever_happens_nobody_is_lost_or_taken_twice(steps: list[tuple[str, int, float]]) -> None:
    queue: FairQueue[int] = FairQueue(chance=random.Random(1).random)
    inside: dict[int, Place[int]] = {}
    out: dict[int, float] = {}
    last: dict[int, float] = {}
    now = 0.0
    for what, who, amount in steps:
        now += amount
        if what == "join" and who not in inside:
            inside[who] = queue.join(who, interval=amount, now=now)
            last.pop(who, None)
        elif what == "leave" and who in inside:
            queue.leave(inside.pop(who))
            out.pop(who, None)
        elif what == "visit" and (place := queue.take(now)) is not None:
            assert place is inside[place.item]
            assert place.item not in out
            assert now - last.get(place.item, -1e9) >= place.interval
            out[place.item] = last[place.item] = now
        elif what == "rest" and who in out:
            queue.rest(inside[who], visited_at=out.pop(who))
        assert len(queue) == len(inside)
    for who in out:
        queue.rest(inside[who], visited_at=out[who])
    rest = [queue.take(now + 1000) for _ in inside]
    assert sorted(place.item for place in rest if place) == sorted(inside)
