"""The stream's two other ends on libraries that are not ours: a client on websockets, and Pusher's own for servers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from pusher import Pusher
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from airflow_provider_quoine.sandbox.server import SandboxServer

BUY, SELL = "price_ladders_cash_btcjpy_buy", "price_ladders_cash_btcjpy_sell"


def dial(
    sandbox: SandboxServer, *, key: str | None = None, query: str = "?protocol=7", open_timeout: float = 10
) -> ClientConnection:
    address = f"ws://127.0.0.1:{sandbox.port}/app/{key or sandbox.pusher_key}{query}"
    return connect(address, open_timeout=open_timeout, close_timeout=1, proxy=None)


def hear(client: ClientConnection, timeout: float = 10) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(client.recv(timeout=timeout))
    return message


def say(client: ClientConnection, event: str, **data: Any) -> None:
    client.send(json.dumps({"event": event, "data": data}))


def subscribe(client: ClientConnection, channel: str) -> dict[str, Any]:
    say(client, "pusher:subscribe", channel=channel)
    return hear(client)


def close_code(client: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(timeout=10)
    return caught.value.rcvd.code if caught.value.rcvd else None


def drain(client: ClientConnection) -> Exception:
    """Hear all that comes, and tell what it ended with: silence or a close."""
    while True:
        try:
            client.recv(timeout=0.3)
        except (TimeoutError, ConnectionClosed) as end:
            return end


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def publisher(sandbox: SandboxServer, **changes: Any) -> Pusher:
    given = {"app_id": sandbox.pusher_app_id, "key": sandbox.pusher_key, "secret": sandbox.pusher_secret}
    return Pusher(**{**given, **changes}, host="127.0.0.1", port=sandbox.port, ssl=False, timeout=10)
