"""Runs the cells of the fault matrix on a real Airflow, many at the same time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.airflow_version import CLEAR_DISCARDS_TASK_STATE
from tests.system.money.environment import POST, Environment, Run
from tests.system.money.fault_matrix import FAULTS, End, Fault, FollowUp

TIMEOUT_SECONDS = 900
#: Some workers must stay alive: LocalExecutor replaces dead workers only after it has sent the next tasks. If no worker
#: is left to read them, its pipe fills up and the scheduler blocks (seen with Airflow 3.3.2).
MAX_KILLS_AT_ONCE = 8
#: The scheduler looks at every open run again and again, so each costs more the more there are.
MAX_OTHERS_AT_ONCE = 6


@dataclass(frozen=True, kw_only=True)
class Cell:
    """
    One fault and the reaction to it.

    :param fault: fault in the first try
    :param follow_up: reaction to the end of the first try
    :param wiped: whether the clear takes the task's state with it, as Airflow's does from 3.4 on unless told otherwise
    """

    fault: Fault
    follow_up: FollowUp
    wiped: bool = False

    def __str__(self) -> str:
        return f"{self.fault.name}, {self.follow_up}{', state wiped' if self.wiped else ''}"

    @property
    def expected_end(self) -> End:
        """The expected end."""
        # The same whether or not Airflow remembers anything: the ledger does.
        return self.fault.expectation.end(self.follow_up)

    @property
    def kills_worker(self) -> bool:
        """Whether the fault kills a worker."""
        return "moment" in self.fault.conf

    @property
    def expected_log_texts(self) -> tuple[str, ...]:
        """Texts expected in the log of a last try that failed."""
        return (self.fault.expectation.log_text,)


CELLS = [
    *(Cell(fault=fault, follow_up=follow_up) for fault in FAULTS for follow_up in FollowUp),
    *(
        Cell(fault=fault, follow_up=follow_up, wiped=True)
        for fault in FAULTS
        for follow_up in (FollowUp.CLEAR, FollowUp.BOTH)
    ),
]


@dataclass(frozen=True)
class Outcome:
    """
    The actual end of a cell.

    :param end: the end
    :param log: log of the last try
    """

    end: End
    log: str


def run_cells(environment: Environment, cells: list[Cell]) -> dict[Cell, Outcome]:
    """
    Run cells to their ends.

    :param environment: the Airflow and the exchange
    :param cells: the cells
    :raises TimeoutError: if some do not end in time
    """
    outcomes: dict[Cell, Outcome] = {}
    unstarted = list(cells)
    waiting: dict[Run, tuple[Cell, Iterator[Run]]] = {}
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while unstarted or waiting:
        if time.monotonic() > deadline:
            missing = ", ".join(str(cell) for cell in cells if cell not in outcomes)
            raise TimeoutError(f"After {TIMEOUT_SECONDS} s these have not ended: {missing}")
        for cell in _startable(unstarted, [cell for cell, _ in waiting.values()]):
            unstarted.remove(cell)
            steps = _steps(environment, cell, outcomes)
            waiting[next(steps)] = cell, steps
        time.sleep(1)
        for run in environment.ended_runs().keys() & waiting.keys():
            cell, steps = waiting.pop(run)
            if again := next(steps, None):
                waiting[again] = cell, steps
    return outcomes


def _startable(unstarted: list[Cell], running: list[Cell]) -> list[Cell]:
    """Choose the cells that may start now: some that kill a worker, and some of the others."""
    startable: list[Cell] = []
    for kills, most in ((True, MAX_KILLS_AT_ONCE), (False, MAX_OTHERS_AT_ONCE)):
        room = most - sum(cell.kills_worker == kills for cell in running)
        startable += [cell for cell in unstarted if cell.kills_worker == kills][: max(0, room)]
    return startable


def _steps(environment: Environment, cell: Cell, outcomes: dict[Cell, Outcome]) -> Iterator[Run]:
    """Run a cell; yield its run whenever the run's end has to be awaited."""
    user = environment.next_user()
    if cell.fault.sandbox_fault:
        environment.sandbox.fault(endpoint=POST, request_contains=user.amount, **cell.fault.sandbox_fault)
    retries = int(cell.follow_up != FollowUp.CLEAR)
    run = environment.trigger(f"withdraw_{retries}", user, **cell.fault.conf)
    yield run
    if cell.follow_up != FollowUp.RETRY:
        if cell.wiped and not CLEAR_DISCARDS_TASK_STATE:
            environment.wipe_state(run)
        environment.clear(run, keep_state=not cell.wiped)
        yield run
    task = environment.task(run)
    end = End(task["state"], task["try_number"], len(environment.withdrawals(user)))
    outcomes[cell] = Outcome(end, environment.log(run, task["try_number"]))
