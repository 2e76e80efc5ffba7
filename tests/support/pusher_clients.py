"""Third-party clients of the sandbox's stream: a subscriber on ``websockets``, a publisher on Pusher's own library."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from pusher import Pusher
from websockets.exceptions import ConnectionClosed
from websockets.sync import client as websockets_client
from websockets.sync.client import ClientConnection

from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.support.streams import LIMIT

BUY, SELL = "price_ladders_cash_btcjpy_buy", "price_ladders_cash_btcjpy_sell"


def connect(
    sandbox: SandboxServer, *, key: str | None = None, query: str = "?protocol=7", open_timeout: float = LIMIT
) -> ClientConnection:
    """
    Connect to a sandbox's stream.

    :param sandbox: a running one
    :param key: app key; by default the right one
    :param query: query of the URL
    :param open_timeout: seconds for the handshake
    """
    address = f"ws://127.0.0.1:{sandbox.port}/app/{key or sandbox.pusher_key}{query}"
    return websockets_client.connect(address, open_timeout=open_timeout, close_timeout=1, proxy=None)


def receive(client: ClientConnection, timeout: float = LIMIT) -> dict[str, Any]:
    """Receive one message."""
    message: dict[str, Any] = json.loads(client.recv(timeout=timeout))
    return message


def send(client: ClientConnection, event: str, **data: Any) -> None:
    """Send one message."""
    client.send(json.dumps({"event": event, "data": data}))


def subscribe(client: ClientConnection, channel: str) -> dict[str, Any]:
    """Subscribe, and return the response."""
    send(client, "pusher:subscribe", channel=channel)
    return receive(client)


def close_code(client: ClientConnection) -> int | None:
    """Wait for the server to close the connection, and return the code."""
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(timeout=LIMIT)
    return caught.value.rcvd.code if caught.value.rcvd else None


def drain(client: ClientConnection) -> Exception:
    """Receive all messages; return the time-out or the close that ended them."""
    while True:
        try:
            client.recv(timeout=0.3)
        except (TimeoutError, ConnectionClosed) as end:
            return end


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; fail after :data:`~tests.support.streams.LIMIT`."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"the condition was not met within {LIMIT:g} s"
        time.sleep(0.01)


def publisher(sandbox: SandboxServer, **changes: Any) -> Pusher:
    """Return a client of Pusher's HTTP API."""
    given = {"app_id": sandbox.pusher_app_id, "key": sandbox.pusher_key, "secret": sandbox.pusher_secret}
    return Pusher(**{**given, **changes}, host="127.0.0.1", port=sandbox.port, ssl=False, timeout=LIMIT)
