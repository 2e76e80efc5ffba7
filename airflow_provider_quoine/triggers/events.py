"""The one shape of the event with which a trigger ends a deferred task, and its reader."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import TriggerEvent

from airflow_provider_quoine.exchange.errors import QuoineError

EVENT_VERSION = 1
"""Raise it when an event changes its meaning: a task that an older version deferred then ends in a clear error."""


class Status(StrEnum):
    """How a trigger ended."""

    SUCCESS = "success"
    """It has a result."""
    FAILED = "failed"
    """The wait is over and ended badly, such as with a declined withdrawal; the result says how."""
    TIMEOUT = "timeout"
    """It did not come in time."""
    EMPTY = "empty"
    """The time is over and there is nothing to show."""
    REFUSED = "refused"
    """The input is wrong: no retry would mend it."""
    ERROR = "error"
    """It could not go on."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """
    The end of a trigger. Nothing in it may be secret: Airflow logs and stores events in clear.

    :param status: how it ended.
    :param result: JSON-able; empty where there is none.
    :param message: words for a person; empty on success.
    """

    status: Status
    result: dict[str, Any] = field(default_factory=dict)
    message: str = ""

    def success(self) -> dict[str, Any]:
        """
        Return the result of a success.

        :raises AirflowException: with the message of any other status; a retry may help.
        """
        if self.status is not Status.SUCCESS:
            raise AirflowException(self.message)
        return self.result

    def as_event(self) -> TriggerEvent:
        """Return the trigger's event: ``{"version": 1, "status": ..., "result": {...}, "message": words}``."""
        payload = {"version": EVENT_VERSION, "status": str(self.status), "result": self.result, "message": self.message}
        return TriggerEvent(payload)  # type: ignore[no-untyped-call]


class QuoineForeignEventError(QuoineError):
    """
    An event is of another version.

    It is no AirflowException: a sensor's ``soft_fail`` would turn that into skipped, whatever has become of the wait.
    """


def read_event(event: dict[str, Any] | None, *, sender: str) -> Outcome:
    """
    Read a trigger's event.

    :param sender: the trigger, at the beginning of a sentence.
    :raises QuoineForeignEventError: if no trigger of this version sends such an event.
    """
    match event:
        case {"version": version, "status": str(status), "result": dict(result), "message": str(message)} if (
            version == EVENT_VERSION and status in list(Status)
        ):
            return Outcome(status=Status(status), result=result, message=message)
    # Its values may be secret: Airflow resumes a deferred task with a person's answer as well.
    shown = f"an event with {', '.join(map(str, event))}" if isinstance(event, dict) else repr(event)
    raise QuoineForeignEventError(
        f"{sender} sent {shown:.200}, which this version does not understand. Scheduler, "
        "triggerer and workers must run the same version of airflow-provider-quoine; a task that was deferred before "
        "an upgrade must be cleared. "
        "A withdrawal that was sent is not sent again by that."
    )
