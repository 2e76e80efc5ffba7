"""Interrupts a worker at an exact moment of sending; runs in the task's own process."""

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
    """When the worker is interrupted."""

    BEFORE_POST = "sending is recorded and read back, no byte has left"
    DURING_POST = "the request has left, its answer has not come"
    BEFORE_RECORD = "the answer has come, sent is not recorded"
    AFTER_RECORD = "sent is recorded, the task has not ended"


def send_signal(name: str) -> None:
    """
    Send a signal to the worker that supervises this task, and to the task itself.

    :param name: ``SIGKILL``, as the kernel's out-of-memory killer does; ``SIGSTOP``, like a suspended machine
    """
    for process in (os.getppid(), os.getpid()):
        os.kill(process, signal.Signals[name])


class InterruptingStore:
    """
    A task state store that interrupts the task.

    :param store: Airflow's store
    :param moment: when to interrupt
    :param name: name of the signal
    """

    def __init__(self, store: StateStore, *, moment: Moment, name: str) -> None:
        self.store = store
        self.moment = moment
        self.name = name

    def get(self, key: str, default: Any = None) -> Any:
        """Read, and interrupt if the moment has come."""
        value = self.store.get(key, default)
        if self.moment == Moment.BEFORE_POST and value and value["step"] == "sending":
            send_signal(self.name)
        return value

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Write, and interrupt if the moment has come."""
        if self.moment == Moment.BEFORE_RECORD and value["step"] == "sent":
            send_signal(self.name)
        self.store.set(key, value, retention=retention)
        if self.moment == Moment.AFTER_RECORD and value["step"] == "sent":
            send_signal(self.name)


def interrupt_first_try(context: Context) -> Context:
    """Set up the interruption that the run's parameters ask for. Later tries are not interrupted."""
    params = context["params"]
    if params["moment"] and context["ti"].try_number == 1:
        moment = Moment(params["moment"])
        if moment == Moment.DURING_POST:
            # Nothing else in this process speaks HTTP before the withdrawal is sent.
            http.client.HTTPConnection.getresponse = lambda *_: send_signal(params["signal"])  # type: ignore[assignment,method-assign]
        store: Any = InterruptingStore(context["task_state_store"], moment=moment, name=params["signal"])
        context["task_state_store"] = store
    return context
