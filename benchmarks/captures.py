"""
A raw capture under load, through kills, black holes and a store that hangs: is every event accounted for?

A market sends numbered events and writes down what it sent. A capture of all its channels runs in a process that is
killed and started again; the network falls into black holes; the store hangs, once over a start. Then every event that
was sent is looked for in the files and in their stated gaps, and each piece of the loss is named with its cause.
Nothing of the capture is tuned for it: the stream's timing and the length of parts are the defaults.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count, cycle, repeat, takewhile
from math import inf
from pathlib import Path
from time import time
from typing import Any

import psutil

from benchmarks import capture_market, capture_worker
from benchmarks.capture_market import CHANNELS, Sent
from benchmarks.capture_oracle import Verdict, judge, read_files
from benchmarks.machine import Machine
from benchmarks.processes import answer, process

HOLE_SECONDS = (3.0, 8.0, 20.0)
"""Of the black holes, in turn."""

HANG_SECONDS = 15.0

LISTENING_WITHIN = 1.0
"""Goal: seconds from a start until the server has the subscriptions."""

NEAR = 2.0
"""Seconds around what was done to a capture in which a loss is told beside it: a connection is back after as many."""

FINISH_SECONDS = 400.0
"""That a capture may take beyond its end: it tries for five minutes to write what it has."""


@dataclass
class Faults:
    """
    What was done to a capture; times as ``time.time()``.

    :param starts: of each process that ran it.
    :param hangs: of the store, beginnings and ends.
    :param loaded: MiB that a process had resident before it captured, the most of all.
    :param memory: MiB that it had then, the most of all.
    """

    starts: list[float] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    hangs: list[tuple[float, float]] = field(default_factory=list)
    loaded: float = 0.0
    memory: float = 0.0


class Life:
    """
    A process that runs the capture, until it is killed or the capture ends.

    :param given: arguments of :func:`.capture_worker.run`.
    """

    def __init__(self, *given: Any) -> None:
        self._stack = ExitStack()
        self.pipe = self._stack.enter_context(process(capture_worker.run, *given))

    def load(self) -> None:
        """Wait until it is loaded."""
        self._process = psutil.Process(answer(self.pipe))

    def memory(self) -> float:
        """Return the MiB that it has resident."""
        return float(self._process.memory_info().rss / 2**20)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self._process.kill()
        self._stack.close()

    def close(self) -> None:
        """Wait until it has ended."""
        self._stack.close()


def steps_of(
    seconds: float, *, kill_every: float, black_hole_every: float, hangs: int
) -> list[tuple[float, str, float]]:
    """
    Plan what is done to a capture: in the first hang no process is started, in the last one is.

    :param seconds: of the capture.
    :return: seconds from the beginning, what, and the seconds that it lasts, in order.
    """
    kills = list(takewhile(lambda at: at < seconds - 5, (number * kill_every for number in count(1))))
    holes = takewhile(lambda at: at < seconds - 5, ((number + 2 / 3) * black_hole_every for number in count()))
    hang_at = [seconds * (number + 0.5) / hangs for number in range(hangs)]
    if hang_at and kills:
        hang_at[0] = hang_at[0] // kill_every * kill_every + kill_every / 8
        hang_at[-1] = max(kill for kill in kills if kill <= max(hang_at[-1], kills[0])) - HANG_SECONDS / 2
    return sorted(
        [
            *((at - 0.7 * kill_every, "load", 0.0) for at in kills),
            *((at, "kill", 0.0) for at in kills),
            *zip(holes, repeat("hole"), cycle(HOLE_SECONDS)),
            *((at, "hang", HANG_SECONDS) for at in hang_at),
            *((at + HANG_SECONDS, "go on", 0.0) for at in hang_at),
        ]
    )


def capture_under_faults(
    folder: Path, home: Path, spec: dict[str, Any], steps: list[tuple[float, str, float]], *, rate: float, size: int
) -> tuple[Faults, Sent, dict[str, Any]]:
    """
    Run a capture, and do to it what is planned.

    :param spec: the trigger's, without folder and beginning.
    :return: what was done, what the market has sent, and the capture's event.
    :raises TimeoutError: if the capture does not end.
    """
    faults, hangs = Faults(), capture_worker.hang_file(str(folder))
    with process(capture_market.serve, rate, size) as market:
        given = str(home), answer(market), str(folder)
        life = spare = Life(*given)

        def start() -> None:
            life.load()
            faults.loaded = max(faults.loaded, life.memory())
            faults.starts.append(time())
            begun = {"began_at": datetime.fromtimestamp(faults.starts[0], UTC).isoformat(), "folder": str(folder)}
            life.pipe.send({**spec, **begun})

        start()
        while not life.pipe.poll(0.1):
            faults.memory = max(faults.memory, life.memory())
            passed = time() - faults.starts[0]
            if passed > spec["duration"] + FINISH_SECONDS:
                raise TimeoutError(f"The capture had not ended {FINISH_SECONDS:g} s after its end.")
            while steps and steps[0][0] <= passed:
                match steps.pop(0):
                    case _, "load", _:
                        spare = Life(*given)
                    case _, "kill", _:
                        life.kill()
                        faults.kills.append(time())
                        life = spare
                        start()
                    case _, "hole", lasts:
                        market.send(lasts)
                    case _, "hang", _:
                        hangs.touch()
                        faults.hangs.append((time(), inf))
                    case _, "go on", _:
                        hangs.unlink()
                        faults.hangs[-1] = faults.hangs[-1][0], time()
        event: dict[str, Any] = life.pipe.recv()
        life.close()
        market.send("sent")
        return faults, answer(market), event


def tell_losses(verdict: Verdict, faults: Faults, sent: Sent) -> int:
    """
    Print each piece of what is in no file: how much, when, the reason that is stated, and what was done then.

    :return: events that were lost while nothing was done, those before the first subscription excepted.
    """
    causes = [(at, at, "kill") for at in faults.kills]
    causes += [(*hole, "black hole") for hole in sent.holes] + [(*hang, "store hangs") for hang in faults.hangs]
    began, causeless = faults.starts[0], 0
    print(f"\n{'lost events':>11} {'from s':>8} {'to s':>8}  how the files account for it; what was done at that time")
    for loss in verdict.losses:
        done = sorted(
            f"{what} at {since - began:.0f} s"
            for since, until, what in causes
            if since <= loss.until + NEAR and loss.since <= until + NEAR
        )
        print(
            f"{loss.events:11,} {loss.since - began:8.2f} {loss.until - began:8.2f}  {loss.reason or 'NOT AT ALL'}; "
            f"{', '.join(done) or 'nothing'}"
        )
        causeless += 0 if done or loss.until <= sent.subscribed[0] else loss.events
    return causeless


def tell(verdict: Verdict, faults: Faults, sent: Sent) -> list[str]:
    """
    Print what was found.

    :return: what is not as it is to be.
    """
    lost = sum(loss.events for loss in verdict.losses)
    stated = sum(loss.events for loss in verdict.losses if loss.reason)
    edge = sum(loss.edge for loss in verdict.losses)
    figures = {
        "events sent in the capture's time": verdict.events,
        "  in the files": verdict.events - lost,
        "  in no file, in a stated gap": stated - edge,
        "  the same, on its way when the gap began": edge,
        "  in no file and in no gap": lost - stated,
        "rows doubled": verdict.doubled,
        "rows out of order": verdict.disordered,
        "events in a stated gap and in a file": verdict.kept_in_gaps,
    }
    for name, figure in figures.items():
        print(f"{name:44}{figure:12,}")
    print(f"{'seconds of stated gaps':44}{verdict.gap_seconds:12.1f}")
    print(f"{'longest from sending to coming, s':44}{verdict.slowest:12.2f}")
    print(f"{'memory at most, MiB':44}{faults.memory:12.0f}   before it captured {faults.loaded:.0f}")
    broken = list(verdict.wrong)
    for number, at in enumerate(faults.starts):
        heard = min((each for each in sent.subscribed if each >= at), default=inf)
        in_hole = any(since - LISTENING_WITHIN < at < until for since, until in sent.holes)
        hangs = any(since < at < until for since, until in faults.hangs)
        words = " (in a black hole)" if in_hole else " (its store hangs)" if hangs else ""
        print(f"{f'start {number + 1} listens after, s{words}':44}{heard - at:12.2f}")
        if heard - at > LISTENING_WITHIN and not in_hole:
            broken.append(f"start {number + 1} listened after {heard - at:.2f} s{words}")
    return broken


def main() -> None:
    """Capture, account for every event, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=2000.0, help="events a second")
    parser.add_argument("--event-bytes", type=int, default=500, help="of an event's data")
    parser.add_argument("--kill-every", type=float, default=30.0, help="seconds")
    parser.add_argument("--black-hole-every", type=float, default=60.0, help="seconds")
    parser.add_argument("--hangs", type=int, default=2, help="of the store")
    parser.add_argument("--part-seconds", type=float, default=60.0)
    parser.add_argument("--keep", type=Path, help="folder for the files and the log; they are removed if left out")
    given = parser.parse_args()
    seconds, machine = 60 * given.minutes, Machine("airflow-provider-quoine")
    steps = steps_of(seconds, kill_every=given.kill_every, black_hole_every=given.black_hole_every, hangs=given.hangs)
    done = Counter(what for _, what, _ in steps)
    spec = {
        "stream": "event",
        "channels": list(CHANNELS),
        "duration": seconds,
        "part_seconds": given.part_seconds,
        "file_format": "jsonl",
    }
    with ExitStack() as stack:
        place = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (place / "airflow").mkdir(parents=True)
        faults, sent, event = capture_under_faults(
            place / "capture", place / "airflow", spec, steps, rate=given.rate, size=given.event_bytes
        )
        if event["status"] != "success":
            sys.exit(f"The capture failed: {event}")
        lines = capture_worker.holds_file(str(place / "airflow")).read_text().splitlines()
        holds = [(float(since), float(until)) for since, until in map(str.split, lines)]
        verdict = judge(read_files(place / "capture"), sent, event["result"], holds)
    print(
        f"{given.minutes:g} minutes, {given.rate:g} events/s of {given.event_bytes} bytes; {done['kill']} kills, "
        f"{done['hole']} black holes, {done['hang']} times a store that hangs for {HANG_SECONDS:g} s"
    )
    broken = tell(verdict, faults, sent)
    print(f"{'longest hold of the process, s':44}{max((until - since for since, until in holds), default=0.0):12.2f}")
    causeless = tell_losses(verdict, faults, sent)
    if causeless:
        broken.append(f"{causeless} events are in no file although nothing was done to the capture at that time")
    print(f"\n{machine}\n")
    print(
        "\n".join(
            ["PASS  every event is accounted for, none was lost without a cause, and each start listened in time"]
            if not broken
            else [f"FAIL  {each}" for each in broken[:40]]
        )
    )
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
