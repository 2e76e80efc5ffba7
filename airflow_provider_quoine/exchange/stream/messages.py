"""Pusher's messages, each one JSON object ``{event, channel?, data?}``, and its codes (pusher, Protocol 7)."""

from __future__ import annotations

import contextlib
import json
from enum import Enum
from json.decoder import scanstring  # type: ignore[attr-defined]  # its stub leaves it out
from typing import Any, NamedTuple

INTERNAL = ("pusher:", "pusher_internal:")
"""Prefixes of the names of the protocol's own events."""

_LONGEST_REASON = 200
"""Characters kept of a reason that a server gives."""


class Message(NamedTuple):
    """A message; its data is a string, but servers send that of the protocol's own events as an object too."""

    event: str
    data: Any
    channel: str | None

    @property
    def fields(self) -> dict[str, Any]:
        """The data of one of the protocol's own events."""
        data = self.data
        with contextlib.suppress(ValueError, RecursionError):
            data = json.loads(data) if isinstance(data, str) else data
        return data if isinstance(data, dict) else {}

    @property
    def code(self) -> int | None:
        """The code of an error, which may be a number, a string of digits, or missing."""
        code = self.fields.get("code")
        return int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdecimal()) else None

    def reason(self, key: str) -> str:
        """Return the words of an error, without the application key."""
        said = self.fields
        return redacted(str(said.get("message") or said.get("error") or self.data or "no reason given"), key)


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
    return Message(event, data, channel)


def read_last(payload: bytes, at: int) -> str | None:
    """Return the string at a place of a message that is ASCII before it, if the message ends behind it, else None.
    It takes two thirds of the time of :func:`read_message`."""
    try:
        text = payload.decode()
        data, end = scanstring(text, at + 1)
    except ValueError:
        return None
    return data if text[end:] == "}" else None


def redacted(reason: str, key: str) -> str:
    """Return a server's words on one line, without the application key, which some quote, and not too many of them."""
    words = reason.replace(key, "***")[:_LONGEST_REASON]
    return "".join(character if character.isprintable() else " " for character in words)


class Reaction(Enum):
    """The reaction to a close code or an error code."""

    GIVE_UP = "unchanged, it would be refused again"
    BACK_OFF = "reconnect after a wait that grows"
    AT_ONCE = "reconnect at once"


REACTIONS = {40: Reaction.GIVE_UP, 41: Reaction.BACK_OFF, 42: Reaction.AT_ONCE}
"""
Pusher's codes for ending a connection, by their hundreds (pusher, Protocol 7). A connection that ends with any other
code, or with none, is made again after a back-off. An error message with any other code leaves the connection as it is.
"""


class ConnectionLostError(Exception):
    """
    Ends a connection, not the stream.

    :param code: close code or Pusher error code, if there was one.
    """

    def __init__(self, reason: str, *, code: int | None = None) -> None:
        super().__init__(f"{reason} (code {code})" if code else reason)
        self.reaction = REACTIONS.get((code or 0) // 100)
