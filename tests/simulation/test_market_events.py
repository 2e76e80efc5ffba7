"""Watchers through losses, kills and each other: no event is untrue, doubled or lost without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_quoine.exchange.market import edge_detector, watch
from airflow_provider_quoine.exchange.market.watcher_memory import WatcherMemory
from tests.simulation.market import History, play
from tests.simulation.world import World
from tests.support.histories import HISTORIES

#: Of histories of some seconds, and of those that take longest.
SEEDS, LONG_SEEDS = range(1, 2 + HISTORIES // 200), range(100, 101 + HISTORIES // 1000)


def history(seed: int, **given: Any) -> History:
    # A thousand edges are many rounds.
    return World(seed, most_rounds=20_000_000).run(play(seed, **{"edges": 150, "kills": 30, **given}))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in SEEDS)])
@pytest.mark.parametrize("triggerers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_each_edge_is_told_once_or_is_in_a_time_that_is_said_to_be_unknown(seed: int, triggerers: int) -> None:
    played = history(seed, triggerers=triggerers, direction=("up", "down")[seed % 2])
    assert (played.untrue(), played.doubled(), played.lost()) == ([], [], [])
    assert len(played.edges) >= 150
    assert len(played.taken) > 70
    # Two may have had no gap in common.
    assert triggerers == 2 or any(event["seen_after_gap"] for event in played.taken)


@pytest.mark.long
@pytest.mark.parametrize("seed", LONG_SEEDS)
def test_1000_edges_and_200_kills_with_two_triggerers(seed: int) -> None:
    played = history(seed, edges=1000, kills=200)
    assert (played.untrue(), played.doubled(), played.lost()) == ([], [], [])
    assert len(played.edges) >= 1000
    assert played.kills >= 200
    assert len(played.taken) > 800
    assert any(event["seen_after_gap"] for event in played.taken)
    # Most writes are those of events: two for each time that some are told.
    assert played.writes / played.seconds * 60 < 40


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_without_a_store_nothing_untrue_is_told_either(seed: int) -> None:
    played = history(seed, with_store=False)
    assert (played.untrue(), played.writes) == ([], 0)
    assert len(played.taken) > 70


def _forget_what_was_told(patch: pytest.MonkeyPatch) -> None:
    of = WatcherMemory.of

    def forgetful(stored: Any) -> WatcherMemory:
        return of({**stored, "told": []})

    patch.setattr(WatcherMemory, "of", forgetful)


def _do_not_wait(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(watch, "LATE_AFTER", 0.0)


def _do_not_merge(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(watch.Watch, "merge", lambda self, other: None)


def _do_not_take_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(edge_detector.EdgeDetector, "take_back", lambda self, event, is_known: None)


@pytest.mark.long
@pytest.mark.parametrize(
    ("defect", "wrong"),
    [
        (_forget_what_was_told, History.lost),
        (_do_not_wait, History.doubled),
        (_do_not_merge, History.doubled),
        (_do_not_take_back, History.lost),
    ],
)
def test_a_planted_defect_is_found(
    monkeypatch: pytest.MonkeyPatch, defect: Callable[[pytest.MonkeyPatch], None], wrong: Callable[[History], list[Any]]
) -> None:
    defect(monkeypatch)
    assert any(wrong(history(seed)) for seed in range(4))
