"""Pusher's messages, each one JSON object ``{event, channel?, data?}``, and its codes (pusher, Protocol 7)."""

from __future__ import annotations

import contextlib
import json
from enum import Enum
from typing import Any

INTERNAL = ("pusher:", "pusher_internal:")
"""Prefixes of the names of the protocol's own events."""

GREETING = "pusher:connection_established"
SUBSCRIBED = "pusher_internal:subscription_succeeded"
NOT_SUBSCRIBED = ("pusher:subscription_error", "pusher_internal:subscription_error")
ERROR = "pusher:error"
PING = "pusher:ping"

_LONGEST_REASON = 200
"""Characters kept of a reason that a server gives."""

_DECODER = json.JSONDecoder()

Message = tuple[str, Any, "str | None"]
"""Event, data and channel."""


def read_message(payload: bytes) -> Message | None:
    """Return a message's event, data and channel, or None if it is not one that Pusher could have sent."""
    try:
        message = json.loads(payload.decode())
        event, channel, data = message["event"], message.get("channel"), message.get("data")
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
    if not isinstance(event, str) or not isinstance(channel, str | None):
        return None
    if channel and not event.startswith(INTERNAL) and not isinstance(data, str):
        # An object instead of a string: its numbers are floats by now, and money must never be a float.
        return None
    return event, data, channel


def read_last(payload: bytes, at: int) -> str | None:
    """Return the string at a place of a message that is ASCII before it, if the message ends behind it, else None.
    It takes two thirds of the time of :func:`read_message`."""
    try:
        text = payload.decode()
        data, end = _DECODER.raw_decode(text, at)
    except ValueError:
        return None
    return data if isinstance(data, str) and text[end:] == "}" else None


def object_of(data: Any) -> dict[str, Any]:
    """Return the data of one of the protocol's own events; servers send it as a JSON string or as an object."""
    with contextlib.suppress(ValueError, RecursionError):
        data = json.loads(data) if isinstance(data, str) else data
    return data if isinstance(data, dict) else {}


def redacted(reason: str, key: str) -> str:
    """Return a server's words on one line, without the application key, which some quote, and not too many of them."""
    words = reason.replace(key, "***")[:_LONGEST_REASON]
    return "".join(character if character.isprintable() else " " for character in words)


def reason_in(data: Any, key: str) -> str:
    """Return the words of an error's data, without the application key."""
    said = object_of(data)
    return redacted(str(said.get("message") or said.get("error") or data or "no reason given"), key)


def code_of(data: Any) -> int | None:
    """Return the code of a ``pusher:error``, which may be a number, a string of digits, or missing."""
    code = object_of(data).get("code")
    return int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdecimal()) else None


class Reaction(Enum):
    """The reaction to a close code or an error code."""

    GIVE_UP = "unchanged, it would be refused again"
    BACK_OFF = "reconnect after a wait that grows"
    AT_ONCE = "reconnect at once"
    CARRY_ON = "the connection stays"


REACTIONS = {40: Reaction.GIVE_UP, 41: Reaction.BACK_OFF, 42: Reaction.AT_ONCE}
"""
Pusher's codes for ending a connection, by their hundreds (pusher, Protocol 7). A connection that ends with any other
code, or with none, is made again after a back-off. An error message with any other code leaves the connection as it is.
"""


def reaction_to(code: int | None) -> Reaction:
    """Look a code up in :data:`REACTIONS`."""
    return REACTIONS.get((code or 0) // 100, Reaction.CARRY_ON)


class ConnectionLostError(Exception):
    """
    Ends a connection, not the stream.

    :param code: close code or Pusher error code, if there was one.
    """

    def __init__(self, reason: str, *, code: int | None = None) -> None:
        super().__init__(f"{reason} (code {code})" if code else reason)
        self.code = code
