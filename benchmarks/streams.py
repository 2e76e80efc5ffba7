"""
Streams beside other ways to take them: throughput, many triggers on one event loop, and how late a snapshot is.

Servers and clients are processes of their own. Servers send frames that are written beforehand, and say how many they
sent: what was dropped is the difference to what a consumer was handed. Rounds are interleaved, figures are medians.
``python -m benchmarks.streams --help``.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Iterable
from functools import partial

from benchmarks import poller, stream_clients, stream_load, stream_server
from benchmarks.figures import Figures, tell
from benchmarks.machine import Machine
from benchmarks.processes import answer, process
from benchmarks.stream_clients import OURS, WAYS, WEBSOCKETS, Way, Work

TOTAL_RATE = 1600.0
"""Messages a second that the market sends, whoever listens."""

WARM_UP = 0.5
"""Seconds of sending before those that are measured."""

OF_FASTEST, OF_WEBSOCKETS = 0.9, 0.7
"""Goals: our rate over that of the fastest rival at the same work; and that at which nothing may be dropped."""


def throughput(way: Way, seconds: float, rate: float = 0.0) -> Figures:
    """
    Take what a server sends, on one connection; each side has a processor to itself if there are two.

    :param rate: messages a second; 0 for as many as the client takes.
    """
    cores = [*sorted(os.sched_getaffinity(0)), None, None][:2] if len(os.sched_getaffinity(0)) > 1 else [None, None]
    with (
        process(stream_server.serve, cores[0], 0.0) as server,
        process(stream_clients.run, cores[1], str(way.work), way.name, answer(server)) as client,
    ):
        answer(client)
        for span in (WARM_UP, seconds):
            client.send("measure")
            answer(client)
            server.send((span, rate))
            sent, sending = answer(server)
            seen = answer(client)
    # A message that is only kept is taken by being received, and each channel's last one came behind all others.
    taken = sent if way.work is Work.NEWEST_RAW else seen["taken"]
    return {
        "messages/s": taken / seen["seconds"],
        "sent by the server": sent,
        "sent/s": sent / sending,
        "dropped": sent - taken,
        **({} if way.work.every else {"read as the newest": seen["read"]}),
        "processor seconds per million messages": 1e6 * seen["processor seconds"] / sent,
        "longest hold of the event loop, ms": seen["longest hold of the event loop, ms"],
    }


def load(way: str, triggers: int, interval: float, seconds: float) -> Figures:
    """Run triggers on one loop under :data:`TOTAL_RATE`, and an idle event loop beside them."""
    connections = triggers if way == stream_load.EACH else 1
    with (
        process(stream_server.serve, None, TOTAL_RATE / connections) as server,
        process(stream_load.run, way, answer(server), triggers, interval, seconds) as client,
        process(poller.idle) as idle,
    ):
        figures: Figures = answer(client)
        idle.send("stop")
        server.send("count")
        return {
            "connections": float(answer(server)),
            **figures,
            "longest hold of an idle event loop, ms": answer(idle),
        }


def delay(way: str) -> Figures:
    """Let one snapshot be due with every message of a book; see how long after sending and arrival it is there."""
    with (
        process(stream_server.serve, None, TOTAL_RATE) as server,
        process(stream_load.probe, way, answer(server)) as client,
    ):
        figures: Figures = answer(client)
        return figures


def medians(measures: dict[str, Callable[[], Figures]], runs: int) -> dict[str, Figures]:
    """Measure each way in turn, so many times over; the most that was dropped counts, not the median."""
    seen: dict[str, list[Figures]] = {way: [] for way in measures}
    for _ in range(runs):
        for way, measure in measures.items():
            seen[way].append(measure())
            tell(way, seen[way][-1])
    return {
        way: {
            name: (max if name == "dropped" else statistics.median)([each[name] for each in all_]) for name in all_[0]
        }
        for way, all_ in seen.items()
    }


def show(title: str, rows: dict[str, Figures]) -> None:
    """Print figures side by side, one way to a column."""
    print(f"\n{title}\n{'':42}" + "".join(f"{way:>30}" for way in rows))
    for name in dict.fromkeys(name for row in rows.values() for name in row):
        values = (f"{row[name]:>30,.3f}" if name in row else " " * 30 for row in rows.values())
        print(f"{name:42}" + "".join(values), flush=True)


def judge(goal: str, figure: str, *, passed: bool) -> None:
    """Print whether a goal was reached."""
    print(f"{'PASS' if passed else 'FAIL'}  {goal}: {figure}", flush=True)


def compare_throughput(seconds: float, runs: int) -> None:
    """Measure each work in each way, and judge ours."""
    found = medians({f"{way.name}: {way.work}": partial(throughput, way, seconds) for way in WAYS}, runs)
    by_work: dict[Work, dict[str, Figures]] = {}
    for way in WAYS:
        by_work.setdefault(way.work, {})[way.name] = found[f"{way.name}: {way.work}"]
    for work in Work:
        rows = dict(sorted(by_work[work].items(), key=lambda row: row[1]["messages/s"]))
        for row in rows.values():
            row["messages/s, times websockets"] = row["messages/s"] / rows[WEBSOCKETS]["messages/s"]
        show(f"One connection, 1.15 kB each: {work}. Medians of {runs}; of drops the most", rows)
        print("\n".join(f"  {way.name}: {way.words}" for way in WAYS if way.work is work))
    judge_throughput(by_work, seconds, runs)


def judge_throughput(by_work: dict[Work, dict[str, Figures]], seconds: float, runs: int) -> None:
    """Judge our rates; where every message counts, by having the server send at the rate that is the goal."""
    asked: dict[str, tuple[Work, float]] = {}
    for work in Work:
        rates = {name: row["messages/s"] for name, row in by_work[work].items() if name != OURS}
        fastest = max(rates, key=lambda name: rates[name])
        goal = f"{work}: {OF_FASTEST:g} x the fastest rival ({fastest})"
        if work is Work.NEWEST_RAW:
            ratio = by_work[work][OURS]["messages/s"] / rates[fastest]
            judge(goal, f"ours has {ratio:.2f} x", passed=ratio >= OF_FASTEST)
        else:
            asked[goal] = work, OF_FASTEST * rates[fastest]
    websockets = by_work[Work.EVERY_DECODED][WEBSOCKETS]["messages/s"]
    asked[f"nothing dropped at {OF_WEBSOCKETS:g} x websockets, decoding"] = (
        Work.EVERY_DECODED,
        OF_WEBSOCKETS * websockets,
    )
    ours = {way.work: way for way in WAYS if way.name == OURS}
    rows = medians({goal: partial(throughput, ours[work], seconds, rate) for goal, (work, rate) in asked.items()}, runs)
    for goal, row in rows.items():
        rate = asked[goal][1]
        judge(
            goal,
            f"at {rate:,.0f} messages/s (the server sent {row['sent/s']:,.0f}/s) ours handed over "
            f"{row['messages/s']:,.0f}/s and dropped {row['dropped']:,.0f} of {row['sent by the server']:,.0f}",
            passed=not row["dropped"] and row["messages/s"] >= 0.98 * rate,
        )


def compare_load(counts: Iterable[int], interval: float, runs: int) -> None:
    """Measure triggers, as many in each column of a table."""
    for triggers in counts:
        ways = [way for way in stream_load.WAYS if way != stream_load.EACH or triggers <= len(stream_load.PAIRS)]
        rows = medians({way: partial(load, way, triggers, interval, 4 * interval + 1) for way in ways}, runs)
        for row in rows.values():
            for name in ("processor, %", "memory, MiB"):
                row[f"{name}, times ours"] = row[name] / rows[OURS][name]
        pairs = min(triggers, len(stream_load.PAIRS))
        show(
            f"{triggers} triggers of {pairs} pairs, {TOTAL_RATE:,.0f} messages/s, a snapshot every {interval:g} s from "
            f"each, all due at the same moments. Medians of {runs}",
            rows,
        )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=["throughput", "load", "delay"], help="may be repeated")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of sending, for each way and run of throughput")
    parser.add_argument("--triggers", type=int, action="append", help="may be repeated; 40 and 1000 if left out")
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between two snapshots")
    given = parser.parse_args()
    what = given.only or ["throughput", "load", "delay"]
    machine = Machine("websockets", "aiohttp", "pysher", "websocket-client")
    if "throughput" in what:
        compare_throughput(given.seconds, given.runs)
    if "load" in what:
        compare_load(given.triggers or [40, 1000], given.interval, given.runs)
    if "delay" in what:
        rows = medians({way: partial(delay, way) for way in stream_load.PROBES}, given.runs)
        show(f"From a message's arrival to its snapshot, {TOTAL_RATE:,.0f} messages/s", rows)
    print(f"\n{machine}")


if __name__ == "__main__":
    main()
