"""Plays the cells of the fault matrix as runs of a real Airflow, all at the same time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.system.money.matrix import WAY_OUT, End, Fault, FollowUp
from tests.system.money.world import PARALLELISM, POST, Run, World

#: Where pytest keeps what was played, to print it in the end.
PLAYED = pytest.StashKey[dict["Cell", "Outcome"]]()
SECONDS_FOR_ALL = 900
#: Some workers must stay alive: LocalExecutor replaces dead ones only after it has handed over the next tasks, and with
#: nobody at the other end its pipe fills up and the scheduler stands still (seen with Airflow 3.3.2).
DEATHS_AT_ONCE = PARALLELISM - 2
NO_RECORD = "there is no record of the tries before it"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """
    One fault and what follows.

    :param fault: what befalls the first try
    :param follow_up: what happens after it
    :param wiped: whether the task state store is wiped before the clear, as later versions of Airflow do
    """

    fault: Fault
    follow_up: FollowUp
    wiped: bool = False

    def __str__(self) -> str:
        return f"{self.fault.name}, {self.follow_up}{', record wiped' if self.wiped else ''}"

    @property
    def right_end(self) -> End:
        """How it must end."""
        course = self.fault.course
        return course.end_without_record(self.follow_up) if self.wiped else course.end(self.follow_up)

    @property
    def deadly(self) -> bool:
        """Whether it kills a worker."""
        return "moment" in self.fault.conf

    @property
    def right_words(self) -> tuple[str, ...]:
        """What the log of a last try that failed must say."""
        return (NO_RECORD, WAY_OUT) if self.wiped else (self.fault.course.words,)


@dataclass(frozen=True)
class Outcome:
    """
    How a cell ended.

    :param end: what was seen
    :param log: of the last try
    """

    end: End
    log: str


def play(world: World, cells: list[Cell]) -> dict[Cell, Outcome]:
    """
    Play cells to their ends.

    :raises TimeoutError: if some do not end
    """
    outcomes: dict[Cell, Outcome] = {}
    unstarted = list(cells)
    waiting: dict[Run, tuple[Cell, Iterator[Run]]] = {}
    deadline = time.monotonic() + SECONDS_FOR_ALL
    while unstarted or waiting:
        if time.monotonic() > deadline:
            missing = ", ".join(str(cell) for cell in cells if cell not in outcomes)
            raise TimeoutError(f"After {SECONDS_FOR_ALL} s these have not ended: {missing}")
        for cell in _startable(unstarted, [cell for cell, _ in waiting.values()]):
            unstarted.remove(cell)
            life = _life(world, cell, outcomes)
            waiting[next(life)] = cell, life
        time.sleep(1)
        for run in world.ended({run.dag_id for run in waiting}) & waiting.keys():
            cell, life = waiting.pop(run)
            if again := next(life, None):
                waiting[again] = cell, life
    return outcomes


def _startable(unstarted: list[Cell], playing: list[Cell]) -> list[Cell]:
    """Choose what may start now: all that kills no worker, and some of the rest."""
    deadly = [cell for cell in unstarted if cell.deadly]
    room = DEATHS_AT_ONCE - sum(cell.deadly for cell in playing)
    return [*deadly[: max(0, room)], *(cell for cell in unstarted if not cell.deadly)]


def _life(world: World, cell: Cell, outcomes: dict[Cell, Outcome]) -> Iterator[Run]:
    """Start a cell's run, and give it whenever it is to be waited for."""
    user = world.next_user()
    if cell.fault.order:
        world.sandbox.fault(endpoint=POST, request_contains=user.amount, **cell.fault.order)
    retries = int(cell.follow_up != FollowUp.CLEAR)
    run = world.trigger(f"withdraw_{retries}", user, **cell.fault.conf)
    yield run
    if cell.follow_up != FollowUp.RETRY:
        if cell.wiped:
            world.wipe_record(run)
        world.clear(run)
        yield run
    task = world.task(run)
    end = End(task["state"], task["try_number"], len(world.withdrawals(user)))
    outcomes[cell] = Outcome(end, world.log(run, task["try_number"]))
