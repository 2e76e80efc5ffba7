"""A cap holds however many withdrawals begin at once; and as many are sent as fit."""

from __future__ import annotations

import os
from datetime import timedelta
from decimal import Decimal

import pytest

from tests.payments.processes import PROCESSES, THREADS, Processes, open_ledger, payment, withdraw

ROUNDS = int(os.environ.get("QUOINE_CAP_ROUNDS", "2"))
"""Of each kind of database; 100 in the long run."""

CAP = "1"
FITTING = int(Decimal(CAP) / payment(0).amount)
ALL = range(PROCESSES * THREADS)


@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.long
def test_64_withdrawals_of_4_processes_fill_a_daily_cap_and_never_exceed_it(
    where: str, processes: Processes, round_: int
) -> None:
    sent = processes.run(withdraw, where, CAP, (), ())
    assert len(sent) == FITTING
    assert _reserved(where) == Decimal(CAP)


@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.long
def test_what_the_exchange_refuses_is_freed_for_others(where: str, processes: Processes, round_: int) -> None:
    # The exchange refuses every second one. What was over the cap meanwhile is tried again by its task.
    refused = range(0, len(ALL), 2)
    sent: list[int] = []
    for _ in range(2):
        sent += processes.run(withdraw, where, CAP, refused, sent)
        sent = [number for number in sent if number not in refused]
        assert _reserved(where) == len(sent) * payment(0).amount <= Decimal(CAP)
    sent += processes.run(withdraw, where, CAP, (), sent)
    assert len(sent) == FITTING
    assert _reserved(where) == Decimal(CAP)


def _reserved(where: str) -> Decimal:
    with open_ledger(where).transaction() as at:
        return at.reserved(account=payment(0).account, since=at.now - timedelta(days=1))[1]
