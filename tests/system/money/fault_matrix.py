"""The fault matrix as data: faults while a withdrawal is sent, and the expected ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.system.money.interruptions import Moment


class FollowUp(StrEnum):
    """The reaction to the end of the first try."""

    RETRY = "retry by Airflow"
    CLEAR = "clear by a person"
    BOTH = "both"


@dataclass(frozen=True)
class End:
    """
    How a task ends.

    :param state: the task's state in Airflow
    :param tries: number of tries
    :param withdrawals: number of withdrawals that the exchange carried out
    """

    state: str
    tries: int
    withdrawals: int

    def __str__(self) -> str:
        tries = "1 try" if self.tries == 1 else f"{self.tries} tries"
        return f"{self.withdrawals} sent, {self.state}, {tries}"


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """
    Expected ends for a kind of failure.

    :param why: why these ends are expected
    :param first: number of withdrawals that the first try carries out
    :param retry: the end if Airflow retries and nobody clears the task
    :param clear: the end if Airflow does not retry and a person clears the task
    :param both: the end if Airflow retries and a person clears the task afterwards
    :param log_text: expected in the log of a last try that failed
    """

    why: str
    first: int
    retry: End
    clear: End
    both: End
    log_text: str = ""

    def end(self, follow_up: FollowUp) -> End:
        """Return the expected end."""
        return {FollowUp.RETRY: self.retry, FollowUp.CLEAR: self.clear, FollowUp.BOTH: self.both}[follow_up]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fault:
    """
    A fault in the first try.

    :param name: for the printed matrix
    :param expectation: the expected ends
    :param sandbox_fault: fault to inject into the sandbox
    :param conf: parameters of the run, see ``dags/withdrawals.py``
    """

    name: str
    expectation: Expectation
    sandbox_fault: dict[str, Any] = field(default_factory=dict)
    conf: dict[str, Any] = field(default_factory=dict)


ADVICE_TEXT = "airflow quoine payments exists payment-"

DONE = Expectation(
    why="Nothing is left to do: a cleared task finds the id in the ledger and continues with that withdrawal.",
    first=1,
    retry=End("success", 1, 1),
    clear=End("success", 2, 1),
    both=End("success", 2, 1),
)
TRANSIENT = Expectation(
    why="Nothing can have been done, and the failure is transient: the next try sends, a later clear does not.",
    first=0,
    retry=End("success", 2, 1),
    clear=End("success", 2, 1),
    both=End("success", 3, 1),
)
REFUSED = Expectation(
    why="The exchange refused: it would refuse the same request again, so Airflow does not retry. A person can correct "
    "it and clear the task, which sends it.",
    first=0,
    retry=End("failed", 1, 0),
    clear=End("success", 2, 1),
    both=End("success", 2, 1),
    log_text="Token is invalid",
)


def unknown(withdrawals: int) -> Expectation:
    """It is unknown whether the request was carried out, and the task can report that."""
    return Expectation(
        why="It may have been carried out: the task fails at once without a retry, and fails again if it is cleared "
        "before a person has recorded the outcome.",
        first=withdrawals,
        retry=End("failed", 1, withdrawals),
        clear=End("failed", 2, withdrawals),
        both=End("failed", 2, withdrawals),
        log_text=ADVICE_TEXT,
    )


def killed(withdrawals: int) -> Expectation:
    """It is unknown whether the request was carried out, and the task was killed."""
    return Expectation(
        why="A killed task cannot report anything, so Airflow retries: the next try finds that sending had begun and "
        "fails without a retry, as does every later one.",
        first=withdrawals,
        retry=End("failed", 2, withdrawals),
        clear=End("failed", 2, withdrawals),
        both=End("failed", 3, withdrawals),
        log_text=ADVICE_TEXT,
    )


KILLED_BEFORE_SENDING = Expectation(
    why="Nothing was sent, and the ledger knows it: the next try sends.",
    first=0,
    retry=End("success", 2, 1),
    clear=End("success", 2, 1),
    both=End("success", 3, 1),
)
KILLED_AFTER_RECORD = Expectation(
    why="The id is in the ledger: the next try continues with that withdrawal.",
    first=1,
    retry=End("success", 2, 1),
    clear=End("success", 2, 1),
    both=End("success", 3, 1),
)
LIMIT = {"status": 429, "body": "API rate limit exceeded. Please retry after 1s"}

FAULTS = (
    Fault(name="no fault", expectation=DONE),
    Fault(name="refused connection", expectation=TRANSIENT, conf={"conn": "money_refused", "code_lasts": True}),
    Fault(name="connect time-out", expectation=TRANSIENT, conf={"conn": "money_silent", "code_lasts": True}),
    Fault(name="drop before the work", expectation=unknown(0), sandbox_fault={"kind": "drop_before"}),
    Fault(name="drop after the work", expectation=unknown(1), sandbox_fault={"kind": "drop_after"}),
    Fault(
        name="5xx after the work",
        expectation=unknown(1),
        sandbox_fault={"kind": "status", "when": "after", "status": 502},
    ),
    Fault(
        name="5xx before the work",
        expectation=unknown(0),
        sandbox_fault={"kind": "status", "when": "before", "status": 500},
    ),
    Fault(name="garbage with 200", expectation=unknown(1), sandbox_fault={"kind": "garbage"}),
    Fault(
        name="429",
        expectation=TRANSIENT,
        sandbox_fault={"kind": "status", "when": "before", **LIMIT},
        conf={"code_lasts": True},
    ),
    Fault(name="422 wrong code", expectation=REFUSED, conf={"wrong_code": True}),
    Fault(name="SIGKILL before sending", expectation=KILLED_BEFORE_SENDING, conf={"moment": Moment.BEFORE_SENDING}),
    Fault(name="SIGKILL before the POST", expectation=killed(0), conf={"moment": Moment.BEFORE_POST}),
    # The exchange owes its answer until all is over. It does the work before: the code that the next try is given makes
    # this one's invalid, and from 3.4 on LocalExecutor tells of a dead worker at once, so that try may come any moment.
    Fault(
        name="SIGKILL during it",
        expectation=killed(1),
        sandbox_fault={"kind": "delay", "when": "after", "seconds": 3600},
        conf={"moment": Moment.DURING_POST},
    ),
    Fault(name="SIGKILL before the record", expectation=killed(1), conf={"moment": Moment.BEFORE_RECORD}),
    Fault(name="SIGKILL after the record", expectation=KILLED_AFTER_RECORD, conf={"moment": Moment.AFTER_RECORD}),
)
