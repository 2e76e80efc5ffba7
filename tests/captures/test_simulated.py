"""Captures in seeded histories, against an oracle that knows every event."""

from __future__ import annotations

import logging
from math import inf
from typing import Any

import pytest

from airflow_provider_quoine.captures import run as capture_run
from airflow_provider_quoine.captures.parts import GONE, NOT_RUNNING, Part
from airflow_provider_quoine.captures.run import CaptureRun
from airflow_provider_quoine.captures.store import PartStore
from airflow_provider_quoine.captures.writer import CaptureWriter
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.formats import entries
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


def _say_nothing(self: Part, span: Span) -> list[Gap]:
    """State of no time that nobody listened, or that what was there is gone."""
    return [gap for gap in missing(self, span) if gap.reason not in (NOT_RUNNING, GONE)]


missing = Part.missing


def _believe(self: PartStore, name: str, content: bytes) -> Any:
    """Believe that a store has what it says."""
    temporary = self._root / f".{name}.{self.life}.tmp"
    temporary.write_bytes(content)
    return temporary


DEFECTS: dict[str, tuple[Any, str, Any]] = {
    "a gap begins when the loss is noticed": (Stream, "_notice", _notice_late),
    "what is written is not proven": (CaptureRun, "_proven_until", lambda self: self._now),
    "time held up is listened": (capture_run, "HELD_UP_AFTER", inf),
    "the wall clock is not watched": (capture_run, "LEAST_JUMP", inf),
    "refused rows are not stated": (CaptureWriter, "_state_loss", lambda self: None),
    "the parts beside are not looked at": (PartStore, "_before", lambda self, span: []),
    "time that is gone is not stated": (Part, "missing", _say_nothing),
    "a gap that is known late is forgotten": (entries, "missed_from", lambda entry: []),
    "what a bad store has not kept is not noticed": (PartStore, "_temporary", _believe),
}


@pytest.mark.long
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*DEFECTS[defect])
    bad_store = "gone" in defect or "bad store" in defect
    assert any(_is_wrong(seed, bad_store=bad_store) for seed in range(300))


def _is_wrong(seed: int, *, bad_store: bool) -> bool:
    try:
        return bool(play(seed, bad_store=bad_store)[0])
    except QuoineInputError:
        # What the writer itself has left is no part.
        return True
