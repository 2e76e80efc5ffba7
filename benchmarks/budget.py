"""
The request budget beside what else could hold it: how exact, how fair, at what cost.

Processes of their own ask the sandbox, which counts for itself; time is scaled down (300 requests in 15 s instead of 5
minutes). ``python -m benchmarks.budget --help``. It needs ``redis-server``, ``redis``, ``pyrate-limiter``,
``filelock<4`` and ``limits``. All figures are medians of the runs, except where it says worst.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from airflow_provider_quoine.exchange.budget.rules import Priority, Rules
from benchmarks.figures import Figures, tell
from tools.redis_server import RedisServer

LIMIT, WINDOW, WINDOWS, PROCESSES = 300, 15.0, 3, 8

BOUNDS = {
    "busiest window, worst": f"<= {LIMIT}",
    "answers 429, worst": "0",
    "use %": ">= 97",
    "busiest : idlest": "<= 1.5",
    "the same, worst": "<= 1.5",
    "longest urgent wait, slots": "<= 2",
    "hook, file : bare": "<= 1.15",
    "hook, Redis : bare": "<= 1.15",
}
"""What this package is to hold; the other bases stand beside it."""


def serve_exchange(pipe: Connection, limit: int, window: float) -> None:
    """Serve the sandbox with one pending withdrawal until told to stop."""
    from airflow_provider_quoine.sandbox.rest.fixtures import add_user, add_withdrawal
    from airflow_provider_quoine.sandbox.server import SandboxServer
    from airflow_provider_quoine.sandbox.settings import SandboxSettings

    server = SandboxServer(SandboxSettings(pace=None, limit=limit, window=window))
    user = add_user(server.exchange, password="Passw0rd-of-nobody", state="APPROVED")
    withdrawal_id = add_withdrawal(server.exchange, user)
    with server:
        pipe.send({"url": server.url, "id": withdrawal_id, "key": (str(user.user_id), user.api_secret)})
        pipe.recv()
        state = server.control.state()
    pipe.send(
        {
            "times": [datetime.fromisoformat(request["at"]).timestamp() for request in state["requests"]],
            "busiest": state["rate_limit"]["busiest_window"],
            "refused": state["rate_limit"]["refused"],
        }
    )


def open_client(exchange: dict[str, Any], base: str, folder: str, redis_url: str, priority: int) -> Any:
    """Open a client that takes its slots from a base."""
    from airflow_provider_quoine.exchange.rest.auth import ApiAuth
    from airflow_provider_quoine.exchange.rest.client import QuoineClient
    from benchmarks.budget_bases import BASES

    budget = BASES[base](Path(folder), redis_url, Rules(limit=LIMIT, window=WINDOW))
    auth = ApiAuth(*exchange["key"])
    return QuoineClient(
        base_url=exchange["url"],
        auth=auth,
        connect_timeout=10,
        read_timeout=30,
        budget=budget,
        priority=Priority(priority),
    )


def ask(pipe: Connection, exchange: dict[str, Any], base: str, folder: str, redis_url: str, priority: int) -> None:
    """Ask the exchange as often as the budget lets it, from the time told until the time told."""
    from airflow_provider_quoine.exchange.errors import QuoineError

    with open_client(exchange, base, folder, redis_url, priority) as client:
        pipe.send("ready")
        begin, end = pipe.recv()
        time.sleep(max(0.0, begin - time.time()))
        answered = 0
        while time.time() < end:
            try:
                client.get_withdrawal(withdrawal_id=exchange["id"])
            except QuoineError:
                continue
            answered += time.time() < end
        pipe.send(answered)
    # pyrate-limiter leaves a thread that would hold the process.
    os._exit(0)


def hurry(pipe: Connection, exchange: dict[str, Any], base: str, folder: str, redis_url: str) -> None:
    """Ask urgently now and then while others ask; tell how long each waited for its slot."""
    from airflow_provider_quoine.exchange.errors import QuoineError

    with open_client(exchange, base, folder, redis_url, Priority.URGENT) as client:
        pipe.send("ready")
        begin, end = pipe.recv()
        # Once the others have used a whole window.
        time.sleep(max(0.0, begin + 1.1 * WINDOW - time.time()))
        waits = []
        while time.time() < end - 1:
            began = time.monotonic()
            slot = client.take_slot()
            waits.append(time.monotonic() - began)
            try:
                client.get_withdrawal(withdrawal_id=exchange["id"], slot=slot)
            except QuoineError:
                continue
            time.sleep(0.7)
        pipe.send(waits)
    os._exit(0)


class Group:
    """Processes, each with a pipe to it."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._all: list[tuple[Any, Connection]] = []

    def start(self, work: Callable[..., None], *arguments: Any, session: bool = False) -> Connection:
        """Start one; give this side of its pipe."""
        here, there = self._context.Pipe()
        target, given = (_in_session, (work, there, *arguments)) if session else (work, (there, *arguments))
        process = self._context.Process(target=target, args=given, daemon=True)
        process.start()
        self._all.append((process, here))
        return here

    def stop(self) -> None:
        """Wait for all to end."""
        for process, pipe in self._all:
            process.join(timeout=30)
            process.kill()
            pipe.close()


def _in_session(work: Callable[..., None], pipe: Connection, *arguments: Any) -> None:
    os.setsid()
    work(pipe, *arguments)


def share(base: str, priority: Priority, urgent: bool) -> Figures:
    """
    Let processes ask as fast as they may for some windows, each in a process group of its own.

    :param urgent: whether one more asks urgently now and then.
    """
    group = Group()
    with tempfile.TemporaryDirectory() as folder, RedisServer() as redis:
        server = group.start(serve_exchange, LIMIT, WINDOW)
        exchange = server.recv()
        given = (exchange, base, folder, redis.url)
        askers = [group.start(ask, *given, int(priority), session=True) for _ in range(PROCESSES)]
        rush = group.start(hurry, *given, session=True) if urgent else None
        pipes = [*askers, *([rush] if rush else [])]
        for pipe in pipes:
            pipe.recv()
        begin = time.time() + 0.5
        end = begin + WINDOWS * WINDOW
        for pipe in pipes:
            pipe.send((begin, end))
        counts = [pipe.recv() for pipe in askers]
        waits = rush.recv() if rush else []
        server.send("stop")
        seen = server.recv()
        group.stop()
    used = sum(begin <= at < end for at in seen["times"]) - seen["refused"]
    figures: Figures = {
        "busiest window, worst": seen["busiest"],
        "answers 429, worst": seen["refused"],
        "use %": 100 * used / (LIMIT * WINDOWS),
        "busiest : idlest": max(counts) / min(counts) if min(counts) else math.inf,
    }
    figures["the same, worst"] = figures["busiest : idlest"]
    if waits:
        figures["longest urgent wait, slots"] = max(waits) / (WINDOW / LIMIT)
    return figures


def cost(base: str, redis_url: str) -> Figures:
    """Take slots that are free, with a whole window of them in the book."""
    from benchmarks.budget_bases import BASES

    with tempfile.TemporaryDirectory() as folder:
        # As many are forgotten as are taken: a full book, and never a wait.
        rules = Rules(limit=LIMIT, window=0.2) if base.startswith("ours") else Rules(limit=100_000, window=60.0)
        budget = BASES[base](Path(folder), redis_url, rules)
        times = []
        for _ in range(1500):
            began = time.perf_counter()
            budget.acquire(priority=Priority.URGENT)
            took = time.perf_counter() - began
            if took < 0.002:
                times.append(took)
    return {"us per slot": 1e6 * statistics.median(times)}


def whole_hook(redis_url: str) -> Figures:
    """Look a withdrawal up by a bare session, by the hook without and with its budget, in turns."""
    group = Group()
    server = group.start(serve_exchange, 1_000_000, 300.0)
    figures = _whole_hook(server.recv(), redis_url)
    server.send("stop")
    server.recv()
    group.stop()
    return figures


def _whole_hook(exchange: dict[str, Any], redis_url: str) -> Figures:
    import requests

    from airflow_provider_quoine.exchange.rest.auth import ApiAuth
    from airflow_provider_quoine.hooks.quoine import QuoineHook

    login, password = exchange["key"]
    connection = {"conn_type": "quoine", "host": exchange["url"], "login": login, "password": password}
    # About 300 slots are in each book, and never a wait.
    connection["extra"] = {"request_limit": 400, "request_window": 1.3}
    os.environ["AIRFLOW_CONN_BY_FILE"] = json.dumps(connection)
    connection["extra"]["budget_redis_conn_id"] = "redis"
    os.environ["AIRFLOW_CONN_BY_REDIS"] = json.dumps(connection)
    os.environ["AIRFLOW_CONN_REDIS"] = json.dumps(
        {"conn_type": "redis", "host": "127.0.0.1", "port": int(redis_url.rpartition(":")[2].partition("/")[0])}
    )
    session, url = requests.Session(), f"{exchange['url']}/btc_withdrawals/{exchange['id']}"
    bare_auth = ApiAuth(login, password)

    def bare() -> None:
        answer = session.get(url, auth=bare_auth, timeout=(10, 30), headers={"Accept": "application/json"})
        answer.raise_for_status()
        answer.json()

    by_file, by_redis = QuoineHook("by_file").get_conn(), QuoineHook("by_redis").get_conn()
    ways: dict[str, Callable[[], object]] = {
        "bare session": bare,
        "hook, file": lambda: by_file.get_withdrawal(withdrawal_id=exchange["id"]),
        "hook, Redis": lambda: by_redis.get_withdrawal(withdrawal_id=exchange["id"]),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(600):
        for way, call in ways.items():
            began = time.perf_counter()
            call()
            times[way].append(time.perf_counter() - began)
    medians = {way: 1e6 * statistics.median(each) for way, each in times.items()}
    ratios = {f"{way} : bare": medians[way] / medians["bare session"] for way in ("hook, file", "hook, Redis")}
    return {**{f"{way}, us": each for way, each in medians.items()}, **ratios}


def medians(label: str, measure: Callable[[], Figures], runs: int) -> Figures:
    """Measure a few times; what is the worst or the longest is so of all runs."""
    seen = []
    for _ in range(runs):
        seen.append(measure())
        tell(label, seen[-1])
    choose = {name: max if "worst" in name or "longest" in name else statistics.median for name in seen[0]}
    return {name: choose[name](each[name] for each in seen) for name in seen[0]}


def show(title: str, rows: dict[str, Figures]) -> None:
    """Print figures side by side, and what this package's are to hold."""
    print(f"\n{title}")
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = {label: {name: f"{figure:.2f}" for name, figure in row.items()} for label, row in rows.items()}
    for label, row in {"": {name: name for name in names}, **cells, "to hold": BOUNDS}.items():
        print(f"{label:<26}" + "".join(f"{row.get(name, ''):>28}" for name in names), flush=True)


def main() -> None:
    """Run what was asked for."""
    from benchmarks.budget_bases import BASES

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=["cost", "hook", "share"], help="may be repeated")
    parser.add_argument("--base", action="append", choices=list(BASES), metavar="BASE", help="may be repeated")
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    what, bases = given.only or ["cost", "hook", "share"], given.base or list(BASES)
    with tempfile.TemporaryDirectory() as home, RedisServer() as redis:
        os.environ["AIRFLOW_HOME"] = home
        if "cost" in what:
            rows = {base: medians(base, partial(cost, base, redis.url), given.runs) for base in bases}
            show("What a slot costs, no other process there", rows)
        if "hook" in what:
            us = "this package"
            show("One look-up", {us: medians(us, partial(whole_hook, redis.url), given.runs)})
        if "share" in what:
            rows = {
                label: medians(label, partial(share, *kind), given.runs)
                for base in bases
                for label, kind in _kinds(base)
            }
            show(f"{PROCESSES} processes, {WINDOWS} windows of {LIMIT} in {WINDOW:g} s", rows)


def _kinds(base: str) -> list[tuple[str, tuple[str, Priority, bool]]]:
    # Only ours tell them apart.
    if base.startswith("ours"):
        return [(base, (base, Priority.NORMAL, False)), (f"{base}, polling", (base, Priority.POLLING, True))]
    return [(base, (base, Priority.POLLING, True))]


if __name__ == "__main__":
    main()
