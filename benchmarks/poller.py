"""
5,000 deferred waits in one event loop under the exchange's limit, beside the same with Airflow's HTTP sensor trigger.

While ours wait, one more process looks a withdrawal up urgently now and then, as one that sends a withdrawal does.

Time is scaled down by 100: 300 requests in 3 s instead of 5 minutes, so that a round of 5,000 takes 50 s instead of 84
minutes. Server and waits run in processes of their own. ``python -m benchmarks.poller --help``; the HTTP sensor needs
``apache-airflow-providers-http``. The server for that one has the sandbox's limiter, asks for no signature, and answers
404 until a wait is over, which is what that trigger understands.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import random
import resource
import statistics
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.figures import Figures, tell

LIMIT, WINDOW = 300, 3.0

BOUNDS = {
    "answers 429": "0",
    "longest interval to mean": "<= 1.3",
    "ends not noticed": "0",
    "longest time to notice, rounds": "<= 1",
    "longest hold of the event loop, ms": "<= 50",
    "urgent call's wait, slots: median": "<= 2",
    "urgent call's wait, slots: longest": "<= 2",
}
"""What this package is to hold."""


def serve_exchange(pipe: Connection, waits: int) -> None:
    """Serve the sandbox with so many pending withdrawals of one user, until told to stop."""
    from airflow_provider_quoine.sandbox.rest.fixtures import add_user, add_withdrawal
    from airflow_provider_quoine.sandbox.server import SandboxServer
    from airflow_provider_quoine.sandbox.settings import SandboxSettings

    server = SandboxServer(SandboxSettings(pace=None, limit=LIMIT, window=WINDOW))
    user = add_user(server.exchange, password="Passw0rd-of-nobody", state="APPROVED")
    ids = [add_withdrawal(server.exchange, user) for _ in range(waits)]
    key = {"login": str(user.user_id), "password": user.api_secret}
    extra = {"request_limit": LIMIT, "request_window": WINDOW}
    connection = {"conn_type": "quoine", "host": server.url, **key, "extra": extra}
    with server:
        pipe.send((ids, connection))
        for one in iter(pipe.recv, None):
            server.control.set_withdrawal(one, "processed")
            pipe.send(time.time())
        state = server.control.state()
    visits = [(request["path"].rpartition("/")[2], request["at"]) for request in state["requests"]]
    times = [(one, datetime.fromisoformat(at).timestamp()) for one, at in visits]
    refused = sum(request["status"] == 429 for request in state["requests"])
    pipe.send((times, refused, state["rate_limit"]["busiest_window"]))


def serve_404(pipe: Connection, waits: int) -> None:
    """Serve ``/waits/<id>``: 404 until it is over, 429 beyond the limit, until told to stop."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    from airflow_provider_quoine.sandbox.refusals import Refusal
    from airflow_provider_quoine.sandbox.rest.limiter import RateLimiter

    limiter = RateLimiter(limit=LIMIT, window=WINDOW, clock=time.time)
    over: set[str] = set()
    times: list[tuple[str, float]] = []

    async def answer(request: Request) -> Response:
        one = request.path_params["one"]
        try:
            limiter.admit("everybody")
        except Refusal as refusal:
            return PlainTextResponse(str(refusal.content), status_code=429)
        times.append((one, time.time()))
        return PlainTextResponse("over" if one in over else "not yet", status_code=200 if one in over else 404)

    app = Starlette(routes=[Route("/waits/{one}", answer)])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    pipe.send(([str(number) for number in range(waits)], {"conn_type": "http", "host": f"http://127.0.0.1:{port}"}))
    for one in iter(pipe.recv, None):
        over.add(one)
        pipe.send(time.time())
    refused, busiest = limiter.stats()["refused"], limiter.stats()["busiest_window"]
    pipe.send((list(times), refused, busiest))
    server.should_exit = True
    thread.join()


def our_trigger(one: str, poke_interval: float) -> Any:
    """Make the trigger that a deferred QuoineWithdrawalSensor makes."""
    from airflow_provider_quoine.triggers.polling import QuoineWithdrawalTrigger

    return QuoineWithdrawalTrigger(
        poke_interval=poke_interval,
        quoine_conn_id="exchange",
        credentials_variable=None,
        withdrawal_id=one,
        success_states=("processed",),
        failure_states=("declined",),
    )


def http_trigger(one: str, poke_interval: float) -> Any:
    """Make the trigger that a deferred HttpSensor makes."""
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    return HttpSensorTrigger(endpoint=f"waits/{one}", http_conn_id="exchange", poke_interval=poke_interval)


def wait(
    pipe: Connection, home: str, ids: list[str], connection: dict[str, Any], trigger: str, poke_interval: float
) -> None:
    """Wait for all ids on one event loop until told to stop; tell when each end was noticed, and what it cost."""
    _at_home(home, connection)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    make = {"quoine": our_trigger, "http": http_trigger}[trigger]
    make("0", poke_interval)
    pipe.send(asyncio.run(_wait(pipe, [make(one, poke_interval) for one in ids], ids)))


def hurry(pipe: Connection, home: str, one: str, connection: dict[str, Any]) -> None:
    """Look a withdrawal up urgently now and then until told to stop; tell how long each look waited for its slot."""
    _at_home(home, connection)
    from airflow_provider_quoine.exchange.budget.rules import Priority
    from airflow_provider_quoine.hooks.quoine import QuoineHook

    waits = []
    with QuoineHook("exchange").get_conn(priority=Priority.URGENT) as client:
        while not pipe.poll(0.5):
            began = time.monotonic()
            slot = client.take_slot()
            waits.append(time.monotonic() - began)
            client.get_withdrawal(withdrawal_id=one, slot=slot)
    pipe.send(waits)


def _at_home(home: str, connection: dict[str, Any]) -> None:
    os.environ["AIRFLOW_HOME"] = home
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
    os.environ["AIRFLOW_CONN_EXCHANGE"] = json.dumps(connection)


async def watch_the_loop(holds: list[tuple[float, float]]) -> None:
    """
    Note by how many ms later than asked for the event loop comes round, whatever holds it.

    Beside it what this process, with all its threads, had of the processors meanwhile: the rest of a hold comes from
    the machine, or from a call that blocks.
    """
    while True:
        before, used = time.perf_counter(), time.process_time()
        await asyncio.sleep(0.01)
        holds.append((1000 * (time.perf_counter() - before - 0.01), 1000 * (time.process_time() - used)))


def idle(pipe: Connection) -> None:
    """Run an event loop that has nothing to do: what it suffers comes from the machine."""

    async def idle_until_told() -> float:
        holds: list[tuple[float, float]] = []
        watching = asyncio.create_task(watch_the_loop(holds))
        await asyncio.to_thread(pipe.recv)
        watching.cancel()
        return max(holds)[0]

    pipe.send(asyncio.run(idle_until_told()))


async def _wait(pipe: Connection, triggers: list[Any], ids: list[str]) -> dict[str, Any]:
    noticed: dict[str, float] = {}
    holds: list[tuple[float, float]] = []

    async def first_event(one: str, events: AsyncIterator[Any]) -> None:
        async for _ in events:
            noticed[one] = time.time()

    gc.collect()
    memory, began = _resident_kib(), time.process_time()
    watching = asyncio.create_task(watch_the_loop(holds))
    tasks: list[asyncio.Task[None]] = []

    async def begin() -> None:
        for one, trigger in zip(ids, triggers, strict=True):
            tasks.append(asyncio.create_task(first_event(one, trigger.run())))
            # As Airflow's triggerer does. Where the loop is slow, not all have begun when it is over.
            await asyncio.sleep(0)

    beginning = asyncio.create_task(begin())
    await asyncio.to_thread(pipe.recv)
    beginning.cancel()
    used = time.process_time() - began
    held = _resident_kib() - memory
    watching.cancel()
    errors = Counter(repr(task.exception())[:80] for task in tasks if task.done() and task.exception())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(1)
    holds.sort()
    return {
        "noticed": noticed,
        "waits begun": float(len(tasks)),
        "errors": dict(errors),
        "longest hold of the event loop, ms": holds[-1][0],
        "longest by this process' work, ms": max(map(min, holds)),
        "99.9 % of holds below, ms": holds[int(len(holds) * 0.999)][0],
        "memory per wait, KiB": held / len(tasks),
        "processor seconds": used,
        "tasks left": float(len(asyncio.all_tasks()) - 1),
        "poller threads left": float(sum(each.name.startswith("quoine-poller") for each in threading.enumerate())),
    }


def _resident_kib() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 1024


def measure(trigger: str, *, waits: int, poke_interval: float, rounds: float, ends: int) -> Figures:
    """Wait for some rounds; from the second round on, some waits end at even distances over one round."""
    with tempfile.TemporaryDirectory() as home:
        serve: Callable[..., None] = {"quoine": serve_exchange, "http": serve_404}[trigger]
        server, server_pipe = _start(serve, waits)
        ids, connection = server_pipe.recv()
        waiting, pipe = _start(wait, home, ids, connection, trigger, poke_interval)
        a_round = max(waits * WINDOW / LIMIT, poke_interval)
        # Python and Airflow have to be loaded.
        time.sleep(10)
        watching = {"idle": _start(idle)}
        if trigger == "quoine":
            watching["urgent"] = _start(hurry, home, ids[0], connection)
        time.sleep(a_round)
        ended: dict[str, float] = {}
        # Not the first, which is looked up urgently as well.
        for one in random.Random(1).sample(ids[1:], ends):
            server_pipe.send(one)
            ended[one] = server_pipe.recv()
            time.sleep(a_round / ends)
        time.sleep(a_round * (rounds - 2))
        pipe.send("stop")
        stopped = time.time()
        seen = pipe.recv()
        told = {}
        for name, (_, its_pipe) in watching.items():
            its_pipe.send("stop")
            told[name] = its_pipe.recv()
        server_pipe.send(None)
        times, refused, busiest = server_pipe.recv()
        for process in (server, waiting, *(process for process, _ in watching.values())):
            process.join()
    seen["longest hold of an idle loop, ms"] = told["idle"]
    if "urgent" in told:
        slots = [waited / (WINDOW / LIMIT) for waited in told["urgent"]]
        seen["urgent call's wait, slots: median"] = statistics.median(slots)
        seen["urgent call's wait, slots: longest"] = max(slots)
    return _figures(seen, ended, times, refused, busiest, hurried=ids[0], stopped=stopped, a_round=a_round)


def _start(work: Callable[..., None], *arguments: Any) -> tuple[Any, Connection]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(there, *arguments), daemon=True)
    process.start()
    return process, here


def _figures(
    seen: dict[str, Any],
    ended: dict[str, float],
    times: list[tuple[str, float]],
    refused: int,
    busiest: int,
    *,
    hurried: str,
    stopped: float,
    a_round: float,
) -> Figures:
    if seen["errors"]:
        raise RuntimeError(f"Waits ended with errors: {seen['errors']}")
    began = min(at for _, at in times)
    visits: dict[str, list[float]] = defaultdict(list)
    for one, at in times:
        # The first round is the way in.
        if began + a_round < at < stopped and one != hurried:
            visits[one].append(at)
    gaps = [after - before for each in visits.values() for before, after in pairwise(each)] or [float("nan")]
    delays = sorted(seen["noticed"].get(one, stopped) - at for one, at in ended.items())
    in_rounds = sum(began + a_round < at < stopped for _, at in times)
    return {
        "answers 429": float(refused),
        "busiest window": float(busiest),
        "use of the limit, %": 100 * in_rounds / (stopped - began - a_round) * WINDOW / LIMIT,
        "mean interval between visits, s": statistics.mean(gaps),
        "longest interval to mean": max(gaps) / statistics.mean(gaps),
        "ends not noticed": float(len(ended.keys() - seen["noticed"].keys())),
        "median time to notice, s": statistics.median(delays),
        "longest time to notice, s": delays[-1],
        "longest time to notice, rounds": delays[-1] / max(gaps),
        **{name: value for name, value in seen.items() if isinstance(value, float)},
    }


def main() -> None:
    """Measure and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waits", type=int, default=5000)
    parser.add_argument("--poke-interval", type=float, default=5.0, help="seconds, scaled down as all else")
    parser.add_argument("--rounds", type=float, default=3.2, help="3 and more, for ends to be noticed")
    parser.add_argument("--ends", type=int, default=200, help="waits that end while it is measured")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=["quoine", "http"])
    given = parser.parse_args()
    results: dict[str, list[Figures]] = {trigger: [] for trigger in ("quoine", "http") if given.only in (None, trigger)}
    for _ in range(given.runs):
        for trigger, figures in results.items():
            figures.append(
                measure(
                    trigger,
                    waits=given.waits,
                    poke_interval=given.poke_interval,
                    rounds=given.rounds,
                    ends=given.ends,
                )
            )
            tell(trigger, figures[-1])
    print(f"\n{given.runs} runs; {given.waits} waits, {LIMIT} requests in {WINDOW:g} s")
    columns = [f"{trigger}, {which}" for trigger in results for which in ("median", "highest")]
    print(f"{'':36}" + "".join(f"{column:>16}" for column in [*columns, "to hold"]))
    for name in next(iter(results.values()))[0]:
        every = [[each[name] for each in figures if name in each] for figures in results.values()]
        values = [f"{choose(each):.2f}" if each else "" for each in every for choose in (statistics.median, max)]
        print(f"{name:36}" + "".join(f"{value:>16}" for value in [*values, BOUNDS.get(name, "")]))


if __name__ == "__main__":
    main()
