"""The address of a stream's server, and the time-outs and waits of a stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_quoine.exchange.clock import CLOCK, Clock


@dataclass(frozen=True, kw_only=True)
class StreamTiming:
    """
    A stream's time-outs and waits, all in seconds (pusher, Protocol 7; pusher, Connections).

    :param connect_timeout: for a connection to be made and greeted.
    :param subscribe_timeout: for a channel to be confirmed.
    :param activity_timeout: without a whole message before a ping; the server's can only shorten it, to 1 s at least.
    :param pong_timeout: for any whole message after a ping.
    :param close_timeout: for the server to answer our close frame.
    :param thread_timeout: for a connection's thread to end after it was aborted. Only name resolution takes longer;
        the thread is then left behind.
    :param first_wait: before the first attempt to reconnect; at least 1 by the protocol (4100-4199).
    :param longest_wait: between two attempts.
    :param steady: a connection that lived this long, or delivered events, does not count as one more failure in a row.
        Only one that lived this long is made again at once, where the server asks for that.
    """

    connect_timeout: float = 10.0
    subscribe_timeout: float = 10.0
    activity_timeout: float = 30.0
    pong_timeout: float = 30.0
    close_timeout: float = 1.0
    thread_timeout: float = 5.0
    first_wait: float = 1.0
    longest_wait: float = 60.0
    steady: float = 5.0


@dataclass(frozen=True, kw_only=True)
class PusherEndpoint:
    """
    The server of the market streams (facts, Streams: all of it must be a setting).

    :param key: application key; handed out on contact, so not shown.
    :param host: server's name or address.
    :param port: server's port.
    :param tls: whether to encrypt; the certificate is always verified then.
    :param ca_path: PEM file or directory with the authorities to trust instead of the system's.
    :param timing: time-outs and waits.
    :param max_message: bytes of a frame, and of a message in several; a larger one ends the connection.
    :param clock: the clocks of everything that listens to it.
    :param network: makes what connects an event loop; None for a ``PysherNetwork``. A simulation hands in network and
        clocks: nothing else of a stream has a clock, a thread or a socket.
    """

    key: str = field(repr=False)
    host: str
    port: int
    tls: bool = True
    ca_path: str | None = None
    timing: StreamTiming = field(default_factory=StreamTiming)
    max_message: int = 1_048_576
    clock: Clock = field(default=CLOCK, repr=False)
    network: Callable[[PusherEndpoint], Any] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"
