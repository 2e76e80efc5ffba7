"""Three clients of the stream behind one interface: pusher-js, the websockets library, and ours on pysher."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from airflow_provider_quoine.exchange.errors import QuoineStreamError
from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint, PusherStream
from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.support.pusher_clients import connect, receive, send, wait_until

FOLDER = Path(__file__).parent


class Heard(NamedTuple):
    """An event, its data decoded, because pusher-js hands out decoded data."""

    channel: str
    event: str
    data: Any


def decoded(data: str) -> Any:
    """Decode as pusher-js does: data that is no JSON stays as it is."""
    try:
        return json.loads(data)
    except ValueError:
        return data


class StreamClient(ABC):
    """
    A client within a ``with`` block: connected and subscribed at its beginning, gone at its end.

    :param sandbox: the server.
    :param channels: the channels that it subscribes to.
    """

    def __init__(self, sandbox: SandboxServer, channels: Collection[str]) -> None:
        self.sandbox = sandbox
        self.channels = tuple(channels)
        self.heard: list[Heard] = []
        self.refused: list[str] = []
        self._thread = threading.Thread(target=self.listen, name=type(self).__name__)

    @abstractmethod
    def listen(self) -> None:
        """Add each event to :attr:`heard`, until :meth:`stop`."""

    @abstractmethod
    def stop(self) -> None:
        """End :meth:`listen`."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether every channel is subscribed, on the present connection."""

    def __enter__(self) -> StreamClient:
        self._thread.start()
        wait_until(lambda: self.ready or bool(self.refused))
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()


class PusherJs(StreamClient):
    """The official client: pusher-js, in a Node process of its own."""

    def __init__(self, sandbox: SandboxServer, channels: Collection[str]) -> None:
        super().__init__(sandbox, channels)
        node = shutil.which("node")
        assert node, "node is missing: on Debian, apt-get install nodejs npm"
        assert (FOLDER / "node_modules").is_dir(), "pusher-js is missing: run these tests by make test-clients"
        self.errors: list[int | None] = []
        self.state = "connecting"
        self._subscribed: set[str] = set()
        where = json.dumps({"key": sandbox.pusher_key, "port": sandbox.port})
        command = [node, str(FOLDER / "pusher_client.js"), where]
        self._node = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for channel in self.channels:
            self.order("subscribe", channel)

    def order(self, what: str, channel: str) -> None:
        """Make it subscribe or unsubscribe."""
        assert self._node.stdin is not None
        self._node.stdin.write(json.dumps({what: channel}) + "\n")
        self._node.stdin.flush()

    def listen(self) -> None:
        assert self._node.stdout is not None
        for line in self._node.stdout:
            self._take(json.loads(line))

    def _take(self, told: dict[str, Any]) -> None:
        if "state" in told:
            self.state = told["state"]
            self._subscribed.clear()
        elif "error" in told:
            self.errors.append(told["code"])
        elif told["event"] == "pusher:subscription_succeeded":
            self._subscribed.add(told["channel"])
        elif told["event"] == "pusher:subscription_error":
            self.refused.append(told["channel"])
        else:
            self.heard.append(Heard(told["channel"], told["event"], told["data"]))

    @property
    def ready(self) -> bool:
        assert self._node.poll() is None, "Node ended by itself"
        return self._subscribed == set(self.channels)

    def stop(self) -> None:
        assert self._node.stdin is not None
        self._node.stdin.close()
        self._node.wait(timeout=30)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(exc_type, exc, traceback)
        assert self._node.stdout is not None
        self._node.stdout.close()


class Websockets(StreamClient):
    """A minimal client on the websockets library: it pings in silence, and never reconnects."""

    def __init__(self, sandbox: SandboxServer, channels: Collection[str]) -> None:
        super().__init__(sandbox, channels)
        self._subscribed: set[str] = set()
        self._client: ClientConnection

    def listen(self) -> None:
        with connect(self.sandbox) as self._client:
            patience = json.loads(receive(self._client)["data"])["activity_timeout"]
            for channel in self.channels:
                send(self._client, "pusher:subscribe", channel=channel)
            while True:
                try:
                    self._take(receive(self._client, timeout=patience))
                except TimeoutError:
                    send(self._client, "pusher:ping")
                except ConnectionClosed:
                    return

    def _take(self, message: dict[str, Any]) -> None:
        if message["event"] == "pusher_internal:subscription_succeeded":
            self._subscribed.add(message["channel"])
        elif message["event"] == "pusher:subscription_error":
            self.refused.append(message["channel"])
        elif message["event"] == "pusher:ping":
            send(self._client, "pusher:pong")
        elif not message["event"].startswith("pusher:"):
            self.heard.append(Heard(message["channel"], message["event"], decoded(message["data"])))

    @property
    def ready(self) -> bool:
        return self._subscribed == set(self.channels)

    def stop(self) -> None:
        self._client.close()


class Ours(StreamClient):
    """Our stream, on pysher."""

    def __init__(self, sandbox: SandboxServer, channels: Collection[str]) -> None:
        super().__init__(sandbox, channels)
        self._loop = asyncio.new_event_loop()
        endpoint = PusherEndpoint(key=sandbox.pusher_key, host="127.0.0.1", port=sandbox.port, tls=False)
        self._stream = PusherStream(endpoint=endpoint, channels=self.channels, queue_size=10_000)
        self._task = self._loop.create_task(self._listen())

    def listen(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._settle())

    async def _settle(self) -> None:
        await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self) -> None:
        try:
            async with self._stream:
                async for event in self._stream:
                    self.heard.append(Heard(event.channel, event.event, decoded(event.data)))
        except QuoineStreamError as refusal:
            self.refused.append(str(refusal))
            await asyncio.Event().wait()  # stop() ends it

    @property
    def ready(self) -> bool:
        return self._thread.is_alive() and self._stream.connections > 0 and self._stream.problem is None

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
