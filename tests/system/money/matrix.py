"""What goes wrong while a withdrawal is sent, and the right end of it: the fault matrix as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.system.money.strikes import Moment


class FollowUp(StrEnum):
    """What happens after the first try."""

    RETRY = "retry by Airflow"
    CLEAR = "clear by a person"
    BOTH = "both"


@dataclass(frozen=True)
class End:
    """
    How a task ends.

    :param state: Airflow's
    :param tries: how many there were
    :param withdrawals: how many the exchange carried out
    """

    state: str
    tries: int
    withdrawals: int

    def __str__(self) -> str:
        tries = "1 try" if self.tries == 1 else f"{self.tries} tries"
        return f"{self.withdrawals} sent, {self.state}, {tries}"


@dataclass(frozen=True, kw_only=True)
class Course:
    """
    A kind of failure.

    :param why: why these ends are the right ones
    :param first: withdrawals that the first try has carried out
    :param retry: the end when Airflow retries and nobody clears
    :param clear: the end when Airflow does not retry and a person clears
    :param both: the end when Airflow retries and a person clears after that
    :param words: what the log of the last try says where the task failed
    """

    why: str
    first: int
    retry: End
    clear: End
    both: End
    words: str = ""

    def end(self, follow_up: FollowUp) -> End:
        """Return the right end."""
        return {FollowUp.RETRY: self.retry, FollowUp.CLEAR: self.clear, FollowUp.BOTH: self.both}[follow_up]

    def end_without_record(self, follow_up: FollowUp) -> End:
        """Return the right end where the record is wiped before the clear: the clear adds a try that stops."""
        withdrawals = self.first if follow_up == FollowUp.CLEAR else self.retry.withdrawals
        return End("failed", self.end(follow_up).tries, withdrawals)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fault:
    """
    What befalls the first try.

    :param name: for the printed matrix
    :param course: how it goes on
    :param order: fault to order at the sandbox
    :param conf: parameters of the run, see ``folder/withdrawals.py``
    """

    name: str
    course: Course
    order: dict[str, Any] = field(default_factory=dict)
    conf: dict[str, Any] = field(default_factory=dict)


WAY_OUT = "airflow quoine withdrawals exists --id ID"

DONE = Course(
    why="Nothing is left to do: a cleared task finds the id on record and goes on with that withdrawal.",
    first=1,
    retry=End("success", 1, 1),
    clear=End("success", 2, 1),
    both=End("success", 2, 1),
)
PASSES = Course(
    why="Nothing can have been done, and it passes by itself: the next try sends, and a clear after that does not.",
    first=0,
    retry=End("success", 2, 1),
    clear=End("success", 2, 1),
    both=End("success", 3, 1),
)
REFUSED = Course(
    why="The exchange said no: the same would be refused again, so Airflow does not retry; a person who corrects it "
    "and clears the task has it sent.",
    first=0,
    retry=End("failed", 1, 0),
    clear=End("success", 2, 1),
    both=End("success", 2, 1),
    words="Token is invalid",
)


def unknown(withdrawals: int) -> Course:
    """Nobody knows whether the request was carried out, and the task is there to say so."""
    return Course(
        why="It may have been carried out: the task stops at once without a retry, and stops again when it is cleared "
        "before a person has told what they found.",
        first=withdrawals,
        retry=End("failed", 1, withdrawals),
        clear=End("failed", 2, withdrawals),
        both=End("failed", 2, withdrawals),
        words=WAY_OUT,
    )


def killed(withdrawals: int) -> Course:
    """Nobody knows whether the request was carried out, and the task is dead."""
    return Course(
        why="A dead task can tell Airflow nothing, so Airflow retries: the next try finds that sending had begun and "
        "stops for good, and so does every later one.",
        first=withdrawals,
        retry=End("failed", 2, withdrawals),
        clear=End("failed", 2, withdrawals),
        both=End("failed", 3, withdrawals),
        words=WAY_OUT,
    )


KILLED_AFTER_RECORD = Course(
    why="The id is on record: the next try goes on with that withdrawal.",
    first=1,
    retry=End("success", 2, 1),
    clear=End("success", 2, 1),
    both=End("success", 3, 1),
)
LIMIT = {"status": 429, "body": "API rate limit exceeded. Please retry after 1s"}

FAULTS = (
    Fault(name="no fault", course=DONE),
    Fault(name="refused connection", course=PASSES, conf={"conn": "money_refused", "code_lasts": True}),
    Fault(name="connect time-out", course=PASSES, conf={"conn": "money_silent", "code_lasts": True}),
    Fault(name="drop before the work", course=unknown(0), order={"kind": "drop_before"}),
    Fault(name="drop after the work", course=unknown(1), order={"kind": "drop_after"}),
    Fault(name="5xx after the work", course=unknown(1), order={"kind": "status", "when": "after", "status": 502}),
    Fault(name="5xx before the work", course=unknown(0), order={"kind": "status", "when": "before", "status": 500}),
    Fault(name="garbage with 200", course=unknown(1), order={"kind": "garbage"}),
    Fault(name="429", course=PASSES, order={"kind": "status", "when": "before", **LIMIT}, conf={"code_lasts": True}),
    Fault(name="422 wrong code", course=REFUSED, conf={"wrong_code": True}),
    Fault(name="SIGKILL before the POST", course=killed(0), conf={"moment": Moment.BEFORE_POST}),
    # The exchange does the work only after the worker is dead.
    Fault(
        name="SIGKILL during it",
        course=killed(1),
        order={"kind": "delay", "seconds": 3},
        conf={"moment": Moment.DURING_POST},
    ),
    Fault(name="SIGKILL before the record", course=killed(1), conf={"moment": Moment.BEFORE_RECORD}),
    Fault(name="SIGKILL after the record", course=KILLED_AFTER_RECORD, conf={"moment": Moment.AFTER_RECORD}),
)
