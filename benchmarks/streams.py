"""
Streams beside other ways to take them: throughput, many triggers in one event loop, and how late a snapshot is.

Servers and clients are processes of their own; servers send frames that are written beforehand. Rounds are
interleaved, figures are medians. ``python -m benchmarks.streams --help``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from benchmarks import poller, stream_clients, stream_load, stream_server
from benchmarks.figures import Figures, tell

CHANNELS = ["price_ladders_cash_btcjpy_buy", "price_ladders_cash_btcjpy_sell"]
TOTAL_RATE = 1600.0
"""Messages a second that the market sends, whoever listens."""

_CONTEXT = multiprocessing.get_context("spawn")


@contextmanager
def process(work: Callable[..., None], *given: Any) -> Iterator[Connection]:
    """Run a process that takes the other end of a pipe first; at the end it is told to stop."""
    here, there = _CONTEXT.Pipe()
    worker = _CONTEXT.Process(target=work, args=(there, *given))
    worker.start()
    there.close()
    try:
        yield here
        here.send("stop")
    except BrokenPipeError:
        pass
    finally:
        worker.join(timeout=10)
        worker.kill()


def throughput(way: str, seconds: float) -> Figures:
    """Take what a server can send, on one connection; each side has a core to itself if there are two."""
    cores = [*sorted(os.sched_getaffinity(0)), None, None][:2] if len(os.sched_getaffinity(0)) > 1 else [None, None]
    with (
        process(stream_server.serve, cores[0], 0.0) as server,
        process(stream_clients.run, cores[1], way, server.recv(), CHANNELS, seconds) as client,
    ):
        figures: Figures = client.recv()
        return figures


def load(way: str, triggers: int, interval: float, seconds: float) -> Figures:
    """Run triggers on one loop under :data:`TOTAL_RATE`, and an idle event loop beside them."""
    connections = 1 if way == "ours" else triggers
    with (
        process(stream_server.serve, None, TOTAL_RATE / connections) as server,
        process(stream_load.run, way, server.recv(), triggers, interval, seconds) as client,
        process(poller.idle) as idle,
    ):
        figures: Figures = client.recv()
        idle.send("stop")
        server.send("count")
        return {
            "connections": float(server.recv()),
            **figures,
            "longest hold of an idle event loop, ms": idle.recv(),
        }


def medians(ways: list[str], measure: Callable[[str], Figures], runs: int) -> dict[str, Figures]:
    """Measure each way in turn, so many times over."""
    seen: dict[str, list[Figures]] = {way: [] for way in ways}
    for _ in range(runs):
        for way in ways:
            seen[way].append(measure(way))
            tell(way, seen[way][-1])
    return {
        way: {name: statistics.median(each[name] for each in all_) for name in all_[0]} for way, all_ in seen.items()
    }


def show(title: str, rows: dict[str, Figures]) -> None:
    """Print figures side by side, one way to a column."""
    print(f"\n{title}\n{'':42}" + "".join(f"{way:>30}" for way in rows))
    for name in dict.fromkeys(name for row in rows.values() for name in row):
        values = (f"{row[name]:>30,.3f}" if name in row else " " * 30 for row in rows.values())
        print(f"{name:42}" + "".join(values), flush=True)


def ratios(rows: dict[str, Figures], name: str, bases: list[str]) -> None:
    """Add how many times as much of something each way has as some of them."""
    for base in bases:
        for row in rows.values():
            row[f"{name}, times {base}"] = row[name] / rows[base][name]


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=["throughput", "load", "delay"], help="may be repeated")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of throughput, for each way and run")
    parser.add_argument("--triggers", type=int, default=1000)
    parser.add_argument("--interval", type=float, default=5.0, help="seconds between two snapshots")
    parser.add_argument("--each", type=int, default=40, help="triggers with a pysher each: one for every pair")
    given = parser.parse_args()
    what = given.only or ["throughput", "load", "delay"]
    if "throughput" in what:
        rows = medians(list(stream_clients.WAYS), lambda way: throughput(way, given.seconds), given.runs)
        ratios(rows, "messages/s", ["pysher as it is", "websockets, nothing kept", "websockets, newest kept"])
        show(f"One connection, 1.15 kB each, medians of {given.runs}", rows)
    if "load" in what:
        triggers = {"ours": given.triggers, "pysher each": given.each}
        seconds = 4 * given.interval + 1
        rows = medians(
            list(triggers), lambda way: load(way, triggers[way], given.interval, seconds), max(1, given.runs // 2)
        )
        named = {f"{way}, {triggers[way]} triggers": row for way, row in rows.items()}
        base = f"ours, {given.triggers} triggers"
        for name in ("processor per trigger, %", "memory per trigger, KiB"):
            ratios(named, name, [base])
        show(f"{len(stream_load.PAIRS)} pairs, {TOTAL_RATE:,.0f} messages/s, all due at the same moments", named)
    if "delay" in what:
        rows = medians(list(stream_load.PROBES), lambda way: delay(way), given.runs)
        show(f"From a message's arrival to its snapshot, {TOTAL_RATE:,.0f} messages/s", rows)


def delay(way: str) -> Figures:
    """Let one snapshot be due with every message of a book; see how long after sending and arrival it is there."""
    with (
        process(stream_server.serve, None, TOTAL_RATE) as server,
        process(stream_load.probe, way, server.recv()) as client,
    ):
        figures: Figures = client.recv()
        return figures


if __name__ == "__main__":
    main()
