"""Two lives write the same parts, each step of one between any two of the other: no event is lost or there twice."""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_left
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from airflow_provider_quoine.captures import store as capture_store
from airflow_provider_quoine.captures.parts import SECOND, Part, PartKey
from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.captures.store import PartStore
from airflow_provider_quoine.formats.lines import line_of, row_of
from airflow_provider_quoine.formats.pieces import TOLERANCE, Row, Span, Stretch
from tests.captures.simulated import FOLDER, Disk, Store
from tests.simulation.world import World
from tests.support.histories import HISTORIES

SPEC = CaptureSpec.of(
    stream="event",
    folder=FOLDER,
    file_format="jsonl",
    began_at="2026-01-02T12:00:00+00:00",
    duration=8,
    part_seconds=4,
    channels=["a"],
)
BEGAN_AT, ENDS_AT = SPEC.periods.began_at, SPEC.periods.ends_at
#: Seconds; before each second, where a part may end, is one that is after it for who hears it late.
PUBLISHED = [second + shift for second in range(8) for shift in (0.5, 0.95)]


class Writers:
    """
    Two lives that heard every event, one a moment before the other, and write what they have in any order.

    :ivar numbers: of the events that are in the files then.
    """

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.chance = self.world.random
        self.disk = Disk(self.world.pause)
        longest = self.chance.choice([0.01, 0.2])
        self.disk.seconds = lambda: self.chance.uniform(0, longest)
        with patch.object(capture_store, "time", SimpleNamespace(sleep=self.world.pause)):
            self.world.run(self._play())
        names = sorted(name for name in self.disk.files if name[0] not in "._")
        rows = [json.loads(line) for name in names for line in self.disk.files[name].splitlines()]
        entries = [json.loads(self.disk.files[f"_{name}.json"]) for name in names]
        self.numbers = sorted(int(row["data"]) for row in rows)
        self.gaps = [gap for entry in entries for gap in entry["gaps"]]

    async def _play(self) -> None:
        await asyncio.gather(*(self._write(f"life{number}") for number in range(2)))

    async def _write(self, life: str) -> None:
        store = Store(SPEC, self.disk, life)
        cuts = [PartKey(period, cut) for period in range(2) for cut in range(1, 4) if self.chance.random() < 0.3]
        keys = sorted([PartKey(0), PartKey(1), *cuts])
        begins = [SPEC.periods.span(key.period).since + key.cut * SECOND for key in keys]
        heard, parts = self._heard(life), []
        for key, since, until in zip(keys, begins, [*begins[1:], ENDS_AT], strict=True):
            rows = [row for row in heard if bisect_left(begins, row.at) - 1 == keys.index(key)]
            parts.append((key, Part(life=life, rows=rows, stretches=[Stretch(since, until, life=life)]), until))
        # A part may be written again, when its time is known to be gone or a row comes late.
        work = [*parts, *self.chance.sample(parts, 1)]
        self.chance.shuffle(work)
        for key, part, until in work:
            written = False
            while not written:
                try:
                    await asyncio.get_running_loop().run_in_executor(None, self._one(store, key, part, until))
                    written = True
                except OSError:
                    await asyncio.sleep(1)

    def _heard(self, life: str) -> list[Row]:
        chance = self.world.random
        found = []
        for number, second in enumerate(PUBLISHED):
            at = min(BEGAN_AT + timedelta(seconds=second + chance.uniform(0.001, 0.2)), ENDS_AT)
            told = {"received_at": at.isoformat(), "connection": f"{life}-1", "channel": "a", "event": "e"}
            found.append(row_of(line_of({"type": "event", "seq": number, **told, "data": str(number)})))
        return found

    @staticmethod
    def _one(store: Store, key: PartKey, part: Part, until: datetime) -> Callable[[], object]:
        return lambda: store.write(key, part, until=until)


def wrong_in(seeds: Iterable[int]) -> dict[int, tuple[list[int], list[Any]]]:
    """The histories in which an event is not there once, or a gap is stated, by their seeds."""
    played = {seed: Writers(seed) for seed in seeds}
    numbers = list(range(len(PUBLISHED)))
    return {seed: (one.numbers, one.gaps) for seed, one in played.items() if one.numbers != numbers or one.gaps}


@pytest.mark.long
@pytest.mark.parametrize("first", range(0, HISTORIES, 100))
def test_each_event_is_there_once_however_the_steps_of_two_writers_follow_each_other(first: int) -> None:
    assert wrong_in(range(first, min(first + 100, HISTORIES))) == {}


def _look_at_both_sides(self: PartStore, span: Span, keys: Iterable[PartKey], *, alone: bool) -> list[Row]:
    """Leave an event out that stands in the part after, too: each of two writers may leave it to the other's part."""
    after = [key for key, one in self._periods.spans(self._keys()).items() if one.since == span.until]
    near = Span(span.until, span.until + TOLERANCE)
    return [
        *edges(self, span, keys, alone=alone),
        *(row for key in after for row in self._read(key)[0].rows if near.holds(row.at)),
    ]


edges = PartStore._edges

DEFECTS: dict[str, dict[str, Any]] = {
    "an event is left to the other's part": {
        "_edges": _look_at_both_sides,
        "_repeats": lambda self, key, before, span: False,
        "_marks_of": lambda self, keys: [],
    },
    "an event on both sides of a border is not looked for": {"_repeats": lambda self, key, before, span: False},
    "a part that another one divides is not looked at": {"_divided": lambda self, key, new, done: False},
    "what was read may be another one's by now": {"_mark": lambda self, path: "the same"},
}


@pytest.mark.long
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, function in DEFECTS[defect].items():
        monkeypatch.setattr(PartStore, name, function)
    assert any(wrong_in([seed]) for seed in range(150))
