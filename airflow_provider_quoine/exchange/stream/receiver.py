"""Takes the frames of a WebSocket many at a time, instead of websocket-client's three reads for each."""

from __future__ import annotations

from collections.abc import Callable

from websocket import ABNF

_CHUNK = 65_536
_WHOLE_TEXT = 0x81
_MASKED = 0x80
_LENGTH = 0x7F
_EXTENDED = {126: 2, 127: 8}
"""Bytes of the length that follow a short one of these values (RFC 6455, 5.2)."""


class FrameReceiver:
    """
    Stands in for the ``frame_buffer`` of a ``websocket.WebSocket``.

    Each message in a single text frame is offered to a handler first. websocket-client gets every other frame as usual:
    control frames, fragments, and messages that the handler did not take.

    :param receive: blocks until it has read at least one byte, and at most as many as asked for.
    :param take: returns whether it took the message.
    """

    def __init__(self, *, receive: Callable[[int], bytes], take: Callable[[bytes], bool]) -> None:
        self._receive = receive
        self._take = take
        self._data = b""
        self._at = 0
        self._in_fragments = False

    def recv_frame(self) -> ABNF:
        """Return the next frame that the handler did not take."""
        while True:
            first, mask, payload = self._next()
            if first == _WHOLE_TEXT and not self._in_fragments and self._take(payload):
                continue
            final, opcode = first >> 7, first & 0x0F
            if opcode < ABNF.OPCODE_CLOSE:
                self._in_fragments = not final
            frame = ABNF(final, first >> 6 & 1, first >> 5 & 1, first >> 4 & 1, opcode, mask, payload)
            frame.validate(skip_utf8_validation=True)
            return frame

    def _next(self) -> tuple[int, int, bytes]:
        self._need(2)
        first, second = self._data[self._at], self._data[self._at + 1]
        header, length, mask = 2, second & _LENGTH, second & _MASKED
        if length in _EXTENDED:
            header += _EXTENDED[length]
            self._need(header)
            length = int.from_bytes(self._data[self._at + 2 : self._at + header])
        if mask:
            header += 4
        self._need(header + length)
        begin, end = self._at + header, self._at + header + length
        payload = self._data[begin:end]
        if mask:
            payload = ABNF.mask(self._data[begin - 4 : begin], payload)
        self._at = end
        return first, mask, payload

    def _need(self, count: int) -> None:
        """Read until this many bytes of the present frame are there."""
        missing = count - (len(self._data) - self._at)
        if missing <= 0:
            return
        chunks = [self._data[self._at :]]
        while missing > 0:
            chunk = self._receive(_CHUNK)
            chunks.append(chunk)
            missing -= len(chunk)
        self._data, self._at = b"".join(chunks), 0
