"""One client of the stream: the server's side of Pusher protocol 7 (pusher notes, "Protocol 7")."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from airflow_provider_quoine.sandbox.faults import Fault
from airflow_provider_quoine.sandbox.sockets import deafen, reset_socket

if TYPE_CHECKING:
    from airflow_provider_quoine.sandbox.stream import Stream

#: A channel's name (pusher notes, "Protocol 7").
CHANNEL = re.compile(r"[-a-zA-Z0-9_=@,.;]{1,164}")
_BACKLOG = 10_000  # frames that may wait for a slow client


def frame(event: str, data: Any, channel: str | None = None) -> str:
    """
    Write one message.

    :param event: event name
    :param data: a JSON string, or for ``pusher:error`` an object (pusher notes, "Protocol 7"); some servers send
        objects elsewhere too
    :param channel: channel name, if it belongs to one
    """
    place = {} if channel is None else {"channel": channel}
    return json.dumps({"event": event, **place, "data": data}, separators=(",", ":"))


def _closes(code: int | None) -> bool:
    """Whether an error code ends the connection: 4000 to 4299 do (pusher notes, "Protocol 7")."""
    return code is not None and 4000 <= code < 4300


class PusherConnection:
    """
    A client's connection.

    :param websocket: not accepted yet
    :param key: the app key in the address
    :param stream: that it belongs to
    """

    def __init__(self, *, websocket: WebSocket, key: str, stream: Stream) -> None:
        self._websocket = websocket
        self._key = key
        self._stream = stream
        self._transport: asyncio.Transport = websocket.state.transport
        self._frames: asyncio.Queue[str | int] = asyncio.Queue(maxsize=_BACKLOG)
        self._silent = False
        self.socket_id = f"{secrets.randbelow(10**6)}.{secrets.randbelow(10**9)}"
        self._delayed: dict[str, asyncio.TimerHandle] = {}
        self.channels: set[str] = set()

    async def serve(self) -> None:
        """Serve the client until one side goes."""
        fault = self._stream.faults.take("stream handshake")
        if fault is not None:
            await self._fail_handshake(fault)
            return
        await self._websocket.accept()
        writer = asyncio.create_task(self._write())
        self._stream.join(self)
        try:
            self._begin()
            await self._read()
        finally:
            self._stream.leave(self)
            for delayed in self._delayed.values():
                delayed.cancel()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _fail_handshake(self, fault: Fault) -> None:
        if fault.kind == "refuse_handshake":
            await self._websocket.send_denial_response(Response(status_code=fault.status))
            return
        # Silence: a handshake that is not answered until the client has gone.
        while (await self._websocket.receive())["type"] != "websocket.disconnect":
            pass

    def send(self, text: str) -> None:
        """
        Send a message after those that wait.

        :param text: the whole frame, written once for all who get it
        """
        self._put(text)

    def _put(self, item: str | int) -> None:
        if self._silent:
            return
        try:
            self._frames.put_nowait(item)
        except asyncio.QueueFull:
            # Nothing reaches a client that does not read, a close frame neither.
            reset_socket(self._transport)

    async def _write(self) -> None:
        try:
            while isinstance(item := await self._frames.get(), str):
                await self._websocket.send_text(item)
            await self._websocket.close(item)
        except WebSocketDisconnect:
            pass  # the reader sees it as well, and ends the connection

    async def _read(self) -> None:
        settings = self._stream.settings
        patience = settings.activity_timeout + settings.pong_timeout
        while True:
            try:
                async with asyncio.timeout(patience):
                    message = await self._websocket.receive()
            except TimeoutError:
                self._error("Pong reply not received in time", 4201)
                continue
            if message["type"] == "websocket.disconnect":
                return
            self._handle(message.get("text"))

    def _begin(self) -> None:
        version = self._websocket.query_params.get("protocol", "")
        if self._key != self._stream.settings.pusher_key:
            self._error(f"App key {self._key} not in this cluster", 4001)
        elif not version:
            self._error("No protocol version supplied", 4008)
        elif not version.isdecimal():
            self._error("Invalid version string format", 4006)
        elif version != "7":
            self._error("Unsupported protocol version", 4007)
        elif not self._struck("connect"):
            self._establish()

    def _establish(self, *, as_object: bool = False) -> None:
        data = {"socket_id": self.socket_id, "activity_timeout": self._stream.settings.activity_timeout}
        self.send(frame("pusher:connection_established", data if as_object else json.dumps(data)))

    def _error(self, message: str, code: int | None = None, *, keep_open: bool = False) -> None:
        """Send ``pusher:error``, and close the connection where the code says so."""
        self.send(frame("pusher:error", {"message": message, "code": code}))
        if code is not None and _closes(code) and not keep_open:
            self._put(code)

    def _struck(self, moment: str, channel: str = "") -> bool:
        fault = self._stream.faults.take(f"stream {moment}")
        if fault is not None:
            self.strike(fault, channel)
        return fault is not None

    def strike(self, fault: Fault, channel: str = "") -> None:
        """
        Let a fault befall this connection.

        :param fault: of the stream
        :param channel: the channel that was asked for, if one was
        """
        _FAULTS[fault.kind](self, fault, channel)

    def _strike_silence(self, _: Fault, __: str) -> None:
        self._silent = True
        deafen(self._transport)

    def _strike_close(self, fault: Fault, _: str) -> None:
        if fault.abrupt:
            reset_socket(self._transport)
        elif fault.code is None:
            self._transport.close()
        else:
            self._put(fault.code)

    def _strike_pusher_error(self, fault: Fault, _: str) -> None:
        self._error(fault.message, fault.code, keep_open=fault.keep_open)

    def _strike_frame(self, fault: Fault, channel: str) -> None:
        self.send(fault.text)
        if fault.when == "connect":
            self._establish()
        elif fault.when == "subscribe":
            self._confirm(channel)

    def _strike_object_data(self, fault: Fault, channel: str) -> None:
        if fault.when == "connect":
            self._establish(as_object=True)
        else:
            self._confirm(channel, as_object=True)

    def _strike_delay_subscription(self, fault: Fault, channel: str) -> None:
        confirm = asyncio.get_running_loop().call_later(fault.seconds, self._confirm, channel)
        self._delayed[channel] = confirm

    def _strike_ignore_subscription(self, _: Fault, __: str) -> None:
        """Do nothing: no answer comes, and no event."""

    def _strike_refuse_subscription(self, fault: Fault, channel: str) -> None:
        refused = {"type": "ServerError", "error": "The subscription was refused", "status": 503}
        self.send(frame(f"pusher{'_internal' * fault.internal}:subscription_error", refused, channel))

    def _handle(self, text: str | None) -> None:
        try:
            message = json.loads(text or "")
            event, data = message["event"], message.get("data")
        except (ValueError, TypeError, KeyError, AttributeError):
            self._error("Invalid message: a text frame with one JSON object and an event is wanted")
            return
        handle = _HANDLERS.get(event) if isinstance(event, str) else None
        if handle is None:
            self._error(f"Unknown event: {event}", 4301 if str(event).startswith("client-") else None)
        elif event in _OF_A_CHANNEL and not _names_channel(data):
            self._error("Invalid channel name")
        else:
            handle(self, data)

    def _ping(self, _: Any) -> None:
        self._stream.pings += 1
        self.send(frame("pusher:pong", "{}"))

    def _pong(self, _: Any) -> None:
        """Any message counts as life; a pong is nothing more."""
        self._stream.pongs += 1

    def _subscribe(self, data: dict[str, Any]) -> None:
        channel = data["channel"]
        if channel in self.channels or channel in self._delayed:
            self._error(f"Existing subscription to channel {channel}")
        elif not self._struck("subscribe", channel):
            self._confirm(channel)

    def _confirm(self, channel: str, *, as_object: bool = False) -> None:
        self._delayed.pop(channel, None)
        if channel.startswith(("private-", "presence-")):
            # The exchange has no private channel, so no signature for one can be right.
            refused = {"type": "AuthError", "error": "Invalid signature", "status": 401}
            self.send(frame("pusher:subscription_error", refused, channel))
        else:
            self.send(frame("pusher_internal:subscription_succeeded", {} if as_object else "{}", channel))
            self._stream.subscribe(self, channel)

    def _unsubscribe(self, data: dict[str, Any]) -> None:
        if delayed := self._delayed.pop(data["channel"], None):
            delayed.cancel()
        self._stream.unsubscribe(self, data["channel"])


def _names_channel(data: Any) -> bool:
    channel = data.get("channel") if isinstance(data, dict) else None
    return isinstance(channel, str) and CHANNEL.fullmatch(channel) is not None


_HANDLERS: dict[str, Callable[[PusherConnection, Any], None]] = {
    "pusher:ping": PusherConnection._ping,
    "pusher:pong": PusherConnection._pong,
    "pusher:subscribe": PusherConnection._subscribe,
    "pusher:unsubscribe": PusherConnection._unsubscribe,
}
_OF_A_CHANNEL = frozenset({"pusher:subscribe", "pusher:unsubscribe"})
_FAULTS: dict[str, Callable[[PusherConnection, Fault, str], None]] = {
    "silence": PusherConnection._strike_silence,
    "close": PusherConnection._strike_close,
    "pusher_error": PusherConnection._strike_pusher_error,
    "frame": PusherConnection._strike_frame,
    "object_data": PusherConnection._strike_object_data,
    "delay_subscription": PusherConnection._strike_delay_subscription,
    "ignore_subscription": PusherConnection._strike_ignore_subscription,
    "refuse_subscription": PusherConnection._strike_refuse_subscription,
}
