"""
However tries, kills, freezes, clears and lost answers interleave, the exchange carries a request out at most once.

Each try runs the real :class:`SendOnce` in a greenlet that stops before every touch of the outside world: the store,
the clock's check and the exchange. Hypothesis chooses who goes on, who dies and what the exchange does. The store
behaves as Airflow's: a task instance gets a new id for each try, and the old id can neither read nor write.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import greenlet
from hypothesis import event, given, settings
from hypothesis import strategies as st

from airflow_provider_quoine.exchange.errors import (
    QuoineAnswerLostError,
    QuoineConnectionError,
    QuoineError,
    QuoineRefusedError,
)
from airflow_provider_quoine.payments.records import WITHDRAWAL, Step
from airflow_provider_quoine.payments.send_once import SEND_WITHIN_SECONDS, QuoineMustNotSendError, SendOnce

DETAILS = {"amount": "0.5"}


class FencedError(Exception):
    """What Airflow's store answers to a task instance id that is no longer the current one."""


@dataclass
class World:
    """The exchange, Airflow's store, and time."""

    current: int = 0
    records: dict[str, Any] = field(default_factory=dict)
    carried_out: list[str] = field(default_factory=list)
    now: float = 1000.0


@dataclass
class Store:
    """The task state store as one task instance id sees it."""

    world: World
    owner: int

    def get(self, key: str, default: Any = None) -> Any:
        pause()
        return self.world.records.get(key, default) if self.owner == self.world.current else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        pause()
        if self.owner != self.world.current:
            raise FencedError
        if value["step"] == Step.SENDING:
            # Airflow's API server checks the id and then writes; a successor may slip in between.
            pause()
        self.world.records[key] = value


def pause() -> None:
    """Hand over to the test, which decides when this try goes on."""
    parent = greenlet.getcurrent().parent
    if parent is not None:
        parent.switch()


def lost(world: World, carry_out: bool) -> str:
    if carry_out:
        world.carried_out.append("withdrawal")
    raise QuoineAnswerLostError("the answer was lost")


def answered(world: World) -> str:
    world.carried_out.append("withdrawal")
    return f"w{len(world.carried_out)}"


def refused(world: World) -> str:
    raise QuoineRefusedError("no", status=422, message="not_enough_fund", body="")


def unreachable(world: World) -> str:
    raise QuoineConnectionError("refused")


EXCHANGE: dict[str, Callable[[World], str]] = {
    "answers": answered,
    "is lost after the work": lambda world: lost(world, carry_out=True),
    "is lost before the work": lambda world: lost(world, carry_out=False),
    "refuses": refused,
    "is unreachable": unreachable,
}


class Try:
    """One try of the task, stopped before each touch of the outside world."""

    def __init__(self, world: World, number: int, exchange: str) -> None:
        self.world, self.number, self.exchange = world, number, exchange
        self.end: str | None = None
        self.thread = greenlet.greenlet(self._run)

    def step(self) -> None:
        if not self.thread.dead:
            self.thread.switch()

    def kill(self) -> None:
        """SIGKILL: nothing of the try runs any more, not even a handler."""
        self.thread = greenlet.greenlet(lambda: None)
        self.thread.switch()
        self.end = "killed"

    def _run(self) -> None:
        once = SendOnce(
            store=Store(self.world, self.number),
            kind=WITHDRAWAL,
            try_number=self.number,
            resolution_steps="",
            clock=lambda: self.world.now,
        )
        try:
            if once.begin(DETAILS)["step"] == Step.SENT:
                self.end = "sent before"
                return
            once.send(self._post, identify=str, in_flight_seconds=0)
            self.end = "sent"
        except (QuoineMustNotSendError, QuoineError, FencedError) as error:
            self.end = type(error).__name__

    def _post(self, in_time: Callable[[], None]) -> str:
        pause()
        in_time()
        return EXCHANGE[self.exchange](self.world)


@dataclass(frozen=True)
class Life:
    """
    What befalls one try, and what happens after it.

    :param exchange: what the exchange does with its request.
    :param steps: how far it goes at first; a whole life takes about ten.
    :param fate: then it runs on, is killed, or is frozen and wakes up when everybody else is done.
    :param before_next: what a person or Airflow does before the next try starts.
    """

    exchange: str
    steps: int
    fate: str
    before_next: str


LIVES = st.lists(
    st.builds(
        Life,
        exchange=st.sampled_from(sorted(EXCHANGE)),
        steps=st.integers(0, 10),
        fate=st.sampled_from(["runs on", "is killed", "is frozen"]),
        before_next=st.sampled_from(["clear", "wipe and clear", "declare that it does not exist and clear"]),
    ),
    min_size=1,
    max_size=5,
)


def declare_that_it_does_not_exist(world: World) -> None:
    """A person looks at the exchange only after the bound, as the steps say, and tells the truth."""
    world.now += 2 * SEND_WITHIN_SECONDS
    if world.records.get(WITHDRAWAL.key, {}).get("step") in (Step.SENDING, Step.UNKNOWN) and not world.carried_out:
        world.records[WITHDRAWAL.key] = {**DETAILS, "step": Step.PREPARED}


#: Sent, refused, surely not sent, stopped with words, fenced off as a zombie, or killed.
ENDS = {
    "sent",
    "sent before",
    "QuoineRefusedError",
    "QuoineConnectionError",
    "QuoineTooLateError",
    "QuoineMustNotSendError",
    "FencedError",
    "killed",
}

BEFORE_NEXT: dict[str, Callable[[World], None]] = {
    "clear": lambda world: None,
    "wipe and clear": lambda world: world.records.clear(),
    "declare that it does not exist and clear": declare_that_it_does_not_exist,
}


@settings(max_examples=2000, deadline=None)
@given(lives=LIVES, waking=st.randoms(use_true_random=False))
def test_at_most_one_is_carried_out_and_none_is_lost(lives: list[Life], waking: random.Random) -> None:
    world = World()
    tries: list[Try] = []
    for life in lives:
        world.current += 1
        one = Try(world, world.current, life.exchange)
        tries.append(one)
        for _ in range(life.steps):
            one.step()
        if life.fate == "is killed":
            one.kill()
        elif life.fate == "runs on":
            run_to_end(one)
        BEFORE_NEXT[life.before_next](world)
    frozen = [one for one in tries if not one.thread.dead]
    while frozen:
        one = waking.choice(frozen)
        one.step()
        frozen = [one for one in frozen if not one.thread.dead]

    event(f"carried out {len(world.carried_out)}")
    assert len(world.carried_out) <= 1
    assert {one.end for one in tries} <= ENDS
    record = world.records.get(WITHDRAWAL.key)
    if record and record["step"] in (Step.UNKNOWN, Step.REFUSED):
        assert record["reason"]
    if world.carried_out:
        # Not lost: an id is recorded, or what is recorded (or its absence) stops whoever comes next.
        world.current += 1
        successor = Try(world, world.current, "answers")
        run_to_end(successor)
        assert successor.end in ("sent before", "QuoineMustNotSendError")
        assert len(world.carried_out) == 1


def run_to_end(one: Try) -> None:
    while not one.thread.dead:
        one.step()
