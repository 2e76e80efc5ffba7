"""Pusher's frames: one JSON object ``{event, channel?, data?}`` each (pusher notes, Protocol 7)."""

from __future__ import annotations

import contextlib
import json
from typing import Any

INTERNAL = ("pusher:", "pusher_internal:")
"""What the names of the protocol's own events begin with."""

GREETING = "pusher:connection_established"
SUBSCRIBED = "pusher_internal:subscription_succeeded"
NOT_SUBSCRIBED = ("pusher:subscription_error", "pusher_internal:subscription_error")
ERROR = "pusher:error"


def read_frame(message: bytes) -> tuple[str, Any, str | None] | None:
    """Return event, data and channel of a frame, or None if it is not Pusher's."""
    try:
        frame = json.loads(message.decode())
        event, channel, data = frame["event"], frame.get("channel"), frame.get("data")
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
    if not isinstance(event, str) or not isinstance(channel, str | None):
        return None
    if channel and not event.startswith(INTERNAL) and not isinstance(data, str):
        # An object instead of a string: its numbers are floats by now, and money never is.
        return None
    return event, data, channel


def object_of(data: Any) -> dict[str, Any]:
    """Return the object of a ``pusher:`` event's data, which servers send as JSON string or as object."""
    with contextlib.suppress(ValueError, RecursionError):
        data = json.loads(data) if isinstance(data, str) else data
    return data if isinstance(data, dict) else {}


def code_of(data: Any) -> int | None:
    """Return the code of a ``pusher:error``, which may be a number, a string of digits, or missing."""
    code = object_of(data).get("code")
    return int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdecimal()) else None
