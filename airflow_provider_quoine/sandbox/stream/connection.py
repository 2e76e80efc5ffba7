"""One client's connection: the server side of Pusher protocol 7 (pusher, Protocol 7)."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from airflow_provider_quoine.sandbox.faults import Fault
from airflow_provider_quoine.sandbox.sockets import ignore_input, reset_socket
from airflow_provider_quoine.sandbox.stream.hub import Hub
from airflow_provider_quoine.sandbox.stream.protocol import closes, frame, names_channel

router = APIRouter()

_BACKLOG = 10_000  # frames that may be queued for a slow client


class PusherConnection:
    """A client's connection."""

    def __init__(self, *, websocket: WebSocket, key: str, hub: Hub) -> None:
        self._websocket = websocket
        self._key = key
        self._hub = hub
        self._transport: asyncio.Transport = websocket.state.transport
        self._frames: asyncio.Queue[str | int] = asyncio.Queue(maxsize=_BACKLOG)
        self._silent = False
        self.socket_id = f"{secrets.randbelow(10**6)}.{secrets.randbelow(10**9)}"
        self._delayed: dict[str, asyncio.TimerHandle] = {}
        self.channels: set[str] = set()

    async def serve(self) -> None:
        """Serve the client until either side closes the connection."""
        fault = self._hub.faults.take("stream handshake")
        if fault is not None:
            await self._fail_handshake(fault)
            return
        await self._websocket.accept()
        writer = asyncio.create_task(self._write())
        self._hub.add(self)
        try:
            self._begin()
            await self._read()
        finally:
            self._hub.remove(self)
            for delayed in self._delayed.values():
                delayed.cancel()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _fail_handshake(self, fault: Fault) -> None:
        if fault.kind == "refuse_handshake":
            await self._websocket.send_denial_response(Response(status_code=fault.status))
            return
        # The fault "silence": the handshake is never answered.
        while (await self._websocket.receive())["type"] != "websocket.disconnect":
            pass

    def send(self, item: str | int) -> None:
        """Queue a whole frame, the same text for all subscribers; or the code to close the connection with."""
        if self._silent:
            return
        try:
            self._frames.put_nowait(item)
        except asyncio.QueueFull:
            # The client does not read, so a close frame would not reach it either.
            reset_socket(self._transport)

    async def _write(self) -> None:
        try:
            while isinstance(item := await self._frames.get(), str):
                await self._websocket.send_text(item)
            await self._websocket.close(item)
        except WebSocketDisconnect:
            pass  # the reader gets it as well, and ends the connection

    async def _read(self) -> None:
        settings, pinged = self._hub.settings, False
        while True:
            try:
                async with asyncio.timeout(settings.pong_timeout if pinged else settings.activity_timeout):
                    message = await self._websocket.receive()
            except TimeoutError:
                # A client that hears events has no reason to ping: only one that was asked owes an answer.
                if pinged:
                    self._error("Pong reply not received in time", 4201)
                else:
                    self.send(frame("pusher:ping", "{}"))
                pinged = not pinged
                continue
            pinged = False
            if message["type"] == "websocket.disconnect":
                return
            self._handle(message.get("text"))

    def _begin(self) -> None:
        version = self._websocket.query_params.get("protocol", "")
        if self._key != self._hub.settings.pusher_key:
            self._error(f"App key {self._key} not in this cluster", 4001)
        elif not version:
            self._error("No protocol version supplied", 4008)
        elif not version.isdecimal():
            self._error("Invalid version string format", 4006)
        elif version != "7":
            self._error("Unsupported protocol version", 4007)
        elif not self._take_fault("connect"):
            self._establish()

    def _establish(self, *, as_object: bool = False) -> None:
        data = {"socket_id": self.socket_id, "activity_timeout": self._hub.settings.activity_timeout}
        self.send(frame("pusher:connection_established", data if as_object else json.dumps(data)))

    def _error(self, message: str, code: int | None = None, *, keep_open: bool = False) -> None:
        """Send ``pusher:error``, and close the connection if the code requires it."""
        self.send(frame("pusher:error", {"message": message, "code": code}))
        if code is not None and closes(code) and not keep_open:
            self.send(code)

    def _take_fault(self, moment: str, channel: str = "") -> bool:
        fault = self._hub.faults.take(f"stream {moment}")
        if fault is not None:
            self.apply_fault(fault, channel)
        return fault is not None

    def apply_fault(self, fault: Fault, channel: str = "") -> None:
        """
        Apply a fault to this connection.

        :param channel: the requested channel, for a fault in a subscription
        """
        _FAULTS[fault.kind](self, fault, channel)

    def _apply_silence(self, _: Fault, __: str) -> None:
        self._silent = True
        ignore_input(self._transport)

    def _apply_close(self, fault: Fault, _: str) -> None:
        if fault.abrupt:
            reset_socket(self._transport)
        elif fault.code is None:
            self._transport.close()
        else:
            self.send(fault.code)

    def _apply_pusher_error(self, fault: Fault, _: str) -> None:
        self._error(fault.message, fault.code, keep_open=fault.keep_open)

    def _apply_frame(self, fault: Fault, channel: str) -> None:
        self.send(fault.text)
        if fault.when == "connect":
            self._establish()
        elif fault.when == "subscribe":
            self._confirm(channel)

    def _apply_object_data(self, fault: Fault, channel: str) -> None:
        if fault.when == "connect":
            self._establish(as_object=True)
        else:
            self._confirm(channel, as_object=True)

    def _apply_delay_subscription(self, fault: Fault, channel: str) -> None:
        confirm = asyncio.get_running_loop().call_later(fault.seconds, self._confirm, channel)
        self._delayed[channel] = confirm

    def _apply_ignore_subscription(self, _: Fault, __: str) -> None:
        """Send no response, and later no event."""

    def _apply_refuse_subscription(self, fault: Fault, channel: str) -> None:
        refused = {"type": "ServerError", "error": "The subscription was refused", "status": 503}
        self.send(frame(f"pusher{'_internal' * fault.internal}:subscription_error", refused, channel))

    def _handle(self, text: str | None) -> None:
        try:
            message = json.loads(text or "")
            event, data = message["event"], message.get("data")
        except (ValueError, TypeError, KeyError, AttributeError):
            self._error("Invalid message: expected a text frame with one JSON object that has an event")
            return
        handle = _HANDLERS.get(event) if isinstance(event, str) else None
        if handle is None:
            self._error(f"Unknown event: {event}", 4301 if str(event).startswith("client-") else None)
        elif event in _NEED_CHANNEL and not names_channel(data):
            self._error("Invalid channel name")
        else:
            handle(self, data)

    def _ping(self, _: Any) -> None:
        self._hub.pings += 1
        self.send(frame("pusher:pong", "{}"))

    def _pong(self, _: Any) -> None:
        """Count it. Like any message, it has already reset the time-out."""
        self._hub.pongs += 1

    def _subscribe(self, data: dict[str, Any]) -> None:
        channel = data["channel"]
        if channel in self.channels or channel in self._delayed:
            self._error(f"Existing subscription to channel {channel}")
        elif not self._take_fault("subscribe", channel):
            self._confirm(channel)

    def _confirm(self, channel: str, *, as_object: bool = False) -> None:
        self._delayed.pop(channel, None)
        if channel.startswith(("private-", "presence-")):
            # The exchange has no private channels, so no signature for one is valid.
            refused = {"type": "AuthError", "error": "Invalid signature", "status": 401}
            self.send(frame("pusher:subscription_error", refused, channel))
        else:
            self.send(frame("pusher_internal:subscription_succeeded", {} if as_object else "{}", channel))
            self._hub.subscribe(self, channel)

    def _unsubscribe(self, data: dict[str, Any]) -> None:
        if delayed := self._delayed.pop(data["channel"], None):
            delayed.cancel()
        self._hub.unsubscribe(self, data["channel"])


_HANDLERS: dict[str, Callable[[PusherConnection, Any], None]] = {
    "pusher:ping": PusherConnection._ping,
    "pusher:pong": PusherConnection._pong,
    "pusher:subscribe": PusherConnection._subscribe,
    "pusher:unsubscribe": PusherConnection._unsubscribe,
}
_NEED_CHANNEL = frozenset({"pusher:subscribe", "pusher:unsubscribe"})
_FAULTS: dict[str, Callable[[PusherConnection, Fault, str], None]] = {
    "silence": PusherConnection._apply_silence,
    "close": PusherConnection._apply_close,
    "pusher_error": PusherConnection._apply_pusher_error,
    "frame": PusherConnection._apply_frame,
    "object_data": PusherConnection._apply_object_data,
    "delay_subscription": PusherConnection._apply_delay_subscription,
    "ignore_subscription": PusherConnection._apply_ignore_subscription,
    "refuse_subscription": PusherConnection._apply_refuse_subscription,
}


@router.websocket("/app/{key}")
async def connect(websocket: WebSocket, key: str) -> None:
    """Serve one client (api-reference II)."""
    await PusherConnection(websocket=websocket, key=key, hub=websocket.app.state.hub).serve()
