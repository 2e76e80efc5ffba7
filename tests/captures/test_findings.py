"""Captures in histories of one seed each: what the first version was found to do wrong."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Any, cast

import pytest

from airflow_provider_quoine.captures import writer as capture_writer
from airflow_provider_quoine.captures.run import HELD_UP, CaptureRun
from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.captures.writer import CaptureWriter
from airflow_provider_quoine.exchange.stream.events import StreamGap
from airflow_provider_quoine.formats.pieces import Gap, Row
from tests.captures.simulated import FOLDER, Disk, Market, Sampler, Store, Stream
from tests.simulation.world import BEGIN, World


class Scene:
    """One life of one capture, in a world where nothing goes wrong but what a test does."""

    def __init__(self, stream: str = "event", **given: Any) -> None:
        self.world = World(1)
        self.disk, self.market = Disk(self.world.pause), Market(self.world)
        told = {"duration": 20, "part_seconds": 4, "channels": ["a"], "pair": "btcjpy", **given}
        began_at = datetime.fromtimestamp(BEGIN, UTC).isoformat()
        self.spec = CaptureSpec.of(stream=stream, folder=FOLDER, file_format="jsonl", began_at=began_at, **told)
        self.most_bytes = 0

    def at(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something on the event loop after some seconds."""
        self.world.later(seconds, lambda: self.world.loop.call_soon_threadsafe(act))

    def play(self, *, rate: float = 10) -> None:
        """Capture, while the market sends so many events a second."""
        seconds = (self.spec.periods.ends_at - self.spec.periods.began_at).total_seconds()
        for number in range(int((seconds + 5) * rate)):
            self.world.later(number / rate, self.market.publish)
        self.world.run(self._live())

    def stop(self) -> None:
        """End the life as a triggerer does that stops."""
        self.task.cancel()

    async def _live(self) -> None:
        self.stream = Stream(self.market)
        writer = CaptureWriter(store=Store(self.spec, self.disk, "life"), periods=self.spec.periods)
        await writer.open(patience=capture_writer.OPEN_PATIENCE)
        self.stream.connect()
        self.run = run = CaptureRun(
            spec=self.spec, stream=cast(Any, self.stream), writer=writer, clock=self.world.clock
        )
        add = writer.add_row

        def add_and_measure(row: Any) -> None:
            add(row)
            self.most_bytes = max(self.most_bytes, writer._bytes)

        writer.add_row = add_and_measure  # type: ignore[method-assign]  # to look on
        schedule, sampler = self.spec.schedule, cast(Any, Sampler(self.stream))
        listen = run.take_events if schedule is None else partial(run.take_snapshots, sampler, schedule)
        self.task = asyncio.ensure_future(run.run(listen))
        await asyncio.wait({self.task})
        writer.stop()
        self.market.streams.clear()

    @property
    def rows(self) -> list[dict[str, Any]]:
        names = sorted(name for name in self.disk.files if name[0] != "_")
        return [json.loads(line) for name in names for line in self.disk.files[name].splitlines()]

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(self.disk.files[name]) for name in sorted(self.disk.files) if name[0] == "_"]

    def gaps(self, reason: str) -> list[tuple[float, float]]:
        """The gaps of a reason, in seconds from the beginning."""
        found = [gap for entry in self.entries for gap in entry["gaps"] if reason in gap["reason"]]
        return [(_second(gap["from"]), _second(gap["until"])) for gap in found]

    def listened(self) -> list[tuple[float, float]]:
        return [(_second(one["from"]), _second(one["until"])) for entry in self.entries for one in entry["listened"]]


def _second(text: str) -> float:
    return round(datetime.fromisoformat(text).timestamp() - BEGIN, 3)


def test_a_large_part_is_written_early_and_no_row_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # A 200th of the real bounds, and of 2,500 events/s of 1.15 kB, for the default window.
    monkeypatch.setattr(capture_writer, "PART_BYTES", capture_writer.PART_BYTES // 200)
    monkeypatch.setattr(capture_writer, "MAX_PENDING_BYTES", capture_writer.MAX_PENDING_BYTES // 200)
    scene = Scene(duration=120, part_seconds=60)
    scene.play(rate=60)
    assert scene.gaps("no room") == []
    numbers = [int(row["data"]) for row in scene.rows]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(numbers) > 119 * 60
    assert len(scene.entries) > 10
    assert 0 < scene.most_bytes < capture_writer.MAX_PENDING_BYTES // 2


def test_a_part_is_not_written_before_what_came_in_it_is_taken() -> None:
    """A process that is killed then loses what waits, and the files must not say that it was listened to."""
    scene = Scene()
    listened: list[tuple[float, float]] = []

    def stall(stalled: bool) -> None:
        scene.stream.stalled = stalled

    scene.at(3.5, lambda: stall(True))
    scene.at(6, lambda: listened.extend(scene.listened()))
    scene.at(7, lambda: stall(False))
    scene.play()
    numbers = [int(row["data"]) for row in scene.rows]
    assert listened == []
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert scene.listened()[0][1] == 4


@pytest.mark.parametrize(("jump", "words"), [(-3, "set back by 3.0 s"), (10, "set forward by 10.0 s")])
def test_a_clock_that_is_set_costs_no_row_and_no_order_and_is_stated(jump: float, words: str) -> None:
    scene = Scene()
    scene.at(7.3, lambda: scene.world.set_clock(jump))
    scene.play()
    numbers = [int(row["data"]) for row in scene.rows]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    # Until the wall clock is at the end.
    assert len(numbers) == pytest.approx((20 - jump) * 10, abs=8)
    assert [row["seq"] for row in scene.rows] == list(range(scene.rows[0]["seq"], scene.rows[0]["seq"] + len(numbers)))
    moments = [row["received_at"] for row in scene.rows]
    assert moments == sorted(set(moments))
    stated = scene.gaps(words)
    assert stated[0][0] == pytest.approx(7.3 + min(jump, 0), abs=0.6)
    assert stated[-1][1] == pytest.approx(7.3 + max(jump, 0), abs=0.6)


def test_a_clock_that_is_set_back_right_before_a_part_is_closed_does_not_make_the_loop_spin() -> None:
    """The life's time stands still then, a tenth of a millisecond before that moment."""
    scene = Scene(duration=8)
    scene.world._most_rounds = 2_000

    def look_and_set_back() -> None:
        scene.world.set_clock(4.2499 - scene.world.now)
        scene.run._look()
        scene.world.set_clock(-2)
        scene.run._look()

    scene.at(3.9, look_and_set_back)
    scene.play()
    assert scene.listened()[-1][1] == 8


def test_what_comes_before_a_capture_begins_is_not_taken() -> None:
    scene = Scene()
    scene.world.set_clock(-5)
    scene.play()
    assert int(scene.rows[0]["data"]) == pytest.approx(50, abs=3)
    assert scene.listened()[0][0] == 0
    assert [gap for entry in scene.entries for gap in entry["gaps"]] == []


def test_both_clocks_are_known_of_every_stretch() -> None:
    scene = Scene()
    scene.at(7.3, lambda: scene.world.set_clock(-3))
    scene.play()
    for entry in scene.entries:
        for one in entry["listened"]:
            ahead = _second(one["from"]) - one["monotonic"]
            assert ahead == pytest.approx(0 if one["monotonic"] < 7.3 else -3, abs=0.01)


@pytest.mark.parametrize("stream", ["event", "product"])
def test_time_that_the_event_loop_was_held_up_is_not_listened(stream: str) -> None:
    scene = Scene(stream, **({"interval": 0.5} if stream == "product" else {}))
    scene.at(7, lambda: scene.world.hold(5))
    scene.play()
    (first, *_, last) = scene.gaps(HELD_UP)
    assert 6.4 <= first[0] <= 7
    assert last[1] == pytest.approx(13, abs=0.1)
    assert not any(since < 11.9 and until > 7.1 for since, until in scene.listened())


def test_the_first_and_the_last_snapshot_that_are_missed_are_stated_by_themselves_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stated, add_gap = set[tuple[float, float]](), CaptureWriter.add_gap

    def add_and_note(self: CaptureWriter, gap: Gap) -> None:
        stated.add((_second(gap.since.isoformat()), _second(gap.until.isoformat())))
        add_gap(self, gap)

    monkeypatch.setattr(CaptureWriter, "add_gap", add_and_note)
    scene = Scene("product", interval=0.1)
    scene.at(7.04, lambda: scene.world.hold(0.4))
    scene.play()
    assert stated >= {(7.2, 7.4), (7.2, 7.2), (7.4, 7.4)}
    assert scene.gaps(HELD_UP) == [(7.2, 7.4)]


@pytest.mark.parametrize("seconds", [1.1, 1.4, 5])
def test_events_that_a_frozen_process_finds_afterwards_are_not_taken(seconds: float) -> None:
    scene = Scene()

    def freeze() -> None:
        scene.stream.asleep = True
        scene.world.hold(seconds)
        scene.stream.awake()

    scene.at(7, freeze)
    scene.play()
    moments = [_second(row["received_at"]) for row in scene.rows]
    assert not any(7 < moment < 8 + seconds for moment in moments)
    numbers = [int(row["data"]) for row in scene.rows]
    assert len(numbers) == len(set(numbers)) == pytest.approx(190 - 10 * seconds, abs=8)


def test_snapshots_in_a_gap_that_becomes_known_later_are_stale_where_they_are_not_written() -> None:
    scene = Scene("product", interval=0.5)
    scene.at(6.9, lambda: scene.stream.lose(2.4, 3.6))
    scene.play()
    stale = [_second(row["due_at"]) for row in scene.rows if row["stale"]]
    # The connection was missed at 9.3 s; the part of the first of them could not be closed before.
    assert stale[0] == 7.0
    assert stale[-1] >= 10.0
    ((since, _), *_) = scene.gaps("lost")
    assert since <= 7.0
    assert all(later - sooner == 0.5 for sooner, later in pairwise(stale))


def test_a_connection_that_is_dead_at_the_end_is_a_gap_though_nobody_noticed_yet() -> None:
    scene = Scene()
    scene.at(18, lambda: scene.stream.lose(4.1, 5))
    scene.play()
    ((since, until),) = scene.gaps("lost")
    assert since == pytest.approx(18, abs=0.2)
    assert until == 20
    assert scene.world.now > 22


def test_a_folder_that_hangs_does_not_keep_the_capture_from_listening() -> None:
    scene = Scene()
    opened: list[float] = []
    scene.disk.seconds = lambda: 0.0 if opened else 6.0
    scene.at(6, lambda: opened.append(6))
    scene.play()
    assert _second(scene.rows[0]["received_at"]) < 1


def test_a_life_that_is_stopped_writes_its_rows_before_the_silence_of_others() -> None:
    scene = Scene(duration=300)
    # Fifty parts were over before it began.
    scene.world.set_clock(200)
    scene.disk.seconds = lambda: 0.04
    scene.at(3, scene.stop)
    scene.play()
    assert len(scene.rows) == pytest.approx(28, abs=3)


def test_a_life_that_is_stopped_states_that_nobody_knows_of_the_last_silence() -> None:
    scene = Scene()
    scene.at(9, lambda: scene.stream.lose(4, 5))
    scene.at(11.5, scene.stop)
    scene.play()
    (since, _), *_ = scene.gaps("stopped before it was known")
    assert since == pytest.approx(9, abs=0.2)
    assert scene.listened()[-1][1] == since


async def test_a_row_at_the_end_of_a_period_is_of_it_and_one_outside_of_all_is_of_the_nearest() -> None:
    spec = CaptureSpec.of(
        stream="event",
        folder=FOLDER,
        file_format="jsonl",
        began_at=datetime.fromtimestamp(BEGIN, UTC).isoformat(),
        duration=25,
        part_seconds=10,
        channels=["a"],
    )
    writer = CaptureWriter(store=Store(spec, Disk(time.sleep), "life"), periods=spec.periods)
    periods = {0: 0, 0.1: 0, 10: 0, 10.000001: 1, 20: 1, 25: 2, 99: 2, -5: 0}
    for second in periods:
        writer.add_row(Row(datetime.fromtimestamp(BEGIN + second, UTC), str(second).encode()))
    found = {
        float(row.line): spec.periods.number(begin) for begin, part in writer._pending.items() for row in part.rows
    }
    assert found == periods
    await writer.open(patience=None)
    writer.stop()


def test_a_gap_of_a_life_that_began_before_its_capture_begins_at_the_last_byte() -> None:
    """As a second listener does that is started for tomorrow: its time stands still until the capture begins."""
    scene = Scene()
    scene.world.set_clock(-5)
    scene.at(11, lambda: scene.stream.lose(1, 3))
    scene.play()
    ((since, _), *_), (*_, (_, until)) = scene.gaps("lost"), scene.gaps("lost")
    assert 5.8 < since <= 6
    assert 9 <= until < 9.1
    numbers = [int(row["data"]) for row in scene.rows]
    missing = {number / 10 - 5 for number in set(range(numbers[0], numbers[-1])) - set(numbers)}
    assert missing and all(since <= second <= until for second in missing)  # noqa: PT018 - one without the other is nothing


def test_what_is_dropped_from_the_middle_of_a_chunk_lies_in_a_gap_by_the_moments_of_the_rows() -> None:
    scene = Scene()

    def chunk() -> None:
        """A hundred events of one moment, of which the queue drops those in the middle while the first are taken."""
        stream, world = scene.stream, scene.world
        for number in [*range(10_000, 10_040), *range(10_080, 10_100)]:
            stream._deliver(number)
        stream.gaps.append(StreamGap(world.clock.now(), "the queue was full", world.now, world.now))
        stream.dropped += 40

    scene.world.later(6.0, chunk)
    scene.play()
    (hole,) = [
        (datetime.fromisoformat(one["received_at"]), datetime.fromisoformat(two["received_at"]))
        for one, two in pairwise(scene.rows)
        if (one["data"], two["data"]) == ("10039", "10080")
    ]
    gaps = [
        (datetime.fromisoformat(gap["from"]), datetime.fromisoformat(gap["until"]))
        for entry in scene.entries
        for gap in entry["gaps"]
    ]
    assert any(since <= hole[1] and until >= hole[0] for since, until in gaps), (hole, gaps)
