"""
One attempt at a Pusher connection: pysher's thread and framing, without pysher's defects.

The table of pysher's defects (pusher, Defects of pysher) says what each override is for; ``c:N`` is a line of
``pysher/connection.py`` 1.0.8. :mod:`~airflow_provider_quoine.exchange.stream.supervisor` reconnects, sends the
heartbeat and subscribes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import websocket
from pysher import Pusher
from pysher.connection import Connection

from airflow_provider_quoine.exchange.stream.abortable_socket import AbortableSocket
from airflow_provider_quoine.exchange.stream.messages import read_message
from airflow_provider_quoine.exchange.stream.receiver import FrameReceiver


@dataclass(frozen=True, slots=True)
class ConnectionEnd:
    """
    How a connection, or the attempt at one, ended.

    :param code: WebSocket close code or Pusher error code; None where the socket just broke.
    :param reason: the server's words or the system's; they may contain the application key.
    """

    code: int | None
    reason: str


MessageHandler = Callable[[bytes], bool]
"""Is offered a message before it is decoded, on pysher's thread; returns whether it took it."""

EventHandler = Callable[[bytes, str, Any, str | None], None]
"""Takes message, event name, data and channel (None for the connection's own events), on pysher's thread."""

_NORMAL_CLOSURE = (1000).to_bytes(2)
_REDIRECTS = range(300, 400)

EndHandler = Callable[[ConnectionEnd], None]


class _QuietOnOurThreads(logging.Filter):
    """Drops websocket-client's log records: it logs even a normal close as an error, and the supervisor logs losses."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not isinstance(threading.current_thread(), _Connection)


logging.getLogger("websocket").addFilter(_QuietOnOurThreads())


class _App(websocket.WebSocketApp):
    """Reads frame after frame; websocket-client would wait for the socket although more frames have been received."""

    def create_dispatcher(self, *args: Any, **kwargs: Any) -> Any:
        dispatcher: Any = super().create_dispatcher(*args, **kwargs)
        dispatcher.read = self._read
        return dispatcher

    def _read(self, sock: Any, read_frame: Callable[[], bool], check: Callable[[], bool]) -> None:
        while self.keep_running and read_frame():
            pass


class _Connection(Connection):  # type: ignore[misc]  # pysher has no types
    def __init__(
        self,
        url: str,
        *,
        raw_socket: AbortableSocket,
        on_message: MessageHandler,
        on_event: EventHandler,
        on_end: EndHandler,
    ) -> None:
        super().__init__(
            on_event,
            url,
            log_level=logging.WARNING,
            socket_kwargs={
                # Its validation is pure Python and seven times slower than all else; messages come as bytes.
                "skip_utf8_validation": True,
                # Looked at only for a socket that websocket-client opens itself, which is after an HTTP redirect:
                # there it fails, instead of carrying the key to where the redirect points, without a time-out.
                "proxy_type": "socks5",
                "http_proxy_host": "redirects-are-not-followed.invalid",
            },
        )
        self.name = "quoine-stream"
        self.last_received = time.monotonic()
        self._raw_socket = raw_socket
        self._take = on_message
        self._on_end = on_end
        self._code: int | None = None
        self._reason = ""
        self._warned = False

    def run(self) -> None:
        try:
            self._connect()
        except Exception as error:  # noqa: BLE001 - whatever ends the thread has to reach the supervisor
            self._note(None, _describe(error))
        finally:
            self._raw_socket.close()
            # RuntimeError: the loop is closed, so there is nobody to tell.
            with contextlib.suppress(RuntimeError):
                self._on_end(ConnectionEnd(self._code, self._reason or "the connection ended without a word"))

    def _connect(self) -> None:
        self.socket = _App(
            self.url,
            socket=self._raw_socket.open(),
            on_open=self._on_open,
            on_message=self._on_message,
            on_error=self._on_error,
            on_close=self._on_close,
        )
        self.socket.run_forever(**self.socket_kwargs)

    def _on_open(self, *args: Any) -> None:
        """Send no ping: a server that refuses at once would reset the connection, and its close code would be lost."""
        stream: Any = self.socket.sock
        receive = stream.frame_buffer.recv

        def receive_and_stamp(count: int) -> bytes:
            while True:
                # The heartbeat finds silence; the socket's time-out is there for writing.
                with contextlib.suppress(websocket.WebSocketTimeoutException):
                    data: bytes = receive(count)
                    self.last_received = time.monotonic()
                    return data

        # In place before the first frame is read; the handshake is read without it.
        stream.frame_buffer = FrameReceiver(receive=receive_and_stamp, take=self._take)

    def _on_message(self, *args: Any) -> None:
        payload = args[-1]
        message = read_message(payload)
        if message is None:
            # In pysher it would end the timers and leave a deaf connection behind (c:165).
            if not self._warned:
                self._warned = True
                self.logger.warning("The stream's server sends messages that are not Pusher's; they are left out.")
        elif message[0] == "pusher:ping":
            self.send_event("pusher:pong", {})
        else:
            self.event_handler(payload, *message)

    def _on_error(self, *args: Any) -> None:
        error = args[-1]
        status = self.socket.sock.getstatus() if self.socket.sock else None
        if status in _REDIRECTS:
            self._note(None, f"the server answered HTTP {status}; a redirect is not followed, name the right host")
        elif isinstance(error, websocket.ABNF):
            # websocket-client 1.9.0 hands over the raw close frame.
            self._note(*_close_frame(error))
        elif isinstance(error, websocket.WebSocketBadStatusException):
            self._note(None, f"the server answered HTTP {error.status_code} instead of opening a WebSocket")
        else:
            # websocket-client 1.9.2 puts the close code here.
            self._note(getattr(error, "status_code", None), getattr(error, "reason", None) or _describe(error))
        self.abort()

    def _on_close(self, *args: Any) -> None:
        # websocket-client 1.8 gives the close code here and nowhere else.
        code, reason = args[-2:]
        if code is not None:
            self._note(code, reason)

    def _note(self, code: int | None, reason: str | None) -> None:
        self._code = self._code or code
        self._reason = self._reason or reason or ""

    def send_event(self, event_name: str, data: Any, channel_name: str | None = None) -> None:
        """Send, and let a failure be raised: pysher swallows it (p:110-112)."""
        message = {"event": event_name, "data": data}
        if channel_name:
            message["channel"] = channel_name
        self.socket.send(json.dumps(message))

    def reconnect(self, reconnect_interval: float | None = None) -> None:
        self.abort()

    def disconnect(self, timeout: float | None = None) -> None:
        self.abort()

    def abort(self) -> None:
        if self.socket is not None:
            self.socket.keep_running = False
        self._raw_socket.abort()


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _close_frame(frame: websocket.ABNF) -> tuple[int | None, str]:
    payload = frame.data if isinstance(frame.data, bytes) else b""
    if len(payload) < 2:
        return None, ""
    return int.from_bytes(payload[:2]), payload[2:].decode("utf-8", "replace")


class PusherTransport(Pusher):  # type: ignore[misc]  # pysher has no types
    """
    A connection to a Pusher server, on one thread, which ends with the socket and reports the end.

    Used once: a new attempt takes a new object.

    :param on_message: offered each message first, if it came in one frame; on the connection's thread.
    :param on_event: called for every other message but pings, which are answered here; on the connection's thread.
    :param on_end: called once, last, on the connection's thread.
    """

    protocol = 7
    client_id = "airflow-provider-quoine"

    def __init__(
        self,
        *,
        key: str,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        on_message: MessageHandler,
        on_event: EventHandler,
        on_end: EndHandler,
    ) -> None:
        super().__init__(
            quote(key, safe=""),
            secure=tls is not None,
            port=port,
            custom_host=f"[{host}]" if ":" in host else host,
            log_level=logging.WARNING,
        )
        self._raw_socket = AbortableSocket(host=host, port=port, tls=tls)
        self.connection = _Connection(
            self.url, raw_socket=self._raw_socket, on_message=on_message, on_event=on_event, on_end=on_end
        )

    @property
    def last_received(self) -> float:
        """``time.monotonic()`` of the last message: any message is a sign of life (Channels protocol, 7)."""
        return float(self.connection.last_received)

    @property
    def is_alive(self) -> bool:
        """Whether the connection's thread still runs."""
        return bool(self.connection.is_alive())

    def send(self, event: str, data: dict[str, str]) -> None:
        """
        Send a message. May block while the network takes nothing: never call it on the event loop.

        :raises ConnectionError: if it could not be sent.
        """
        try:
            self.connection.send_event(event, data)
        except (OSError, ValueError, websocket.WebSocketException, AttributeError) as error:
            raise ConnectionError(f"{event} could not be sent: {error}") from error

    def send_close(self) -> None:
        """Send a close frame; the server's answer ends the thread. May block, as :meth:`send`."""
        with contextlib.suppress(OSError, ValueError, websocket.WebSocketException, AttributeError):
            self.connection.socket.send(_NORMAL_CLOSURE, websocket.ABNF.OPCODE_CLOSE)

    def abort(self) -> None:
        """End it without a close frame, from any thread, without blocking."""
        self.connection.abort()
