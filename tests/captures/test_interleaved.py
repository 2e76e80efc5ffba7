"""Two lives write at the same time, each step of one between any two of the other: no event is lost or there twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from airflow_provider_quoine.captures import store as capture_store
from airflow_provider_quoine.captures.parts import SECOND, Part
from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.captures.store import PartStore
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.formats import entries
from airflow_provider_quoine.formats.entries import entry_name, stretches_from
from airflow_provider_quoine.formats.lines import line_of, row_of
from airflow_provider_quoine.formats.pieces import Gap, Row, Span, Stretch, within
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
MISSED = 3
"""Events, one after the other, that one life in some histories does not hear."""


class Writers:
    """
    Two lives that heard every event, one a moment before the other, and write what they have in any order.

    One of them may be killed between any two steps at the disk, the list of the files may be old, and writes may fail
    or keep half. In the end each life that lives seals the capture.

    :ivar numbers: of the events that are in the files then.
    :ivar gaps: that are stated.
    :ivar deaf: when one of them did not listen, which it gets to know late.
    :ivar deaf_listened: what is said to have been listened to by it then.
    """

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.chance = self.world.random
        self.disk = Disk(self.world.pause)
        longest = self.chance.choice([0.01, 0.2])
        self.disk.seconds = lambda: self.chance.uniform(0, longest)
        self.killed_after = self.chance.choice([None, self.chance.randrange(60)])
        self.deaf = Span(BEGAN_AT, BEGAN_AT)
        if self.killed_after is None and self.chance.random() < 0.7:
            first = BEGAN_AT + timedelta(seconds=PUBLISHED[self.chance.randrange(len(PUBLISHED) - MISSED)])
            self.deaf = Span(first, first + timedelta(seconds=MISSED / 2))
        for _ in range(self.chance.choice([0, 0, 3])):
            self.world.later(
                self.chance.uniform(0, 60 * longest), self.chance.choice([self._forget, self._lie, self._break])
            )
        self.world.run(self._play())
        self._mend()
        manifest = Store(SPEC, self.disk, "oracle").write_manifest()
        names = sorted(name for name in self.disk.files if name[0] not in "._")
        assert names == [part["name"] for part in manifest["parts"]]
        rows = [json.loads(line) for name in names for line in self.disk.files[name].splitlines()]
        moments = [row["received_at"] for row in rows]
        assert moments == sorted(moments)
        self.numbers = sorted(int(row["data"]) for row in rows)
        self.gaps = [gap for part in manifest["parts"] for gap in part["gaps"]]
        listened = [one for part in manifest["parts"] for one in stretches_from(part) if one.life == "life1"]
        self.deaf_listened = within(listened, self.deaf)

    def _forget(self) -> None:
        self.disk.listing = [*self.disk.files]
        self.world.later(self.chance.uniform(0.1, 2), self._mend)

    def _lie(self) -> None:
        self.disk.kept = self.chance.choice([0.0, 0.5])
        self.world.later(self.chance.uniform(0.1, 1), self._mend)

    def _break(self) -> None:
        self.disk.broken = True
        self.world.later(self.chance.uniform(0.1, 1), self._mend)

    def _mend(self) -> None:
        self.disk.broken, self.disk.kept, self.disk.listing = False, 1.0, None

    async def _play(self) -> None:
        await asyncio.gather(*(self._write(f"life{number}") for number in range(2)))

    async def _write(self, life: str) -> None:
        store = Store(SPEC, self.disk, life)
        deaf = self.deaf if life == "life1" else Span(BEGAN_AT, BEGAN_AT)
        if life == "life0":
            store.changes_left = self.killed_after
        cuts = [BEGAN_AT + second * SECOND for second in (1, 2, 3, 5, 6, 7) if self.chance.random() < 0.3]
        begins = sorted([*(SPEC.periods.span(number).since for number in range(2)), *cuts])
        heard, work = self._heard(life, deaf), list[tuple[Part, Span]]()
        for span in map(Span, begins, [*begins[1:], ENDS_AT]):
            rows = [row for row in heard if span.holds(row.at)]
            work.append((Part(rows=rows, stretches=[Stretch(*span, life=life)]), span))
            if gaps := within([Gap(*deaf, "lost", life)], span):
                work.append((Part(gaps=gaps), span))
        # A part may be written again: its writer does not know whether the first time has failed.
        work += self.chance.sample(work, 1)
        self.chance.shuffle(work)
        for part, span in work:
            await self._until_done(store, partial(store.write, part, span))
            if self.chance.random() < 0.8:
                await self._until_done(store, partial(store.tidy, span))
        await self._until_done(store, store.write_manifest)

    async def _until_done(self, store: Store, work: Callable[[], object]) -> None:
        while store.changes_left is None or store.changes_left >= 0:
            try:
                await asyncio.get_running_loop().run_in_executor(None, work)
                return
            except OSError:
                await asyncio.sleep(0.1)

    def _heard(self, life: str, deaf: Span) -> list[Row]:
        chance = self.world.random
        found = []
        for number, second in enumerate(PUBLISHED):
            at = min(BEGAN_AT + timedelta(seconds=second + chance.uniform(0.001, 0.2)), ENDS_AT)
            told = {"received_at": at.isoformat(), "connection": f"{life}-1", "channel": "a", "event": "e"}
            if not deaf.holds(at):
                found.append(row_of(line_of({"type": "event", "seq": number, **told, "data": str(number)})))
        return found


def wrong_in(seeds: Iterable[int]) -> dict[int, tuple[list[int], list[Any], list[Any]]]:
    """The histories in which an event is not there once, or a time is not as it was listened to, by their seeds."""
    played = {seed: Writers(seed) for seed in seeds}
    right = list(range(len(PUBLISHED))), list[Any](), list[Any]()
    found = {seed: (one.numbers, one.gaps, one.deaf_listened) for seed, one in played.items()}
    return {seed: what for seed, what in found.items() if what != right}


@pytest.mark.long
@pytest.mark.parametrize("first", range(0, HISTORIES, 100))
def test_each_event_is_there_once_however_the_steps_of_two_writers_follow_each_other(first: int) -> None:
    assert wrong_in(range(first, min(first + 100, HISTORIES))) == {}


def _remove_first(self: PartStore, *given: Any, replaces: Sequence[str] = (), **named: Any) -> None:
    """Remove what is to be replaced before the other file is there."""
    for name in replaces:
        for each in (name, entry_name(name)):
            (self._root / each).unlink(missing_ok=True)
    write(self, *given, replaces=replaces, **named)


def _replace_all(
    self: PartStore, part: Part, span: Span, begin: Any, *, replaces: Sequence[str] = (), **named: Any
) -> None:
    """Take the place of files that have come since it was looked what there is."""
    there = {name for name in self._list() if self._form.fullmatch(name)} if replaces else set()
    write(self, part, span, begin, replaces=sorted({*replaces, *there}), **named)


def _take_whole_place(pieces: Iterable[Any], spans: Collection[Any]) -> list[Any]:
    """Let a file that takes the place of another one in some time take it in all its time."""
    return [] if spans else [*pieces]


write = PartStore._write

DEFECTS: dict[str, tuple[Any, str, Any]] = {
    "what is replaced is removed too early": (PartStore, "_write", _remove_first),
    "what is replaced was not read": (PartStore, "_write", _replace_all),
    "more is replaced than was merged": (capture_store, "outside", _take_whole_place),
    "an event on both sides of a border is not looked for": (PartStore, "_before", lambda self, span: []),
    "a gap that is known late is forgotten": (entries, "missed_from", lambda entry: []),
}


@pytest.mark.long
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*DEFECTS[defect])
    assert any(is_wrong(seed) for seed in range(150))


def is_wrong(seed: int) -> bool:
    """Whether a history goes wrong, or does not come to its end."""
    try:
        return bool(wrong_in([seed]))
    except (AssertionError, QuoineInputError, RuntimeError):
        return True
