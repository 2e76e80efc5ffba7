"""Interrupts a worker at an exact moment of sending; runs in the task's own process."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.sandbox.control import SandboxControl

if TYPE_CHECKING:
    from airflow.sdk import Context


SEND_WITHIN = timedelta(seconds=15)
"""
The bound between the ledger and the request in these tests. The package's own is shorter, and attempts beside several
Airflows on two processors would exceed it.
"""


class Moment(StrEnum):
    """When the worker is interrupted."""

    BEFORE_SENDING = "the payment is prepared, sending is not in the ledger"
    BEFORE_POST = "sending is in the ledger, no byte has left"
    IN_POST = "the payment's last check has passed, no byte has left"
    DURING_POST = "the request has left, its answer has not come"
    BEFORE_RECORD = "the answer has come, sent is not in the ledger"
    AFTER_RECORD = "sent is in the ledger, the task has not ended"


def send_signal(name: str, *, spare_worker: bool = False) -> None:
    """
    Send a signal to the worker that supervises this task, and to the task itself.

    :param name: ``SIGKILL``, as the kernel's out-of-memory killer does; ``SIGSTOP``, like a suspended machine
    :param spare_worker: send it to the task only
    """
    for process in (os.getppid(), os.getpid())[spare_worker:]:
        os.kill(process, signal.Signals[name])


def interrupt_ledger(moment: Moment, interrupt: Callable[[], None]) -> None:
    """
    Have the ledger of this process interrupt it.

    :param moment: when to interrupt
    """
    start_sending, finish = Ledger.start_sending, Ledger.finish

    def start_and_interrupt(self: Ledger, *args: Any, **more: Any) -> None:
        if moment == Moment.BEFORE_SENDING:
            interrupt()
        start_sending(self, *args, **more)
        if moment == Moment.BEFORE_POST:
            interrupt()

    def finish_and_interrupt(self: Ledger, *args: Any, **more: Any) -> bool:
        if moment == Moment.BEFORE_RECORD:
            interrupt()
        wrote = finish(self, *args, **more)
        if moment == Moment.AFTER_RECORD:
            interrupt()
        return wrote

    Ledger.start_sending = start_and_interrupt  # type: ignore[method-assign]  # in this process, which ends with the task
    Ledger.finish = finish_and_interrupt  # type: ignore[method-assign]  # as above


def interrupt_answer(interrupt: Callable[[], None], amount: str) -> None:
    """
    Have the wait for the exchange's answer interrupt this process.

    The exchange drops a request whose connection ends before it has read the whole of it. So it is asked first: it has
    read the request when the fault that was injected for the request is not pending any more.

    :param amount: amount of the withdrawal; it names the fault
    """
    # Nothing else in this process speaks HTTP before the withdrawal is sent.
    wait = http.client.HTTPConnection.getresponse

    def interrupt_and_wait(self: http.client.HTTPConnection) -> http.client.HTTPResponse:
        http.client.HTTPConnection.getresponse = wait  # type: ignore[method-assign]  # as it was
        exchange = SandboxControl(f"http://{self.host}:{self.port}")
        while any(fault["request_contains"] == amount for fault in exchange.state(requests=1)["faults"]):
            time.sleep(0.05)
        interrupt()
        return wait(self)

    http.client.HTTPConnection.getresponse = interrupt_and_wait  # type: ignore[method-assign]  # in this process only


def interrupt_sending(interrupt: Callable[[], None]) -> None:
    """Have the first request that this process is about to hand to the kernel interrupt it."""
    set_option = socket.socket.setsockopt

    def set_and_interrupt(self: socket.socket, *args: Any) -> None:
        set_option(self, *args)
        # The last thing before the first byte. Nothing else in this process sets it.
        if args[:2] == (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT):
            socket.socket.setsockopt = set_option  # type: ignore[method-assign]  # as it was
            interrupt()

    socket.socket.setsockopt = set_and_interrupt  # type: ignore[method-assign,assignment]  # in this process only


def interrupt_first_try(context: Context) -> Context:
    """Set up the interruption that the run's parameters ask for. Later tries are not interrupted."""
    params = context["params"]
    if params["moment"] and context["ti"].try_number == 1:
        moment = Moment(params["moment"])
        interrupt = partial(send_signal, params["signal"], spare_worker=params["spare_worker"])
        if moment == Moment.DURING_POST:
            interrupt_answer(interrupt, params["amount"])
        if moment == Moment.IN_POST:
            interrupt_sending(interrupt)
        interrupt_ledger(moment, interrupt)
    return context
