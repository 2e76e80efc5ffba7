"""
Whether a capture's files account for every event that a market sent. Knows the files' form, and nothing of the code.

Each event is in the files once and in order, or it is lost. A lost event is accounted for if a stated gap holds a
moment at which it was on its way: between its sending and when it would have come, had it taken as long as the last
event that did come, or until the end of a time in which the process of the capture was held up.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.capture_market import Sent, number_in

EDGE = 0.02
"""Seconds by which an event may miss the beginning of a gap: the clock is read a moment after a byte has come."""

_SLOP = 1e-6
"""Seconds by which two times to the microsecond may differ."""


class Gap(NamedTuple):
    """A stated gap; times as ``time.time()``."""

    since: float
    until: float
    reason: str


@dataclass
class Files:
    """
    What a capture's files hold, in their order.

    :param sums: what the parts say of themselves, added up.
    :param wrong: what is no part of such a capture.
    """

    numbers: array[int] = field(default_factory=lambda: array("q"))
    received: array[float] = field(default_factory=lambda: array("d"))
    gaps: list[Gap] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=lambda: {"rows": 0.0, "gap_seconds": 0.0})
    wrong: list[str] = field(default_factory=list)


def read_files(folder: Path) -> Files:
    """Read all files of a capture that has ended: those of rows, and the entry beside each."""
    files = Files()
    for path in sorted(folder.glob("*.jsonl")):
        try:
            for row in map(json.loads, path.read_bytes().splitlines()):
                files.numbers.append(number_in(row["data"]))
                files.received.append(datetime.fromisoformat(row["received_at"]).timestamp())
            entry = json.loads((folder / f"_{path.name}.json").read_bytes())
            for gap in entry["gaps"]:
                since, until = (datetime.fromisoformat(gap[end]).timestamp() for end in ("from", "until"))
                files.gaps.append(Gap(since, until, gap["reason"]))
            for name in files.sums:
                files.sums[name] += entry[name]
        except (OSError, ValueError, KeyError, TypeError) as error:
            files.wrong.append(f"{path.name} is no part of a capture: {error!r}")
    return files


@dataclass(frozen=True)
class Loss:
    """
    Events in a row that are in no file, all for the same stated reason.

    :param since: when the first one was sent.
    :param until: when the last one was sent.
    :param reason: of the gap that accounts for them; empty if none does.
    :param edge: how many were sent before the gap began, and were on their way then.
    """

    events: int
    since: float
    until: float
    reason: str
    edge: int


@dataclass
class Verdict:
    """
    What was found.

    :param events: sent in the capture's time, those excepted that came after its end.
    :param slowest: the longest time from an event's sending to when the capture says that it came, in seconds.
    :param wrong: every promise that is broken, in words; empty if all is well.
    """

    events: int
    rows: int
    doubled: int
    disordered: int
    slowest: float
    gap_seconds: float
    kept_in_gaps: int
    losses: list[Loss]
    wrong: list[str]


def judge(files: Files, sent: Sent, summary: dict[str, Any], holds: Sequence[tuple[float, float]] = ()) -> Verdict:
    """
    Account for every event.

    :param summary: the capture's own.
    :param holds: times in which the capture's process read nothing, in order.
    """
    began, ended = (datetime.fromisoformat(summary[end]).timestamp() for end in ("from", "until"))
    wrong, times = list(files.wrong), sent.times
    came: dict[int, float] = {}
    doubled = disordered = 0
    before = -1
    for number, received in zip(files.numbers, files.received, strict=True):
        if number >= len(times) or received < times[number] - _SLOP:
            wrong.append(f"event {number} is in the files before it was sent")
            continue
        doubled += number in came
        disordered += number < before
        came[number], before = received, number
    gaps = sorted(files.gaps)
    wrong += [f"gaps overlap: {one} and {other}" for one, other in pairwise(gaps) if other.since < one.until - _SLOP]
    due = range(bisect_left(times, began), bisect_right(times, ended))
    losses = list(_losses(due, times, came, gaps, ended, holds))
    late = sum(loss.events for loss in losses if loss.reason == _AFTER_THE_END)
    losses = [loss for loss in losses if loss.reason != _AFTER_THE_END]
    unstated = sum(loss.events for loss in losses if not loss.reason)
    gap_seconds = sum(gap.until - gap.since for gap in gaps)
    own = {"rows": len(files.numbers), "gap_seconds": gap_seconds}
    for name, figure in own.items():
        for whose, said in (("the parts", files.sums[name]), ("the summary", summary[name])):
            if abs(figure - said) > _SLOP * 10 * max(1, len(gaps)):
                wrong.append(f"{name}: {figure} in the files, and {said} in the sums of {whose}")
    for count, words in (
        (unstated, "events are in no file and in no stated gap"),
        (doubled, "rows are doubled"),
        (disordered, "rows are out of order"),
    ):
        if count:
            wrong.append(f"{count} {words}")
    return Verdict(
        events=len(due) - late,
        rows=len(files.numbers),
        doubled=doubled,
        disordered=disordered,
        slowest=max((received - times[number] for number, received in came.items()), default=0.0),
        gap_seconds=gap_seconds,
        kept_in_gaps=sum(_gap_at(gaps, received, received) is not None for received in came.values()),
        losses=losses,
        wrong=wrong,
    )


_AFTER_THE_END = "it came after the capture's end"


def _losses(
    due: range,
    times: array[float],
    came: dict[int, float],
    gaps: list[Gap],
    ended: float,
    holds: Sequence[tuple[float, float]],
) -> Iterator[Loss]:
    delay = 0.0
    missing: list[tuple[int, str, bool]] = []
    for number in due:
        if number in came:
            # What is lost next would have been as long on its way.
            delay = came[number] - times[number]
        else:
            arrival = _arrival(times[number] + delay, holds)
            missing.append((number, *_account(times[number], arrival, gaps, ended)))
    # Numbers in a row have the same distance from their places.
    for _, run in groupby(enumerate(missing), key=lambda each: (each[1][0] - each[0], each[1][1])):
        pieces = [piece for _, piece in run]
        since, until = times[pieces[0][0]], times[pieces[-1][0]]
        yield Loss(len(pieces), since, until, pieces[0][1], sum(edge for *_, edge in pieces))


def _arrival(at: float, holds: Sequence[tuple[float, float]]) -> float:
    """Return when an event was read that could have been read at a moment: after the holds that it fell into."""
    while (place := bisect_right(holds, at, key=lambda hold: hold[0]) - 1) >= 0 and holds[place][1] > at:
        at = holds[place][1]
    return at


def _account(sent: float, arrival: float, gaps: list[Gap], ended: float) -> tuple[str, bool]:
    """Return the reason for which an event is accounted for, empty for none, and whether it was sent before the gap."""
    gap = _gap_at(gaps, sent, arrival + EDGE)
    if gap:
        return gap.reason, gap.since > sent
    return (_AFTER_THE_END if arrival + EDGE >= ended else ""), False


def _gap_at(gaps: list[Gap], since: float, until: float) -> Gap | None:
    """Return a gap that holds a moment between two."""
    place = bisect_right(gaps, until + _SLOP, key=lambda gap: gap.since) - 1
    return gaps[place] if place >= 0 and gaps[place].until >= since - _SLOP else None
