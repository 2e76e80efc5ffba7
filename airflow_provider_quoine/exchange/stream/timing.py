"""The time-outs and waits of a stream."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StreamTiming:
    """
    A stream's time-outs and waits, all in seconds (pusher, Protocol 7; pusher, Connections).

    :param connect_timeout: for a connection to be made and greeted.
    :param subscribe_timeout: for a channel to be confirmed.
    :param activity_timeout: of silence before a ping; the server's ``activity_timeout`` can only shorten it.
    :param pong_timeout: for any message after a ping.
    :param close_timeout: for the server to answer our close frame.
    :param thread_timeout: for a connection's thread to end after it was aborted. Only name resolution takes longer;
        the thread is then left behind.
    :param first_wait: before the first attempt to reconnect; at least 1 by the protocol (4100-4199).
    :param longest_wait: between two attempts.
    :param steady: a connection that lived this long does not count as one more failure in a row when it ends.
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
