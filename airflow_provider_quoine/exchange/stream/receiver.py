"""Takes the frames of a WebSocket many at a time, instead of websocket-client's three reads for each."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from websocket import ABNF

from airflow_provider_quoine.exchange.stream.endpoint import PusherEndpoint
from airflow_provider_quoine.exchange.stream.events import Moment, OnMessages

_CHUNK = 65_536
_WHOLE_TEXT = 0x81
_HEADER = Struct(">HH")
_COMMON_TEXT = _WHOLE_TEXT << 8 | 126
"""First half of the header of a whole text whose length is the second half."""
_EXTENDED = {126: 2, 127: 8}
"""Bytes of the length that follow a short one of these values (RFC 6455, 5.2)."""
_LEAST_FRAGMENT = 256
"""Bytes that a fragment counts at least: a message must not come in a million of them."""


class FrameReceiver:
    """
    Stands in for the ``frame_buffer`` of a ``websocket.WebSocket``.

    A handler takes each message in a single text frame. websocket-client gets every other frame as usual: control
    frames and fragments.

    :param receive: blocks until it has read at least one byte, and at most as many as asked for.
    :param take: is called with the messages that came together.
    :param endpoint: its bound on a message counts, and its clocks.
    """

    def __init__(self, *, receive: Callable[[int], bytes], take: OnMessages, endpoint: PusherEndpoint) -> None:
        self._receive = receive
        self._take = take
        self._most = endpoint.max_message
        self._clock = clock = endpoint.clock
        self._data = b""
        self._at = 0
        self._received = self.heard = Moment(clock.wall(), clock.monotonic())
        """When the last bytes came; when the last ones of a whole message did. One that is under way is no message."""
        self.closed_with: tuple[int | None, str] | None = None
        """Code and words of the server's close frame."""
        self._in_fragments = 0
        """Bytes of the message whose fragments come, as they count; 0 between messages."""

    def recv_frame(self) -> ABNF:
        """Return the next frame that is no whole text; of one that is too large nothing is read."""
        while True:
            self._take_texts_that_came()
            first, payload = self._next()
            if first == _WHOLE_TEXT and not self._in_fragments:
                self.heard = self._received
                self._take([payload], self._received)
                continue
            self._note_fragment(first >> 7, first & 0x0F, len(payload))
            frame = ABNF(first >> 7, first >> 6 & 1, first >> 5 & 1, first >> 4 & 1, first & 0x0F, 0, payload)
            frame.validate(skip_utf8_validation=True)
            if frame.opcode == ABNF.OPCODE_CLOSE:
                code = int.from_bytes(payload[:2]) if len(payload) >= 2 else None
                self.closed_with = code, payload[2:].decode("utf-8", "replace")
            return frame

    def _take_texts_that_came(self) -> None:
        """Take the whole texts of 126 to 65,535 bytes that were read: a busy stream is read in this loop."""
        data, at, texts = self._data, self._at, []
        size = 0 if self._in_fragments else len(data)
        while at + _HEADER.size <= size:
            kind, length = _HEADER.unpack_from(data, at)
            begin = at + _HEADER.size
            end = begin + length
            if kind != _COMMON_TEXT or end > size or length > self._most:
                break
            texts.append(data[begin:end])
            at = end
        if texts:
            self._at, self.heard = at, self._received
            self._take(texts, self._received)

    def _note_fragment(self, final: int, opcode: int, size: int) -> None:
        if self._in_fragments and opcode in (ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY):
            return  # a new message inside of another: websocket-client refuses it
        if opcode < ABNF.OPCODE_CLOSE:
            self._in_fragments = 0 if final else self._in_fragments + max(size, _LEAST_FRAGMENT)
        if not self._in_fragments:
            self.heard = self._received

    def _next(self) -> tuple[int, bytes]:
        self._need(2)
        first, length = self._data[self._at], self._data[self._at + 1]
        header = 2
        if length in _EXTENDED:
            header += _EXTENDED[length]
            self._need(header)
            length = int.from_bytes(self._data[self._at + 2 : self._at + header])
        elif length > max(_EXTENDED):
            raise ConnectionError("the server masks its frames, which only a client may do")
        if length + self._in_fragments > self._most:
            raise ConnectionError(
                f"the server sent a message of {length + self._in_fragments} bytes; the largest that is taken has "
                f"{self._most}"
            )
        self._need(header + length)
        begin, self._at = self._at + header, self._at + header + length
        return first, self._data[begin : self._at]

    def _need(self, count: int) -> None:
        """Read until this many bytes of the present frame are there."""
        missing = count - (len(self._data) - self._at)
        if missing <= 0:
            return
        chunks = [self._data[self._at :]]
        while missing > 0:
            chunk = self._receive(_CHUNK)
            self._received = Moment(self._clock.wall(), self._clock.monotonic())
            chunks.append(chunk)
            missing -= len(chunk)
        self._data, self._at = b"".join(chunks), 0
