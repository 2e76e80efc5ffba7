"""Captures in seeded histories, against an oracle that knows every event."""

from __future__ import annotations

import logging
from math import inf
from typing import Any

import pytest

from airflow_provider_quoine.captures import run as capture_run
from airflow_provider_quoine.captures import store as capture_store
from airflow_provider_quoine.captures.parts import GONE, NOT_RUNNING, silence
from airflow_provider_quoine.captures.run import CaptureRun
from airflow_provider_quoine.captures.store import PartStore
from airflow_provider_quoine.captures.writer import CaptureWriter
from airflow_provider_quoine.formats.pieces import Gap, Span
from tests.captures.simulated import Stream, play
from tests.support.histories import HISTORIES


@pytest.fixture(autouse=True)
def _silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "airflow_provider_quoine")


def check(seeds: range, *, bad_store: bool = False) -> None:
    """Play the histories of some seeds; the failure names those that went wrong, to be played again alone."""
    wrong = {seed: problems[:3] for seed in seeds if (problems := play(seed, bad_store=bad_store)[0])}
    assert wrong == {}


@pytest.mark.parametrize("first", range(0, 60, 20))
@pytest.mark.long
def test_every_event_is_in_a_file_or_in_a_stated_gap_in_some_histories(first: int) -> None:
    check(range(first, first + 20))


@pytest.mark.long
@pytest.mark.parametrize("first", range(0, HISTORIES, 50))
def test_every_event_is_in_a_file_or_in_a_stated_gap_in_many_histories(first: int) -> None:
    check(range(1_000 + first, 1_000 + min(first + 50, HISTORIES)))


@pytest.mark.long
@pytest.mark.parametrize("first", range(0, HISTORIES // 4, 50))
def test_what_a_bad_store_has_lost_is_in_a_stated_gap_or_an_error(first: int) -> None:
    check(range(1_000 + first, 1_000 + min(first + 50, HISTORIES // 4)), bad_store=True)


def test_the_same_seed_is_the_same_history() -> None:
    first, second = (play(7)[1].disk.files for _ in range(2))
    assert first
    assert first == second


def _notice_late(stream: Stream) -> None:
    """Begin the gap of a lost connection when it is noticed (S2)."""
    stream._last_heard = stream.world.now
    notice(stream)


notice = Stream._notice


def _say_nothing(span: Span, parts: Any, reason: str = NOT_RUNNING) -> list[Gap]:
    """State of no part that it is gone."""
    return [] if reason == GONE else silence(span, parts)


def _withdraw_at_the_end(self: PartStore, name: str) -> None:
    """Let others write what they have made of an older part."""
    if name.endswith("_"):
        withdraw(self, name)


withdraw = PartStore._withdraw


DEFECTS: dict[str, tuple[Any, str, Any]] = {
    "a gap begins when the loss is noticed": (Stream, "_notice", _notice_late),
    "what is written is not proven": (CaptureRun, "_proven_until", lambda self: self._now),
    "time held up is listened": (capture_run, "HELD_UP_AFTER", inf),
    "the wall clock is not watched": (capture_run, "LEAST_JUMP", inf),
    "refused rows are not stated": (CaptureWriter, "_state_loss", lambda self: None),
    "the parts beside are not looked at": (PartStore, "_edges", lambda self, span, keys, alone: []),
    "what is gone is not stated": (capture_store, "silence", _say_nothing),
    "two write at once": (PartStore, "_mark", lambda self, key: "the same"),
    "what the others have ready is not withdrawn": (PartStore, "_withdraw", _withdraw_at_the_end),
}


#: Seeds that show what few do, to be played first. Once the code is another, another seed shows it.
SHOWN_BY = {
    "what is written is not proven": 73,
    "what is gone is not stated": 152,
    "what the others have ready is not withdrawn": 83,
}


@pytest.mark.long
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*DEFECTS[defect])
    bad_store = "gone" in defect
    assert any(play(seed, bad_store=bad_store)[0] for seed in (SHOWN_BY.get(defect, 0), *range(300)))
