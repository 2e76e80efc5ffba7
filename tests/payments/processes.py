"""Ledgers in a file or in PostgreSQL, and processes that use one at the same time."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, make_url

from airflow_provider_quoine.exchange.addresses import Network
from airflow_provider_quoine.exchange.amounts import Amount
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.models import WithdrawalOrder
from airflow_provider_quoine.payments.database import open_file, open_server
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.policy import Cap, WithdrawalPolicy
from airflow_provider_quoine.payments.records import Order
from airflow_provider_quoine.payments.refusals import LedgerUnusableError, PaymentRefusedError
from airflow_provider_quoine.payments.schema import Kind, Step
from tests.payments.memory import Memory

PROCESSES = 4
THREADS = 16
"""Of each process."""
ADDRESS = "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"

_barrier: Barrier | None = None


class Processes:
    """Some processes that begin each piece of work at the same moment."""

    def __init__(self) -> None:
        # Forks of one process that has imported what they need, and of nothing else that a test has.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._pool = ProcessPoolExecutor(
            PROCESSES, mp_context=context, initializer=_begin_process, initargs=(context.Barrier(PROCESSES),)
        )

    def run(self, work: Callable[..., list[Any]], *given: Any) -> list[Any]:
        """
        Call a function once in each process, and join the lists that it returns.

        :param work: takes the process's number before what is given.
        """
        return [one for done in self.start(work, *given) for one in done.result()]

    def start(self, work: Callable[..., list[Any]], *given: Any) -> list[Any]:
        """Do as :meth:`run`, but return the futures."""
        return [self._pool.submit(_together, work, number, *given) for number in range(PROCESSES)]

    def stop(self) -> None:
        """End the processes."""
        self._pool.shutdown()


def _begin_process(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _together(work: Callable[..., list[Any]], *given: Any) -> list[Any]:
    assert _barrier is not None
    _barrier.wait(timeout=120)
    return work(*given)


def open_engine(where: str) -> Engine:
    """
    Open a ledger's database as another process would.

    :param where: SQLAlchemy's URL.
    """
    url = make_url(where)
    if url.drivername == "sqlite":
        return open_file(Path(str(url.database)))
    return open_server(url)


def open_ledger(where: str) -> Ledger:
    """Open a ledger that Airflow has not seen yet."""
    return Ledger(open_engine(where), pin=Memory())


def payment(number: int, *, amount: str = "0.05") -> Order:
    """Make one of many payments."""
    return Order(
        exchange="https://exchange",
        kind=Kind.WITHDRAWAL,
        reference=f"invoice-{number}",
        account="25",
        address=ADDRESS,
        amount=Decimal(amount),
    )


def capped(largest: str) -> WithdrawalPolicy:
    """Make a policy whose only bound is a cap per day."""
    return WithdrawalPolicy(
        conn_id="payouts",
        account="25",
        addresses=frozenset({ADDRESS}),
        largest=None,
        smallest=None,
        in_24_hours=Cap(amount=None, number=None),
        per_day=Cap(amount=Amount(largest), number=None),
        timezone="Asia/Tokyo",
        network=Network.MAIN,
        approvals=0,
    )


def in_threads(work: Callable[[int], Any], numbers: Sequence[int]) -> list[Any]:
    """Call a function in many threads at once."""
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(work, numbers))


def numbers_of(process: int) -> range:
    """Return the numbers of a process's payments."""
    return range(process * THREADS, (process + 1) * THREADS)


def withdraw(process: int, where: str, cap: str, refused: Sequence[int], sent: Sequence[int]) -> list[int]:
    """
    Try to send 16 payments at once, under a cap.

    :param refused: those that the exchange refuses.
    :param sent: those that need not be sent any more.
    :return: those that were sent.
    """
    ledger = open_ledger(where)

    def one(number: int) -> bool:
        order, name = payment(number), f"attempt-{number}"
        wanted = WithdrawalOrder.parse(amount=order.amount, address=order.address)
        ledger.prepare(order, actor="task")
        try:
            ledger.start_sending(
                order,
                attempt=name,
                task="task",
                in_flight=timedelta(0),
                # As a task does: read anew in the transaction.
                allow=lambda at: capped(cap).allow(wanted, at),
            )
        except QuoineInputError:
            return False
        return ledger.finish(order, attempt=name, step=Step.REFUSED if number in refused else Step.SENT)

    numbers = [number for number in numbers_of(process) if number not in sent]
    return [number for number, was_sent in zip(numbers, in_threads(one, numbers), strict=True) if was_sent]


def become_sender(process: int, where: str) -> list[int]:
    """Try 16 times at once to become the sender of one payment; return the attempts that did."""
    ledger, order = open_ledger(where), payment(0)

    def one(number: int) -> bool:
        try:
            ledger.prepare(order, actor="task")
            ledger.start_sending(
                order, attempt=f"a-{number}", task="task", in_flight=timedelta(0), allow=lambda _: "policy"
            )
        except PaymentRefusedError:
            return False
        return True

    numbers = numbers_of(process)
    return [number for number, became in zip(numbers, in_threads(one, numbers), strict=True) if became]


def identities(process: int, where: str) -> list[str]:
    """Open a ledger 4 times at once, for the first time; return its identities."""

    def one(_: int) -> str:
        with open_ledger(where).transaction() as at:
            return at.identity

    return in_threads(one, range(4))


def pay_on(process: int, where: str, payments: int, seconds: float) -> list[tuple[int, str]]:
    """
    Go through all payments again and again, as tasks that are retried do, whatever happens to the database.

    :return: each request that was sent: payment and attempt.
    """
    requests: list[tuple[int, str]] = []
    until = time.monotonic() + seconds
    for tries, number in enumerate(itertools.cycle(range(payments))):
        if time.monotonic() > until:
            break
        order, name = payment(number), f"{process}-{tries}"
        try:
            ledger = open_ledger(where)
            ledger.prepare(order, actor="task")
            ledger.start_sending(order, attempt=name, task="task", in_flight=timedelta(0), allow=lambda _: "policy")
            requests.append((number, name))
            ledger.finish(order, attempt=name, step=Step.SENT, exchange_id=name)
        except (LedgerUnusableError, PaymentRefusedError):
            continue
    return requests
