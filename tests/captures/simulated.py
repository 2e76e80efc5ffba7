"""
Histories of captures in a simulated world: losses, kills, two copies, bad stores, clocks that are set, floods.

Everything but stream and disk is the package's own. Each step at the disk (list, read, write, rename, delete) takes a
time of its own, so the steps of two writers come in any order. :func:`play` plays the history of a seed and returns
what is wrong with the files, by an oracle that knows every event.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from airflow_provider_quoine.captures import writer as capture_writer
from airflow_provider_quoine.captures.parts import NOT_RUNNING
from airflow_provider_quoine.captures.run import CaptureRun
from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.captures.store import PartStore
from airflow_provider_quoine.captures.writer import CaptureWriter, QuoineStorageError
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.stream.events import Moment, StreamEvent, StreamGap
from airflow_provider_quoine.formats.entries import entry_name
from tests.simulation.world import BEGIN, World

FOLDER = "/capture"
SLACK = 0.1
"""Seconds by which the moment of an event here and at its receivers may differ."""
FRESH = 0.2
"""Seconds of age that a snapshot may have which is neither stale nor in a gap."""


class Disk:
    """
    The files that all lives share, as the store sees them: one folder.

    :param pause: lets some seconds pass for one writer, while the others go on.
    :ivar seconds: how long the next step of a writer takes.
    :ivar broken: whether it takes no writes now.
    :ivar kept: the share that it keeps of what is written; it says that it has all.
    :ivar listing: the names that it lists, if that is an old list.
    """

    def __init__(self, pause: Callable[[float], None]) -> None:
        self.pause = pause
        self.seconds: Callable[[], float] = lambda: 0.0
        self.files: dict[str, bytes] = {}
        self.broken = False
        self.kept = 1.0
        self.listing: list[str] | None = None


@dataclass
class Path:
    """
    A file or the folder of a disk, for one life.

    :param step: called before each step, with whether that changes something; raises if the life was killed.
    """

    disk: Disk
    step: Callable[[bool], None]
    name: str = ""

    def __truediv__(self, name: str) -> Path:
        return Path(self.disk, self.step, name)

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.name}"

    @property
    def parent(self) -> Path:
        return Path(self.disk, self.step)

    @property
    def fs(self) -> Path:
        return self

    def mkdir(self, **given: bool) -> None:
        self.step(True)

    def invalidate_cache(self, path: str) -> None:
        """Nothing is kept."""

    def ls(self, path: str, **given: bool) -> list[str]:
        self.step(False)
        return [f"{FOLDER}/{name}" for name in self.disk.listing or self.disk.files]

    def stat(self) -> Any:
        return SimpleNamespace(st_size=len(self.read_bytes()))

    def read_bytes(self) -> bytes:
        self.step(False)
        return self._content(self.name)

    def _content(self, name: str) -> bytes:
        if name not in self.disk.files:
            raise FileNotFoundError(name)
        return self.disk.files[name]

    def write_bytes(self, content: bytes) -> None:
        self.step(True)
        if self.disk.broken:
            raise OSError("No space left on device")
        if self.disk.kept or "_probe." in self.name:
            self.disk.files[self.name] = content[: int(len(content) * self.disk.kept)]

    def replace(self, target: Path) -> None:
        self.step(True)
        self.disk.files[target.name] = self._content(self.name)
        del self.disk.files[self.name]

    def unlink(self, missing_ok: bool = False) -> None:
        self.step(True)
        self.disk.files.pop(self.name, None)


class Store(PartStore):
    """
    A store of one life.

    :ivar changes_left: how many changes of the disk it makes until it is dead; None if it lives.
    :ivar stalled: seconds that its next step takes longer.
    """

    def __init__(self, spec: CaptureSpec, disk: Disk, life: str) -> None:
        super().__init__(spec)
        self.life = life
        self.changes_left: int | None = None
        self.stalled = 0.0
        self._disk = disk
        self.__dict__["_root"] = Path(disk, self._step)

    def _step(self, changes: bool) -> None:
        stalled, self.stalled = self.stalled, 0.0
        self._disk.pause(stalled + self._disk.seconds())
        if self.changes_left is not None and changes:
            self.changes_left -= 1
            if self.changes_left < 0:
                raise OSError("killed")


class Market:
    """Numbers its events, one channel for all."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.published: list[tuple[float, float]] = []
        """The wall clock and the monotonic clock at each event."""
        self.streams: list[Stream] = []

    def publish(self) -> None:
        """Send the next event to everybody."""
        self.published.append((self.world.clock.wall(), self.world.now))
        for stream in self.streams:
            stream.send(len(self.published))


class Stream:
    """What a run asks of a stream, for one life."""

    def __init__(self, market: Market) -> None:
        self.market, self.world = market, market.world
        self.confirmed = False
        self.reconnects = self.dropped = 0
        self.gaps: list[StreamGap] = []
        self.newest = self.newest_on = 0
        self._queue: deque[StreamEvent] = deque()
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._reached, self._last_heard, self._connection = True, self.world.now, 1
        self._arrives_at = 0.0
        self.asleep = self.stalled = self._iterated = False
        self._kernel: list[int] = []
        """What came while the process was frozen."""

    def connect(self) -> None:
        """Begin to connect."""
        self.market.streams.append(self)
        self._last_heard = self.world.now
        self.world.later(self.world.random.uniform(0.01, 0.4), self._confirm)
        self.world.later(1.0, self._ping)

    def close(self) -> None:
        """Let go of the connection, if there is one."""
        if self in self.market.streams:
            self.market.streams.remove(self)

    def send(self, number: int) -> None:
        """Bring an event, in order, a moment later."""
        self._arrives_at = max(self._arrives_at, self.world.now + self.world.random.uniform(0.001, 0.03))
        self.world.later(self._arrives_at - self.world.now, lambda: self._deliver(number))

    def _deliver(self, number: int) -> None:
        if self.asleep:
            self._kernel.append(number)
        elif self._reached and self._arrives_at:
            self.newest, self.newest_on, self._last_heard = number, self._connection, self.world.now
            came = self.world.clock.now(), self._connection, self.world.now
            self._queue.append(StreamEvent("a", "e", str(number), *came))
            self._wake()

    def awake(self) -> None:
        """Run again, and read what has come meanwhile."""
        self.asleep = False
        for number in self._kernel:
            self._deliver(number)
        self._kernel.clear()

    def lose(self, noticed: float, back: float) -> None:
        """Lose the connection; it is noticed, and back, so many seconds later."""
        if not self._reached or not self.confirmed:
            return
        self._reached = False
        self.world.later(noticed, self._notice)
        self.world.later(back, self._confirm)

    def _notice(self) -> None:
        self.confirmed = False
        silent = timedelta(seconds=self.world.now - self._last_heard)
        self.gaps.append(StreamGap(self.world.clock.now() - silent, "lost", self._last_heard))
        self._wake()

    def _confirm(self) -> None:
        if self.gaps and self.gaps[-1].until is None:
            self.gaps[-1].ended = self.world.now
            self.reconnects += 1
            self._connection += 1
        self.confirmed = self._reached = True
        self._last_heard = self.world.now
        self._wake()

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._woken.set)

    @property
    def current(self) -> bool:
        """Whether the newest event came by the present connection."""
        return self.confirmed and self.newest_on == self._connection

    @property
    def heard(self) -> Moment | None:
        """The last sign of life."""
        return Moment(0.0, self._last_heard) if self.confirmed else None

    @property
    def waiting_since(self) -> Moment | None:
        """When the oldest event came that waits."""
        return Moment(0.0, self._queue[0].monotonic) if self._iterated and self._queue else None

    def _ping(self) -> None:
        if self._reached and not self.asleep:
            self._last_heard = self.world.now
        if self in self.market.streams:
            self.world.later(1.0, self._ping)

    async def news(self) -> None:
        """Wait until something has happened."""
        self._woken.clear()
        await self._woken.wait()

    async def __anext__(self) -> StreamEvent:
        self._iterated = True
        while not self._queue or self.stalled:
            await self.news()
        return self._queue.popleft()


class Sampler:
    """Takes snapshots of the number of the newest event."""

    subject = "book"
    problem = ""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def pull_first(self) -> None:
        while not self._stream.current:
            await self._stream.news()

    async def take(self, due_at: datetime) -> Any:
        clock = self._stream.world.clock
        while (rest := (due_at - clock.now()).total_seconds()) > 0:  # noqa: ASYNC110 - the clock may be set
            await asyncio.sleep(rest)
        told = {"due_at": due_at.isoformat(), "newest": self._stream.newest, "stale": not self._stream.current}
        return SimpleNamespace(as_dict=lambda: told)


@dataclass
class History:
    """
    A seed's history.

    :param bad_store: whether the store may lose what it says to have, and somebody touches the files.
    :param faults: how many of each kind.
    """

    seed: int
    by_time: bool = False
    bad_store: bool = False
    faults: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.world = World(self.seed)
        self.chance = self.world.random
        self.disk, self.market = Disk(self.world.pause), Market(self.world)
        self.duration = self.chance.uniform(8, 25)
        if self.seed % 7 == 3:
            # It listens before its time, as a second listener may.
            self.world.set_clock(-3)
        self.copies = self.chance.choice([1, 2])
        self.step = self.chance.choice([0.0002, 0.01, 0.05, 0.3])
        """Seconds that a writer's step takes at most."""
        self.spec = CaptureSpec.of(
            stream="product" if self.by_time else "event",
            folder=FOLDER,
            file_format="jsonl",
            began_at=datetime.fromtimestamp(BEGIN, UTC).isoformat(),
            duration=self.duration,
            interval=self.chance.choice([0.1, 0.25]) if self.by_time else None,
            part_seconds=self.chance.choice([1.5, 2, 4, 7]),
            pair="btcjpy" if self.by_time else None,
            channels=["a"],
        )
        self.lives = 0
        self.twice: list[tuple[float, float]] = []
        """Times that the wall clock showed twice."""
        self.ran: list[tuple[float, float]] = []
        """Times in which lives ran that came to their end, by the wall clock."""
        self.refused = False
        """Whether a capture ended because it found something that is no part of it, and said so."""
        self.running: list[tuple[Store, Stream, asyncio.Task[None]]] = []

    async def play(self) -> None:
        """Play it to the end."""
        self._mend()
        self._plan()
        await asyncio.gather(*(self._copy(number) for number in range(self.copies)))
        # What was killed may still lie in its last breath.
        await asyncio.gather(*(task for _, _, task in self.running), return_exceptions=True)
        # And what was stopped may still write.
        await asyncio.sleep(60)

    def _plan(self) -> None:
        moment = 0.0
        rate = self.chance.choice([4, 15])
        while moment < self.duration + 12:
            moment += self.chance.expovariate(rate)
            for _ in range(self.chance.choice([1] * 30 + [25])):
                self.world.later(moment, self.market.publish)
        for number in range(1, self.spec.periods.count):
            # One of two copies may have it before the border of two parts, and the other one after it.
            border = self.spec.periods.span(number).since.timestamp() - self.world.clock.wall()
            self.world.later(max(0.0, border - self.chance.uniform(0, 0.03)), self.market.publish)
        kinds = ["kill", "stop", "lose", "lose", "hang", "stall", "break", "jump", "hold", "freeze"]
        if self.bad_store:
            kinds += ["lie", "forget", "remove", "rename"]
        for _ in range(self.chance.randrange(6)):
            kind = self.chance.choice(kinds)
            if kind == "jump" and self.copies > 1:
                # Two lives on two clocks: which of them is right is not to be known.
                continue
            self.faults[kind] += 1
            moment = self.chance.uniform(0.5, self.duration)
            self.world.later(moment, partial(self.world.loop.call_soon_threadsafe, getattr(self, kind)))

    def kill(self) -> None:
        """End a life in the middle of whatever it does."""
        if self.running:
            store, _, task = self.chance.choice(self.running)
            store.changes_left = self.chance.choice([0, 0, 1, 2, 3])
            task.cancel()

    def stop(self) -> None:
        """End a life as a triggerer does that stops."""
        if self.running:
            self.chance.choice(self.running)[2].cancel()

    def lose(self) -> None:
        """Lose a connection."""
        if self.running:
            noticed = self.chance.choice([0.0, self.chance.uniform(0, 4)])
            self.chance.choice(self.running)[1].lose(noticed, noticed + self.chance.uniform(0.1, 3))

    def hang(self) -> None:
        """Have the store take long for a while."""
        longest = self.chance.choice([0.05, 0.5])
        self.disk.seconds = lambda: self.chance.uniform(0, longest)
        self.world.later(self.chance.uniform(1, 6), self._mend)

    def stall(self) -> None:
        """Have one writer take long for its next step."""
        if self.running:
            self.chance.choice(self.running)[0].stalled = self.chance.uniform(0.1, 5)

    def break_(self) -> None:
        """Have the store refuse for a while."""
        self.disk.broken = True
        self.world.later(self.chance.uniform(0.5, 8), self._mend)

    def lie(self) -> None:
        """Have the store say for a while that it has what it has not, or half of it."""
        self.disk.kept = self.chance.choice([0.0, 0.5])
        self.world.later(self.chance.uniform(0.2, 3), self._mend)

    def forget(self) -> None:
        """Have the store list for a while what it had."""
        self.disk.listing = list(self.disk.files)
        self.world.later(self.chance.uniform(0.5, 6), self._mend)

    def remove(self) -> None:
        """Have somebody remove a part."""
        for name in self._some_part():
            self.disk.files.pop(name, None)

    def rename(self) -> None:
        """Have somebody give a part the name of another one."""
        for name, target in zip(self._some_part(), self._some_part(), strict=False):
            if name in self.disk.files:
                self.disk.files[target] = self.disk.files.pop(name)

    def _some_part(self) -> list[str]:
        names = sorted(name for name in self.disk.files if name[0] not in "._")
        return [each for name in names and [self.chance.choice(names)] for each in (name, entry_name(name))]

    def _mend(self) -> None:
        self.disk.broken, self.disk.kept, self.disk.listing = False, 1.0, None
        self.disk.seconds = lambda: self.chance.uniform(0, self.step)

    def jump(self) -> None:
        """Set the wall clock, if there is somebody to notice."""
        if self.running:
            before = self.world.clock.wall()
            self.world.set_clock(self.chance.choice([-3, -0.7, 2, 10]))
            self.twice.append((self.world.clock.wall(), before))

    def hold(self) -> None:
        """Hold the event loop up, while events are taken."""
        self.world.hold(self.chance.uniform(0.2, 4))

    def freeze(self) -> None:
        """Hold everything up; what comes waits in the kernel."""
        streams = [stream for _, stream, _ in self.running]
        for stream in streams:
            stream.asleep = True
        self.world.hold(self.chance.uniform(2, 6))
        for stream in streams:
            stream.awake()

    async def _copy(self, number: int) -> None:
        """Run one copy, life after life, until one of them has come to the end."""
        # The other copy; or Airflow, while the first one still runs that it has given up.
        await asyncio.sleep(number * self.chance.uniform(0, self.chance.choice([3, self.duration])))
        while True:
            self.lives += 1
            store = Store(self.spec, self.disk, f"life{self.lives}")
            stream = Stream(self.market)
            task = asyncio.create_task(self._live(store, stream))
            life = store, stream, task
            self.running.append(life)
            await asyncio.wait({task})
            if store.changes_left is not None:
                # A stopped one may go on for a while where it writes, a killed one does not.
                store.changes_left = 0
            self.running.remove(life)
            stream.close()
            if not task.cancelled() and not isinstance(task.exception(), QuoineStorageError):
                # Nothing but a file under a wrong name is no part.
                self.refused |= self.faults["rename"] > 0 and isinstance(task.exception(), QuoineInputError)
                if not self.refused:
                    task.result()
                return
            # The next try: another triggerer takes it up, or Airflow does after the failure.
            await asyncio.sleep(self.chance.uniform(0.05, 4))

    async def _live(self, store: Store, stream: Any) -> None:
        writer = CaptureWriter(store=store, periods=self.spec.periods)
        try:
            if self.world.clock.now() >= self.spec.periods.ends_at:
                await writer.open(patience=None)
                await writer.seal()
                return
            await writer.open(patience=capture_writer.OPEN_PATIENCE)
            stream.connect()
            run = CaptureRun(spec=self.spec, stream=stream, writer=writer, clock=self.world.clock)
            began = self.world.clock.wall()
            if self.spec.schedule is None:
                await run.run(run.take_events)
            else:
                sampler: Any = Sampler(stream)
                schedule = self.spec.schedule
                await run.run(lambda: run.take_snapshots(sampler, schedule))
            self.ran.append((began, self.world.clock.wall()))
            await writer.seal()
        finally:
            writer.stop()

    def verdict(self) -> list[str]:
        """Return every broken promise."""
        self._mend()
        try:
            manifest = Store(self.spec, self.disk, "oracle").write_manifest()
        except QuoineInputError:
            self.refused = self.refused or self.faults["rename"] > 0
            if not self.refused:
                raise
        if self.refused:
            return []
        names = sorted(name for name in self.disk.files if name[0] not in "._")
        wrong = [f"{name} is left" for name in self.disk.files if name[0] == "."]
        if names != [part["name"] for part in manifest["parts"]]:
            wrong.append(f"the manifest is of other files than {names}")
        rows = [json.loads(line) for name in names for line in self.disk.files[name].splitlines()]
        entries = manifest["parts"]
        gaps = [tuple(_seconds(gap[end]) for end in ("from", "until")) for entry in entries for gap in entry["gaps"]]
        begin, end = _seconds(self.spec.periods.began_at.isoformat()), _seconds(self.spec.periods.ends_at.isoformat())
        wrong += self._wrong_entries(entries)

        def stated(moment: float) -> bool:
            return any(since - SLACK <= moment <= until + SLACK for since, until in gaps)

        placed = [_seconds(row["due_at" if self.by_time else "received_at"]) for row in rows]
        if any(after < before for before, after in pairwise(placed)):
            wrong.append("rows are out of order")
        if self.by_time:
            return wrong + self._wrong_snapshots(rows, placed, stated)
        found = Counter(int(row["data"]) for row in rows)
        twice = [number for number, count in found.items() if count > 1]
        wrong += [f"event {number} is there {found[number]} times" for number in twice]
        for life in {row["connection"].partition("-")[0] for row in rows}:
            own = [(row["seq"], int(row["data"])) for row in rows if row["connection"].startswith(f"{life}-")]
            if own != sorted(own):
                wrong.append(f"rows of {life} are out of order")
        for number, (wall, _) in enumerate(self.market.published, 1):
            # If the life that saw the clock go back is killed, and another listens in the second pass, nobody knows.
            unknown = self.lives > 1 and any(since - SLACK <= wall <= until + SLACK for since, until in self.twice)
            if begin < wall < end - SLACK and number not in found and not stated(wall) and not unknown:
                wrong.append(f"event {number}, {wall - BEGIN:.3f} s after the beginning, is in no file and in no gap")
        return wrong

    def _wrong_entries(self, entries: list[dict[str, Any]]) -> Iterator[str]:
        for entry in entries:
            pieces = sorted(_span(one) for one in (*entry["gaps"], *entry["listened"]))
            at = _seconds(entry["from"])
            end = _seconds(entry["until"])
            for since, until in [*pieces, (end, end)]:
                if min(since, end) > at + 1e-5:
                    yield f"{entry['name']} says nothing of {since - at:.3f} s from {at - BEGIN:.3f} on"
                at = max(at, until)
        if self.faults["jump"] or self.bad_store:
            # Whose parts were removed, nobody knows.
            return
        for gap in (gap for entry in entries for gap in entry["gaps"] if gap["reason"] == NOT_RUNNING):
            since, until = _span(gap)
            if any(max(since, began) + SLACK < min(until, ended) for began, ended in self.ran):
                yield f"a capture ran at {since - BEGIN:.3f}, and a gap says that none did"

    def _wrong_snapshots(self, rows: list[Any], placed: list[float], stated: Callable[[float], bool]) -> list[str]:
        assert self.spec.schedule is not None
        schedule = self.spec.schedule
        due = [_seconds(schedule.due_at(number).isoformat()) for number in range(1, (schedule.count or 0) + 1)]
        wrong = [
            f"the snapshot due at {at - BEGIN:.3f} is missing" for at in due if at not in placed and not stated(at)
        ]
        found = Counter(placed).items()
        wrong += [f"{count} snapshots due at {at - BEGIN:.3f}" for at, count in found if count > 1]
        if self.faults["jump"]:
            # Which event was the newest at a moment that came twice, or never?
            return wrong
        for row, at in zip(rows, placed, strict=True):
            newest = sum(wall <= at - FRESH for wall, _ in self.market.published)
            if row["newest"] < newest and not row["stale"] and not stated(at):
                wrong.append(f"the snapshot due at {at - BEGIN:.3f} shows event {row['newest']} of {newest} as fresh")
        return wrong


# A name that Python keeps for itself.
setattr(History, "break", History.break_)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _span(piece: dict[str, Any]) -> tuple[float, float]:
    return _seconds(piece["from"]), _seconds(piece["until"])


def play(seed: int, *, bad_store: bool = False) -> tuple[list[str], History]:
    """Play the history of a seed; return every broken promise."""
    history = History(seed, by_time=seed % 3 == 0, bad_store=bad_store)
    random.seed(seed)
    with (
        patch.object(capture_writer, "PART_BYTES", history.chance.choice([4_000, 10**9])),
        patch.object(capture_writer, "MAX_PENDING_BYTES", history.chance.choice([30_000, 10**9])),
    ):
        history.world.run(history.play())
        return history.verdict(), history
