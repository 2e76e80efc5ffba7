"""
The ledger of payments: what it adds to a withdrawal, and what many payments in it cost.

A withdrawal in a SQLite file and in PostgreSQL (both sync each commit to the disk), beside the sandbox's own answer to
one; then the time and the size of many payments, and what a withdrawal, a look-up and a check of the whole chain cost
with them. ``python -m benchmarks.ledger --help``. It needs PostgreSQL's programs. All figures are medians of the runs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, insert, text, update

from airflow_provider_quoine.exchange.addresses import Network
from airflow_provider_quoine.exchange.amounts import Amount
from airflow_provider_quoine.exchange.models import WithdrawalOrder
from airflow_provider_quoine.payments.chain import hash_of
from airflow_provider_quoine.payments.database import open_file, open_server
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.policy import Cap, WithdrawalPolicy
from airflow_provider_quoine.payments.records import Head, Order
from airflow_provider_quoine.payments.schema import EVENTS, LEDGER, PAYMENTS, Kind, Step
from benchmarks.figures import Figures, tell
from tools.postgres_server import PostgresServer

WITHDRAWALS = 50
"""Of each run."""

YEAR = timedelta(days=365)
ADDRESS = "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"
CAP = Cap(amount=Amount("1000000"), number=1_000_000)
POLICY = WithdrawalPolicy(
    conn_id="payouts",
    account="25",
    addresses=frozenset({ADDRESS}),
    largest=Amount("1"),
    smallest=None,
    in_24_hours=CAP,
    per_day=CAP,
    timezone="Asia/Tokyo",
    network=Network.MAIN,
    approvals=0,
)
PAYMENT = Order(
    exchange="https://exchange",
    kind=Kind.WITHDRAWAL,
    reference="",
    account="25",
    address=ADDRESS,
    amount=Decimal("0.001"),
)

ATTEMPT = "0" * 32

Open = Callable[[], Engine]


class Forgetful:
    """Airflow's memory, which would be a request to Airflow: its cost is not the ledger's."""

    def read(self) -> Head | None:
        """Return nothing."""

    def write(self, head: Head) -> None:
        """Forget it."""


def withdraw(open_engine: Open, prefix: str, run: int) -> Figures:
    """Take some withdrawals through the ledger, as a task does, with nothing sent."""
    wanted = WithdrawalOrder.parse(amount=PAYMENT.amount, address=ADDRESS)
    opened, whole = [], []
    for number in range(WITHDRAWALS):
        order = replace(PAYMENT, reference=f"{prefix}-{run}-{number}")
        began = time.perf_counter()
        ledger = Ledger(open_engine(), pin=Forgetful())
        opened.append(time.perf_counter() - began)
        ledger.prepare(order, actor="task")
        ledger.start_sending(
            order,
            attempt="a",
            task="task",
            in_flight=timedelta(minutes=2),
            allow=lambda at: POLICY.allow(wanted, at),
        )
        assert ledger.finish(order, attempt="a", step=Step.SENT, exchange_id=f"{abs(hash(prefix))}{run}{number:04}")
        whole.append(time.perf_counter() - began)
    return {"ledger, ms": 1e3 * statistics.median(whole), "of that opening it, ms": 1e3 * statistics.median(opened)}


def serve(pipe: Connection) -> None:
    """Serve the sandbox with one user until told to stop."""
    from airflow_provider_quoine.sandbox.rest.fixtures import add_user
    from airflow_provider_quoine.sandbox.server import SandboxServer
    from airflow_provider_quoine.sandbox.settings import SandboxSettings

    server = SandboxServer(SandboxSettings(pace=None, limit=1_000_000))
    user = add_user(server.exchange, password="Passw0rd-of-nobody", state="APPROVED")
    with server:
        pipe.send((server.url, str(user.user_id), user.api_secret))
        pipe.recv()


def answer_of_sandbox(_: int) -> Figures:
    """Send some withdrawals to the sandbox, without a ledger."""
    from airflow_provider_quoine.exchange.rest.auth import ApiAuth
    from airflow_provider_quoine.exchange.rest.client import QuoineClient
    from airflow_provider_quoine.sandbox.control import SandboxControl

    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    server = spawn.Process(target=serve, args=(theirs,))
    server.start()
    url, user_id, secret = ours.recv()
    control, order, times = SandboxControl(url), WithdrawalOrder.parse(amount="0.001", address=ADDRESS), []
    with QuoineClient(base_url=url, auth=ApiAuth(user_id, secret), connect_timeout=10, read_timeout=30) as client:
        for _ in range(WITHDRAWALS):
            client.request_auth_code(user_id=user_id)
            code = control.latest_code(user_id)
            began = time.perf_counter()
            client.create_withdrawal(order=order, auth_code=code)
            times.append(time.perf_counter() - began)
    ours.send("stop")
    server.join()
    return {"sandbox's answer, ms": 1e3 * statistics.median(times)}


def fill(open_engine: Open, payments: int) -> Figures:
    """Put many sent payments of a year into a ledger, each with three events, faster than by its own steps."""
    engine = open_engine()
    with Ledger(engine, pin=Forgetful()).transaction() as at:
        head, end = at.head, at.now
    number, before = head.number, head.hash
    for start in range(0, payments, 1000):
        rows, events = [], []
        for each in range(start, min(start + 1000, payments)):
            order = replace(PAYMENT, reference=f"invoice-{each}")
            now = (end - YEAR * (payments - each) / payments).isoformat(timespec="microseconds")
            rows.append(_row(order, now, exchange_id=str(1_000_000 + each)))
            sent = {"exchange_id": rows[-1]["exchange_id"], "state": "", "reason": ""}
            sending = {"policy": POLICY.fingerprint, "attempt": ATTEMPT, "in_doubt_until": now}
            for step, data in ((Step.PREPARED, order.details), (Step.SENDING, sending), (Step.SENT, sent)):
                number += 1
                event = _event(number, order.reference, step, now, before, data)
                before = event["hash"]
                events.append(event)
        with engine.begin() as connection:
            connection.execute(insert(PAYMENTS), rows)
            connection.execute(insert(EVENTS), events)
            connection.execute(update(LEDGER).values(head=number, head_hash=before))
    return {f"{payments} payments, MB": size(engine) / 1e6}


def _row(order: Order, now: str, *, exchange_id: str) -> dict[str, Any]:
    times = {"reserved_at": now, "created_at": now, "changed_at": now, "in_doubt_until": None}
    fixed = {"exchange": order.exchange, "kind": str(order.kind), "account": order.account, "address": order.address}
    sent = {"step": str(Step.SENT), "owner": ATTEMPT, "exchange_id": exchange_id, "policy": POLICY.fingerprint}
    return {
        "reference": order.reference,
        "user_id": order.user_id,
        "satoshis": order.satoshis,
        "reason": "",
        "task": "a_dag.a_task",
        **times,
        **fixed,
        **sent,
    }


def _event(number: int, reference: str, step: Step, now: str, before: str, data: dict[str, str]) -> dict[str, Any]:
    event = {
        "number": number,
        "at": now,
        "exchange": PAYMENT.exchange,
        "kind": str(PAYMENT.kind),
        "reference": reference,
        "event": str(step),
        "actor": "a_dag.a_task",
        "data": json.dumps(data, sort_keys=True),
        "hash_before": before,
    }
    return {**event, "hash": hash_of(event)}


def size(engine: Engine) -> int:
    """Return a database's bytes."""
    if engine.dialect.name == "sqlite":
        folder = Path(str(engine.url.database)).parent
        return sum(file.stat().st_size for file in folder.iterdir())
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())


def look_up(open_engine: Open, payments: int) -> Figures:
    """Find a payment, and check the whole chain."""
    ledger = Ledger(open_engine(), pin=Forgetful())
    began = time.perf_counter()
    ledger.find(replace(PAYMENT, reference=f"invoice-{payments // 2}"))
    found, before = time.perf_counter(), forget_peak()
    assert ledger.faults() == []
    return {
        "look-up, ms": 1e3 * (found - began),
        "whole chain, s": time.perf_counter() - found,
        "memory for it, MB": (memory("VmHWM") - before) / 1024,
    }


def memory(kind: str) -> int:
    """Return this process's memory in KiB: VmRSS is what it has now, VmHWM the most it had."""
    return int(Path("/proc/self/status").read_text().split(f"{kind}:")[1].split()[0])


def forget_peak() -> int:
    """Let the most memory that this process had be what it has now, in KiB. A new process begins with its parent's."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def in_new_process(measure: Callable[[], Figures], _: int) -> Figures:
    """Measure in a process that has used no memory yet."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure).result()


def medians(what: str, measure: Callable[[int], Figures], runs: int) -> None:
    """Measure a few times, and tell the medians."""
    seen = [measure(number) for number in range(runs)]
    tell(what, {name: statistics.median(each[name] for each in seen) for name in seen[0]})


def main() -> None:
    """Measure both databases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--payments", type=int, default=10_000, help="that a full ledger has")
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, PostgresServer(fsync=True) as server:
        places: dict[str, Open] = {
            "SQLite": partial(open_file, Path(folder) / "ledger.db"),
            "PostgreSQL": partial(open_server, server.new_database()),
        }
        medians("sandbox", answer_of_sandbox, given.runs)
        for what, place in places.items():
            medians(f"{what}, empty", partial(withdraw, place, "empty"), given.runs)
            tell(f"{what}, filled", fill(place, given.payments))
            medians(f"{what}, full", partial(withdraw, place, "full"), given.runs)
            medians(f"{what}, full", partial(in_new_process, partial(look_up, place, given.payments)), given.runs)


if __name__ == "__main__":
    main()
