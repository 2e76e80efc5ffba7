"""
Reads a form with files, bounded in everything: bytes are counted while they come, and nothing is on a disk.

What a browser would not send ends the request. What a person may do wrong, such as a file that is too large, is left to
the page, which says it beside the field.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import HTTPException, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

LARGEST_FILE_MB = 20
"""Of one file; the rest of a larger one is counted and dropped."""
MOST_FORM_BYTES = 100 * 1024 * 1024
"""Of a whole form. Up to there a person who chose a file that is too large is told so beside the field."""
MOST_TEXT_BYTES = 4096
MOST_HEADER_BYTES = 4096
"""Of one part."""
LONGEST_NAME = 255
"""Characters of a file's name."""
AT_ONCE = 4
"""Forms that one process has at the same time: each is in its memory until it is answered."""
AT_ONCE_OF_ONE = 2
"""Of these, forms of one person."""
SECONDS = 300
"""For a whole form."""

_sending: list[str] = []
"""Who sends the forms that this process has now."""
_lock = threading.Lock()


@dataclass(kw_only=True)
class Upload:
    """
    A file of a form.

    :param name: as the browser has sent it; nothing is stored under it.
    :param content: bytes; empty if the file is too large.
    :param size: bytes that came.
    """

    name: str
    content: bytearray = field(default_factory=bytearray, repr=False)
    size: int = 0


@dataclass(kw_only=True)
class SentForm:
    """
    A form as it was sent.

    :param texts: field → text.
    :param files: field → file.
    """

    texts: dict[str, str] = field(default_factory=dict, repr=False)
    files: dict[str, Upload] = field(default_factory=dict)


@contextmanager
def one_of_few(person: str) -> Iterator[None]:
    """
    Let a few forms in at the same time, each from its first byte until it is answered: so long it is in memory.

    :param person: Airflow's id of whoever sends it.
    :raises HTTPException: 429 if this person sends as many as one may; 503 if there are as many as there may be.
    """
    with _lock:
        if _sending.count(person) >= AT_ONCE_OF_ONE:
            raise HTTPException(
                429,
                f"You are sending {AT_ONCE_OF_ONE} other forms at this moment. Of this one nothing was stored: wait "
                "until they are through, then go back and send it again.",
            )
        if len(_sending) >= AT_ONCE:
            raise HTTPException(
                503, "Others are sending forms at this moment. Nothing was stored: go back, and send it again."
            )
        _sending.append(person)
    try:
        yield
    finally:
        with _lock:
            _sending.remove(person)


async def read_form(request: Request, *, texts: frozenset[str], files: frozenset[str]) -> SentForm:
    """
    Read a form of type ``multipart/form-data``.

    :param texts: names of its fields with text.
    :param files: names of its fields with files.
    :raises HTTPException: if it is none, not whole, too large or too slow, or has other fields than these.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise _refused("is no form with files")
    try:
        async with asyncio.timeout(SECONDS):
            return await _read(request, _Parts(texts, files), options[b"boundary"])
    except TimeoutError:
        raise _refused(f"did not come within {SECONDS} s", status=408) from None
    except ClientDisconnect:
        raise _refused("is cut off") from None
    except FormParserError:
        raise _refused("cannot be read") from None


async def _read(request: Request, parts: _Parts, boundary: bytes) -> SentForm:
    parser = MultipartParser(boundary, parts.callbacks())
    came = 0
    async for chunk in request.stream():
        came += len(chunk)
        if came > MOST_FORM_BYTES:
            raise _refused(f"has more than {MOST_FORM_BYTES // 1024**2} MiB", status=413)
        if parts.ended:
            continue
        parser.write(chunk)
    if not parts.ended or came != int(request.headers.get("content-length", came)):
        raise _refused("is cut off")
    return parts.form


class _Parts:
    """What a form's parser calls."""

    def __init__(self, texts: frozenset[str], files: frozenset[str]) -> None:
        self.form = SentForm()
        self.ended = False
        self._texts = texts
        self._files = files
        self._headers: dict[str, bytes] = {}
        self._name = b""
        self._value = b""
        self._header_bytes = 0
        self._field = ""
        self._text: bytearray | None = None
        self._file = Upload(name="")

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._take_name,
            "on_header_value": self._take_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._take,
            "on_part_end": self._close,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._headers, self._header_bytes = {}, 0

    def _count(self, number: int) -> None:
        self._header_bytes += number
        if self._header_bytes > MOST_HEADER_BYTES:
            raise _refused("has a part with too long a head")

    def _take_name(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._name += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value
        self._name = self._value = b""

    def _open(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        self._field = _text_of(options.get(b"name", b""))
        is_file = b"filename" in options
        expected: Mapping[bool, frozenset[str]] = {True: self._files, False: self._texts}
        seen = self._field in self.form.texts or self._field in self.form.files
        if self._field not in expected[is_file] or seen:
            raise _refused("has other fields than the page")
        if is_file:
            self._text, self._file = None, Upload(name=_text_of(options[b"filename"]))
            self.form.files[self._field] = self._file
        else:
            self._text = bytearray()

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._text is not None:
            self._text += data[start:end]
            if len(self._text) > MOST_TEXT_BYTES:
                raise _refused("has a field that is too long")
            return
        self._file.size += end - start
        if self._file.size <= LARGEST_FILE_MB * 1_000_000:
            self._file.content += data[start:end]
        else:
            self._file.content = bytearray()

    def _close(self) -> None:
        if self._text is not None:
            self.form.texts[self._field] = _text_of(self._text)

    def _end(self) -> None:
        self.ended = True


def _text_of(raw: bytes | bytearray) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _refused("has a text that is no UTF-8") from None


def _refused(why: str, *, status: int = 400) -> HTTPException:
    return HTTPException(status, f"This form {why}. Nothing was stored, and nothing was sent: open the page again.")
