"""
The record that keeps a request from being sent twice: prepared → sending → sent | refused | unknown.

The exchange has no idempotency key and no list of withdrawals (facts, Withdrawals), and Airflow runs tasks
again: by retry, after a worker's death, when a person clears a task. The record stands in Airflow's task state
store, which all tries of a task share, and each step is written *before* it is taken.

Why at most one try sends, with no clock in the argument: Airflow gives a task instance a new id before it can
run again, whether by retry or by clearing, and from then on refuses the old id at the store. A try sends only
after it has written ``sending`` *and read it back*. If a successor exists by then, the read-back fails and the
try stops; if none does, ``sending`` was stored before any successor could look, and a successor that finds
``sending`` stops.

The clock covers what is left. A worker that is frozen between the read-back and the first byte must not send
hours later, when a person may have resolved the matter by hand.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from airflow.sdk import NEVER_EXPIRE  # type: ignore[attr-defined]  # there, but not in its stub
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_quoine.exchange.errors import QuoineError, QuoineRateLimitedError, QuoineRefusedError
from airflow_provider_quoine.payments.records import Decision, Entry, RecordKind, Step

if TYPE_CHECKING:
    from airflow.sdk import Context

Answer = TypeVar("Answer")

#: Between the record ``sending`` and the first byte of the request lie at most this many seconds.
SEND_WITHIN_SECONDS = 5.0


class StateStore(Protocol):
    """The part of Airflow's task state store that the record needs."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under a key."""

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Write the value under a key."""


class QuoineMustNotSendError(AirflowFailException):
    """
    Sending might do the same thing twice, so the task stops. It is never retried by Airflow.

    The message says what is known, how to look at the exchange, and how to tell the task what was found.
    """


class SendOnce:
    """
    One request that may be carried out at most once per run and task.

    :param store: ``context["task_state_store"]``.
    :param kind: the record's kind.
    :param try_number: the task's try; above 1 with no record means that the record was lost.
    :param resolution_steps: the steps by which a person resolves an unknown outcome, for messages.
    :param clock: seconds on a clock that goes on while this process is stopped or the machine sleeps.
    :ivar has_sent: whether this try's request may have come before the exchange's eyes; false after a failure
        that leaves the request to be sent as it is once more.
    """

    def __init__(
        self,
        *,
        store: StateStore,
        kind: RecordKind,
        try_number: int,
        resolution_steps: str,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.store = store
        self.kind = kind
        self.try_number = try_number
        self.resolution_steps = resolution_steps
        self.clock = clock or boot_time
        self.has_sent = False

    @classmethod
    def for_task(cls, context: Context, kind: RecordKind) -> Self:
        """Return the record of this run and task."""
        return cls(
            store=context["task_state_store"],
            kind=kind,
            try_number=context["ti"].try_number,
            resolution_steps=resolution_steps(context["ti"], kind),
        )

    def begin(self, details: Mapping[str, str]) -> Entry:
        """
        Open the record at the very start of a try, before anything else can fail.

        :param details: what identifies the request to a person; nothing secret, the store is in clear.
        :return: the record: ``prepared``, or ``sent`` with its ``id`` if an earlier try got that far.
        :raises QuoineMustNotSendError: if an earlier try may have sent, or if that cannot be known.
        """
        found: Entry | None = self.store.get(self.kind.key)
        if found is None and self.try_number > 1:
            raise QuoineMustNotSendError(
                f"This is try {self.try_number} and there is no record of the tries before it, so nobody can "
                f"know whether the {self.kind.noun} was sent. Nothing was sent by this try. {self.resolution_steps}"
            )
        if found is None:
            return self._write({**details, "step": Step.PREPARED})
        if found["step"] in (Step.SENDING, Step.UNKNOWN):
            raise QuoineMustNotSendError(
                f"An earlier try {_describe(found)} and its outcome is unknown: the {self.kind.noun} may exist at the "
                f"exchange. Nothing was sent by this try. {self.resolution_steps}"
            )
        if found["step"] == Step.SENT:
            self._refuse_other(found, details)
            # A person who resolved a lost record gave the id only.
            return {**details, **found}
        return self._write({**found, **details, "step": Step.PREPARED})

    def note(self, **notes: Any) -> Entry:
        """Add to the record while it is prepared; nothing secret, the store is in clear."""
        return self._write({**self._read(), **notes})

    def send(
        self,
        post: Callable[[Callable[[], None]], Answer],
        *,
        identify: Callable[[Answer], str],
        in_flight_seconds: float,
    ) -> Answer:
        """
        Send, with the record written before and after.

        :param post: sends the request once; calls what it is given right before the first byte leaves.
        :param identify: gives the exchange's id in the answer.
        :param in_flight_seconds: bound of the time from the request's first byte to the end of its response. Until then
            nobody may conclude from the exchange's silence that it was not carried out.
        :raises QuoineMustNotSendError: if the request may have been carried out and no id is known.
        :raises QuoineError: if it surely was not carried out.
        """
        deadline = self.clock() + SEND_WITHIN_SECONDS
        in_doubt_until = datetime.now(UTC) + timedelta(seconds=SEND_WITHIN_SECONDS + in_flight_seconds)
        before = self._read()
        sending = self._write(
            {
                **before,
                "step": Step.SENDING,
                "try_number": self.try_number,
                "in_doubt_until": in_doubt_until.isoformat(),
                "reason": "",
            }
        )
        if self._read() != sending:
            raise QuoineMustNotSendError(
                f"Another try of this task has taken over, so this one does not send the {self.kind.noun}."
            )

        def in_time() -> None:
            if self.clock() > deadline:
                raise QuoineTooLateError(
                    f"More than {SEND_WITHIN_SECONDS:g} s passed between the record and the request (a stopped "
                    f"worker or a sleeping machine), so the {self.kind.noun} was not sent."
                )

        self.has_sent = True
        try:
            answer = post(in_time)
        except QuoineError as error:
            self.has_sent = _step_after(error) != Step.PREPARED
            raise self._after_failure(before, sending, error) from None
        except BaseException as error:
            # A kill by Airflow or a fault of ours in the middle of it: nobody knows how far it got.
            with suppress(Exception):
                self._write({**sending, "step": Step.UNKNOWN, "reason": type(error).__name__})
            raise
        self._write_sent(sending, identify(answer))
        return answer

    def _write_sent(self, sending: Entry, identifier: str) -> None:
        try:
            self._write({**sending, "step": Step.SENT, "id": identifier})
        except Exception as error:
            raise QuoineMustNotSendError(
                f"The {self.kind.noun} was carried out, its id is {identifier}, but this could not be recorded "
                f"({type(error).__name__}). {self.resolution_steps}"
            ) from error

    def _after_failure(self, before: Entry, sending: Entry, error: QuoineError) -> Exception:
        step = _step_after(error)
        # What surely was not carried out leaves no doubt behind, only that of a try before it.
        known = sending if step == Step.UNKNOWN else before
        # Where this fails the record stays "sending": the next try stops, which is safe.
        with suppress(Exception):
            self._write({**known, "step": step, "reason": str(error), "try_number": self.try_number})
        return QuoineMustNotSendError(f"{error} {self.resolution_steps}") if step == Step.UNKNOWN else error

    def _refuse_other(self, found: Entry, details: Mapping[str, str]) -> None:
        changed = [name for name, value in details.items() if found.get(name, value) != value]
        if changed:
            before = ", ".join(f"{name} {found.get(name)}" for name in changed)
            raise QuoineMustNotSendError(
                f"An earlier try of this run sent the {self.kind.noun} {found['id']} with {before}; this try has "
                f"another. One run stands for one {self.kind.noun}: start a new run for the new one."
            )

    def _read(self) -> Entry:
        return self.store.get(self.kind.key) or {}

    def _write(self, entry: Entry) -> Entry:
        entry = {**entry, "step": str(entry["step"]), "at": datetime.now(UTC).isoformat()}
        self.store.set(self.kind.key, entry, retention=NEVER_EXPIRE)
        return entry


class QuoineTooLateError(QuoineError):
    """The bound between the record and the request has passed. Nothing was sent."""


def resolution_steps(ti: Any, kind: RecordKind) -> str:
    """
    Return the steps by which a person resolves an unknown outcome of a task.

    :param ti: the task instance.
    :param kind: the kind of the task's record.
    """
    command = f"airflow quoine {kind.command_group}"
    names = {"dag": ti.dag_id, "run": ti.run_id, "task": ti.task_id}
    where = " ".join(f"--{name}-id {shlex.quote(value)}" for name, value in names.items())
    if ti.map_index >= 0:
        where += f" --map-index {ti.map_index}"
    return (
        f"Look it up at the exchange. If it exists: {command} {Decision.EXISTS} --id ID {where}. "
        f"If it does not: {command} {Decision.ABSENT} {where}. Then clear this task."
    )


def boot_time() -> float:
    """Seconds since boot, sleep of the machine and stops of the process included (Linux ``CLOCK_BOOTTIME``)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _step_after(error: QuoineError) -> Step:
    if error.may_have_been_carried_out:
        return Step.UNKNOWN
    if isinstance(error, QuoineRefusedError) and not isinstance(error, QuoineRateLimitedError):
        return Step.REFUSED
    return Step.PREPARED


def _describe(entry: Entry) -> str:
    reason = f" ({entry['reason']})" if entry.get("reason") else ""
    return f"began to send at {entry['at']}{reason}"
