"""What strikes a worker at an exact moment of its sending; it runs in the task's own process."""

from __future__ import annotations

import http.client
import os
import signal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_quoine.payments.send_once import StateStore


class Moment(StrEnum):
    """When the worker is struck."""

    BEFORE_POST = "sending is recorded and read back, no byte has left"
    DURING_POST = "the request has left, its answer has not come"
    BEFORE_RECORD = "the answer has come, sent is not recorded"
    AFTER_RECORD = "sent is recorded, the task has not ended"


def strike(name: str) -> None:
    """
    Send a signal to the worker that supervises this task, and to the task itself.

    :param name: ``SIGKILL`` as the kernel's out-of-memory killer does, ``SIGSTOP`` as a machine that falls asleep
    """
    for process in (os.getppid(), os.getpid()):
        os.kill(process, signal.Signals[name])


class StruckStore:
    """
    The task state store of a try that is struck.

    :param store: Airflow's
    :param moment: when
    :param name: signal
    """

    def __init__(self, store: StateStore, *, moment: Moment, name: str) -> None:
        self.store = store
        self.moment = moment
        self.name = name

    def get(self, key: str, default: Any = None) -> Any:
        """Read."""
        value = self.store.get(key, default)
        if self.moment == Moment.BEFORE_POST and value and value["step"] == "sending":
            strike(self.name)
        return value

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Write."""
        if self.moment == Moment.BEFORE_RECORD and value["step"] == "sent":
            strike(self.name)
        self.store.set(key, value, retention=retention)
        if self.moment == Moment.AFTER_RECORD and value["step"] == "sent":
            strike(self.name)


def arm(context: Context) -> Context:
    """Have the first try struck as the run's parameters say; later tries are left in peace."""
    params = context["params"]
    if params["moment"] and context["ti"].try_number == 1:
        moment = Moment(params["moment"])
        if moment == Moment.DURING_POST:
            # Nothing else in this process speaks HTTP before the withdrawal is sent.
            http.client.HTTPConnection.getresponse = lambda *_: strike(params["signal"])  # type: ignore[assignment,method-assign]
        store: Any = StruckStore(context["task_state_store"], moment=moment, name=params["signal"])
        context["task_state_store"] = store
    return context
