"""Messages of Pusher protocol 7 (pusher, Protocol 7)."""

from __future__ import annotations

import json
import re
from typing import Any

#: A valid channel name.
CHANNEL = re.compile(r"[-a-zA-Z0-9_=@,.;]{1,164}")


def frame(event: str, data: Any, channel: str | None = None) -> str:
    """
    Write one message.

    :param data: a JSON string; an object for ``pusher:error``, and in a fault that imitates other servers
    """
    place = {} if channel is None else {"channel": channel}
    return json.dumps({"event": event, **place, "data": data}, separators=(",", ":"))


def closes(code: int | None) -> bool:
    """Tell whether an error ends the connection: those with codes 4000 to 4299 do."""
    return code is not None and 4000 <= code < 4300


def names_channel(data: Any) -> bool:
    """Tell whether the data of a client's message contains a valid channel name."""
    channel = data.get("channel") if isinstance(data, dict) else None
    return isinstance(channel, str) and CHANNEL.fullmatch(channel) is not None
