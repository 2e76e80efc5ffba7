"""Keeps the book of the request budget in a file, for one host."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from airflow_provider_quoine.exchange.budget.book import Book
from airflow_provider_quoine.exchange.budget.request_budget import BudgetStoreError
from airflow_provider_quoine.exchange.budget.rules import Rules

LOCK_WITHIN = 1.0
"""Seconds to wait for the lock, which is held for some ten microseconds at a time."""

HALF_BYTES = 4 * 1024 * 1024
"""The file has two halves, written in turn. It is sparse: on the disk it takes what the book needs."""

_HEAD = struct.Struct("<8sQQII")
_MAGIC = b"quoine-1"

Result = TypeVar("Result")


class FileStore:
    """
    A book in a file.

    The file is locked for each change. A process that is killed while it writes leaves the other half of the file,
    which is one change older. The file is opened for each change, so neither a fork nor a deleted file leads to two
    books.

    Times are seconds since boot, which no clock adjustment moves. After a boot, or on another host, the book goes on
    as if no time had passed since its last slot.

    :param path: the file; its folder is made if it is missing.
    :param rules: of the budget. A file that cannot be read counts as a window of them that was used evenly.
    """

    def __init__(self, *, path: Path, rules: Rules) -> None:
        self._path = path
        self._rules = rules

    def __str__(self) -> str:
        return f"the file {self._path}"

    def clock(self) -> float:
        """Return the seconds since boot, sleep of the machine included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def transact(self, change: Callable[[Book, float], Result]) -> Result:
        """See :meth:`~airflow_provider_quoine.exchange.budget.request_budget.BudgetStore.transact`."""
        try:
            file = self._locked()
            try:
                now = self.clock()
                book, number = self._read(file, now)
                result = change(book, now)
                _write(file, book, number)
            finally:
                os.close(file)
        except OSError as error:
            raise BudgetStoreError(f"{type(error).__name__}: {error.strerror or error}") from error
        return result

    def _locked(self) -> int:
        deadline = time.monotonic() + LOCK_WITHIN
        while True:
            file = self._open()
            try:
                _lock(file, deadline)
                # Deleted between opening and locking: another process may have begun a new one already.
                if os.fstat(file).st_nlink:
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(self._path, flags, 0o660)
        except FileNotFoundError:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._path, flags, 0o660)

    def _read(self, file: int, now: float) -> tuple[Book, int]:
        halves = [half for half in (_read_half(file, 0), _read_half(file, 1)) if half]
        if not halves:
            return (Book() if not os.fstat(file).st_size else self._used_evenly(now)), 0
        number, boot, book = max(halves, key=lambda half: half[0])
        if boot != _boot():
            last = book.times[-1] if book.times else now
            book.shift(now - last)
        return book, number

    def _used_evenly(self, now: float) -> Book:
        book = Book()
        for nth in range(self._rules.limit, 0, -1):
            book.add_slot(process=0, now=now - nth * self._rules.slot_lifetime / self._rules.limit)
        return book


def _lock(file: int, deadline: float) -> None:
    pause = 0.0002
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, f"another process has locked it for {LOCK_WITHIN:g} s") from None
            time.sleep(pause)
            pause = min(2 * pause, 0.01)
        else:
            return


def _read_half(file: int, which: int) -> tuple[int, int, Book] | None:
    data = os.pread(file, 16 * 1024, which * HALF_BYTES)
    if len(data) < _HEAD.size:
        return None
    magic, number, boot, length, checksum = _HEAD.unpack_from(data)
    if magic != _MAGIC or length > HALF_BYTES - _HEAD.size:
        return None
    if length > len(data) - _HEAD.size:
        data = os.pread(file, _HEAD.size + length, which * HALF_BYTES)
    body = data[_HEAD.size : _HEAD.size + length]
    if zlib.crc32(body, number & 0xFFFFFFFF) != checksum:
        return None
    try:
        return number, boot, Book.from_bytes(body)
    except ValueError:
        return None


def _write(file: int, book: Book, number: int) -> None:
    number += 1
    body = book.to_bytes()
    if len(body) > HALF_BYTES - _HEAD.size:
        raise OSError(errno.EFBIG, "too many requests wait at once")
    checksum = zlib.crc32(body, number & 0xFFFFFFFF)
    os.pwrite(file, _HEAD.pack(_MAGIC, number, _boot(), len(body), checksum) + body, (number % 2) * HALF_BYTES)


@cache
def _boot() -> int:
    text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return int(text.strip().replace("-", ""), 16) & (2**64 - 1)
