"""How patient a stream is, and what it does after each way for a connection to end."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, kw_only=True)
class StreamTiming:
    """
    How patient a stream is, in seconds (pusher notes, Protocol 7 and Recipe).

    :param connect: for a connection to be made and greeted.
    :param subscribe: for a channel to be confirmed.
    :param quiet: of silence before a ping; the server's ``activity_timeout`` can only shorten it.
    :param pong: for any message after a ping.
    :param first_wait: before the first attempt to reconnect; at least 1 by the protocol (4100-4199).
    :param longest_wait: between two attempts.
    :param steady: that a connection must have lived for its end not to count as one more failure in a row.
    :param goodbye: for the server to answer our close frame.
    :param stuck: for a thread to end that was told to; only name resolution takes longer, and it is then left.
    """

    connect: float = 10.0
    subscribe: float = 10.0
    quiet: float = 30.0
    pong: float = 30.0
    first_wait: float = 1.0
    longest_wait: float = 60.0
    steady: float = 5.0
    goodbye: float = 1.0
    stuck: float = 5.0


class After(Enum):
    """What to do after an error or a close code."""

    GIVE_UP = "unchanged, it would be refused again"
    BACK_OFF = "reconnect after a wait that grows"
    AT_ONCE = "reconnect at once"
    CARRY_ON = "the connection stays"


CODE_POLICY = (
    (range(4000, 4100), After.GIVE_UP),
    (range(4100, 4200), After.BACK_OFF),
    (range(4200, 4300), After.AT_ONCE),
)
"""
Pusher's codes for ending a connection (pusher notes, Protocol 7). A connection that ends by any other code, or by
none, is made again after a back-off; an error message with any other code leaves the connection as it is.
"""


def after(code: int | None) -> After:
    """Look a code up in :data:`CODE_POLICY`."""
    return next((what for codes, what in CODE_POLICY if code in codes), After.CARRY_ON)


def back_off(failures: int, timing: StreamTiming) -> float:
    """
    Return the seconds to wait before the next attempt: doubled each time, capped, with jitter.

    :param failures: how many attempts in a row failed, at least 1.
    """
    doubled = timing.first_wait * 2.0 ** min(failures - 1, 16)
    return min(doubled, timing.longest_wait / 2) * random.uniform(1, 2)  # noqa: S311 - only jitter


class ConnectionLostError(Exception):
    """
    Ends a connection, not the stream.

    :param reason: in words.
    :param code: close code or Pusher error code, if there was one.
    :param since: ``time.monotonic()`` of its last sign of life, if that is known to be some time ago.
    """

    def __init__(self, reason: str, *, code: int | None = None, since: float | None = None) -> None:
        super().__init__(f"{reason} (code {code})" if code else reason)
        self.code = code
        self.since = since
