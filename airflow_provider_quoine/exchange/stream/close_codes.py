"""Pusher's codes for the end of a connection, and the reaction to each."""

from __future__ import annotations

from enum import Enum


class Reaction(Enum):
    """The reaction to a close code or an error code."""

    GIVE_UP = "unchanged, it would be refused again"
    BACK_OFF = "reconnect after a wait that grows"
    AT_ONCE = "reconnect at once"
    CARRY_ON = "the connection stays"


REACTIONS = (
    (range(4000, 4100), Reaction.GIVE_UP),
    (range(4100, 4200), Reaction.BACK_OFF),
    (range(4200, 4300), Reaction.AT_ONCE),
)
"""
Pusher's codes for ending a connection (pusher, Protocol 7). A connection that ends with any other code, or with
none, is made again after a back-off. An error message with any other code leaves the connection as it is.
"""


def reaction_to(code: int | None) -> Reaction:
    """Look a code up in :data:`REACTIONS`."""
    return next((reaction for codes, reaction in REACTIONS if code in codes), Reaction.CARRY_ON)


class ConnectionLostError(Exception):
    """
    Ends a connection, not the stream.

    :param code: close code or Pusher error code, if there was one.
    :param since: ``time.monotonic()`` of its last sign of life, if that is known to be some time ago.
    """

    def __init__(self, reason: str, *, code: int | None = None, since: float | None = None) -> None:
        super().__init__(f"{reason} (code {code})" if code else reason)
        self.code = code
        self.since = since
