"""One attempt at a Pusher connection, on pysher's thread. What is overridden, and why: pusher, What is overridden."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast
from urllib.parse import quote

import websocket
from pysher import Pusher
from pysher.connection import Connection

from airflow_provider_quoine.exchange.stream.abortable_socket import AbortableSocket
from airflow_provider_quoine.exchange.stream.endpoint import PusherEndpoint
from airflow_provider_quoine.exchange.stream.events import Moment, OnEnd, OnMessages
from airflow_provider_quoine.exchange.stream.receiver import FrameReceiver

_NORMAL_CLOSURE = (1000).to_bytes(2)
_SWITCHED = 101


class _Pusher(Pusher):  # type: ignore[misc]  # pysher has no types
    protocol = 7


class PusherTransport(Connection):  # type: ignore[misc]  # pysher has no types
    """
    A connection to a Pusher server, on one thread, which ends with the socket and reports the end.

    Used once: a new attempt takes a new object.

    :param worker: the thread that sends, which may block while the network takes nothing.
    """

    def __init__(
        self,
        endpoint: PusherEndpoint,
        on_messages: OnMessages,
        on_end: OnEnd,
        *,
        worker: ThreadPoolExecutor,
        tls: ssl.SSLContext | None,
    ) -> None:
        host, port = endpoint.host, endpoint.port
        pusher = _Pusher(
            quote(endpoint.key, safe=""),
            secure=tls is not None,
            port=port,
            custom_host=f"[{host}]" if ":" in host else host,
            log_level=None,
        )
        super().__init__(on_messages, pusher.url)
        self.name = "quoine-stream"
        self._timing, self._now, self._worker, self._on_end = endpoint.timing, endpoint.clock.monotonic, worker, on_end
        self._raw_socket = AbortableSocket(host=host, port=port, tls=tls)
        self._receiver = FrameReceiver(receive=self._receive, take=on_messages, endpoint=endpoint)
        self._read_bytes: Callable[[int], bytes]

    def run(self) -> None:
        reason = ""
        try:
            self._connect()
            while self._receiver.closed_with is None:
                opcode, frame = self.socket.recv_data_frame()
                if opcode != websocket.ABNF.OPCODE_CLOSE:
                    # It came in fragments, or is binary: the receiver takes the others.
                    self.event_handler([frame.data], self._receiver.heard)
        except Exception as error:  # noqa: BLE001 - whatever ends the thread has to reach the supervisor
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        finally:
            self._raw_socket.close()
            # A close frame counts even if answering it has failed.
            code, words = self._receiver.closed_with or (None, "")
            # RuntimeError: the loop is closed, so there is nobody to tell.
            with contextlib.suppress(RuntimeError):
                self._on_end(code, words or reason or "the server closed the connection")

    def _connect(self) -> None:
        """
        Open the WebSocket, without the ping that pysher sends: a server that refuses at once would reset the
        connection, and its close code would be lost.

        :raises ConnectionError: if the server answers in HTTP.
        """
        # Its own validation of UTF-8 is pure Python and seven times slower than all else; messages come as bytes.
        self.socket = stream = cast(Any, websocket.WebSocket(skip_utf8_validation=True, enable_multithread=True))
        try:
            stream.connect(self.url, socket=self._raw_socket.open(), redirect_limit=0)
        except websocket.WebSocketException as error:
            status = getattr(error, "status_code", stream.getstatus())
            if status is None:
                raise
        else:
            status = stream.getstatus()
        if status != _SWITCHED:
            raise ConnectionError(f"HTTP {status} instead of a WebSocket; a redirect is not followed")
        self._read_bytes = stream.frame_buffer.recv
        stream.frame_buffer = self._receiver

    def _receive(self, count: int) -> bytes:
        while True:
            # The heartbeat finds silence; the socket's time-out is there for writing.
            with contextlib.suppress(websocket.WebSocketTimeoutException):
                return self._read_bytes(count)

    @property
    def heard(self) -> Moment:
        """The last byte of the last whole message: the last sign of life. Before the first, when it was made."""
        return self._receiver.heard

    def send(self, event: str, data: dict[str, str]) -> Future[Any] | None:
        """Send a message, without waiting. Where that fails, the connection's end is told, or a time-out passes."""
        return self._submit(json.dumps({"event": event, "data": data}), websocket.ABNF.OPCODE_TEXT)

    async def end(self, *, politely: bool) -> None:
        """End it, with a close frame first if politely; thread and socket are gone on return."""
        abort_at = self._now()
        try:
            if politely and self.is_alive():
                abort_at += self._timing.close_timeout
                # The server's answer ends the thread.
                self._submit(_NORMAL_CLOSURE, websocket.ABNF.OPCODE_CLOSE)
            while self.is_alive() and self._now() < abort_at + self._timing.thread_timeout:
                if self._now() >= abort_at:
                    self._raw_socket.abort()
                await asyncio.sleep(0.002)
        finally:
            # However often this is cancelled.
            self._raw_socket.abort()

    def _submit(self, payload: str | bytes, opcode: int) -> Future[Any] | None:
        # RuntimeError: the sending thread is gone, because all is being closed.
        with contextlib.suppress(RuntimeError):
            # Nobody reads its result: if it fails, the connection's end is told by the thread that reads.
            return self._worker.submit(lambda: self.socket.send(payload, opcode))
        return None
