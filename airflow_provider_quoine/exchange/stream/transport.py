"""
One attempt at a Pusher connection: pysher's thread and framing, without pysher's defects.

The table of pysher's defects (pusher, Defects of pysher) says what each override is for; ``c:N`` is a line of
``pysher/connection.py`` 1.0.8. :mod:`~airflow_provider_quoine.exchange.stream.supervisor` reconnects, sends the
heartbeat and subscribes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import websocket
from pysher import Pusher
from pysher.connection import Connection

from airflow_provider_quoine.exchange.stream.abortable_socket import AbortableSocket
from airflow_provider_quoine.exchange.stream.events import Moment
from airflow_provider_quoine.exchange.stream.receiver import FrameReceiver

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.stream.endpoint import PusherEndpoint


_NORMAL_CLOSURE = (1000).to_bytes(2)
_REDIRECTS = range(300, 400)


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
        endpoint: PusherEndpoint,
        raw_socket: AbortableSocket,
        on_message: Callable[[bytes, Moment], None],
        on_end: Callable[[int | None, str], None],
    ) -> None:
        super().__init__(
            on_message,
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
        self._raw_socket = raw_socket
        self._on_end = on_end
        self._code: int | None = None
        self._reason = ""
        self.receiver = FrameReceiver(
            receive=self._receive, take=on_message, most=endpoint.max_message, clock=endpoint.clock
        )

    def run(self) -> None:
        try:
            self.socket = _App(
                self.url,
                socket=self._raw_socket.open(),
                on_open=self._on_open,
                on_message=self._on_message,
                on_error=self._on_error,
                on_close=self._on_close,
            )
            self.socket.run_forever(**self.socket_kwargs)
        except Exception as error:  # noqa: BLE001 - whatever ends the thread has to reach the supervisor
            self._note(None, _describe(error))
        finally:
            self._raw_socket.close()
            # RuntimeError: the loop is closed, so there is nobody to tell.
            with contextlib.suppress(RuntimeError):
                self._on_end(self._code, self._reason or "the connection ended without a word")

    def _on_open(self, *args: Any) -> None:
        """Send no ping: a server that refuses at once would reset the connection, and its close code would be lost."""
        # In place before the first frame is read; the handshake is read without it.
        stream: Any = self.socket.sock
        self._read_bytes: Callable[[int], bytes] = stream.frame_buffer.recv
        stream.frame_buffer = self.receiver

    def _receive(self, count: int) -> bytes:
        while True:
            # The heartbeat finds silence; the socket's time-out is there for writing.
            with contextlib.suppress(websocket.WebSocketTimeoutException):
                return self._read_bytes(count)

    def _on_message(self, *args: Any) -> None:
        """Take a message that came in fragments; the receiver has taken the others."""
        self.event_handler(args[-1], self.receiver.heard)

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
        self.socket.send(json.dumps({"event": event_name, "data": data}))

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

    :param on_message: as :meth:`.links.Network.connect` has it, like ``on_end``.
    :param worker: the thread that sends, which may block while the network takes nothing.
    """

    protocol = 7
    client_id = "airflow-provider-quoine"

    def __init__(
        self,
        endpoint: PusherEndpoint,
        *,
        on_message: Callable[[bytes, Moment], None],
        on_end: Callable[[int | None, str], None],
        worker: ThreadPoolExecutor,
        tls: ssl.SSLContext | None,
    ) -> None:
        host, port = endpoint.host, endpoint.port
        super().__init__(
            quote(endpoint.key, safe=""),
            secure=tls is not None,
            port=port,
            custom_host=f"[{host}]" if ":" in host else host,
            log_level=logging.WARNING,
        )
        self._timing, self._now, self._worker = endpoint.timing, endpoint.clock.monotonic, worker
        raw_socket = AbortableSocket(host=host, port=port, tls=tls)
        self.connection = _Connection(
            self.url, endpoint=endpoint, raw_socket=raw_socket, on_message=on_message, on_end=on_end
        )

    @property
    def heard(self) -> Moment:
        heard: Moment = self.connection.receiver.heard
        return heard

    def send(self, event: str, data: dict[str, str]) -> None:
        self._submit(lambda: self.connection.send_event(event, data))

    async def end(self, *, politely: bool) -> None:
        abort_at = self._now()
        try:
            if politely and self.connection.is_alive():
                abort_at += self._timing.close_timeout
                # The server's answer ends the thread.
                self._submit(lambda: self.connection.socket.send(_NORMAL_CLOSURE, websocket.ABNF.OPCODE_CLOSE))
            while self.connection.is_alive() and self._now() < abort_at + self._timing.thread_timeout:
                if self._now() >= abort_at:
                    self.connection.abort()
                await asyncio.sleep(0.002)
        finally:
            self.connection.abort()

    def _submit(self, send: Callable[[], None]) -> None:
        def try_to_send() -> None:
            # On a connection that is not there yet or any more; its end is told by the thread that reads.
            with contextlib.suppress(OSError, ValueError, websocket.WebSocketException, AttributeError):
                send()

        # RuntimeError: the sending thread is gone, because all is being closed.
        with contextlib.suppress(RuntimeError):
            self._worker.submit(try_to_send)
