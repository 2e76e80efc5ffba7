"""Where the parts of a capture are kept: names that follow from run, stream and period; temporary file, then rename."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_quoine.captures.entries import entry_name, entry_of, fits, part_of, read_entry, write_entry
from airflow_provider_quoine.captures.lines import (
    read_lines,
    read_packed_lines,
    write_lines,
    write_packed_lines,
)
from airflow_provider_quoine.captures.parts import (
    Gap,
    Part,
    Row,
    Stretch,
    disjoint,
    merge,
    with_silence_stated,
)
from airflow_provider_quoine.captures.spec import FileFormat
from airflow_provider_quoine.exchange.errors import QuoineInputError

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_quoine.captures.spec import CaptureSpec

LONGEST_NAME = 80
"""Characters of a run's or task's id that a path carries."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_.=-]+")


def path_name(text: str) -> str:
    """Return an id as the name of a folder: what is not safe there is replaced, and then a checksum tells ids apart."""
    safe = _UNSAFE.sub("_", text)[:LONGEST_NAME]
    if safe == text and safe.strip("."):
        return safe
    return f"{safe.lstrip('.')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


MISMATCHES = 5
"""Readings of a part whose rows and entry do not fit until it counts as interrupted: a second copy writes both."""

MISMATCH_DELAY = 0.2
"""Seconds between two of them."""


class StoredPart(NamedTuple):
    """The contents of one stored part."""

    rows: int
    gaps: list[Gap]
    stretches: list[Stretch]


def _form(spec: CaptureSpec) -> tuple[Callable[[list[Row]], bytes], Callable[[bytes], list[Row]]]:
    """Return the functions that write and read the rows of a part."""
    if spec.file_format is FileFormat.JSONL:
        return write_lines, read_lines
    if spec.file_format is FileFormat.JSONL_GZ:
        return write_packed_lines, read_packed_lines
    try:
        from airflow_provider_quoine.captures.parquet import read_parquet, write_parquet
    except ImportError as error:
        raise QuoineInputError(
            f"Parquet needs pyarrow, which cannot be loaded where the triggerer runs ({error}). Nothing was captured. "
            "Install airflow-provider-quoine[parquet] there, or choose the format jsonl or jsonl.gz."
        ) from None
    return partial(write_parquet, stream=spec.stream, depth=spec.depth), read_parquet


class PartStore:
    """
    The files of one capture. Everything here may take long, so it belongs on a thread.

    Two who capture the same at the same time write the same names. Each reads a part right before it writes it, and
    merges, so between the two only that moment could be lost.

    :raises QuoineInputError: if its format needs a library that is not installed.
    """

    def __init__(self, spec: CaptureSpec) -> None:
        self.folder = spec.folder
        self._periods = spec.periods
        self._stem = f"{spec.label}_{spec.periods.began_at:%Y%m%dT%H%M%S.%f}".replace(".000000", "") + "Z"
        self._suffix = spec.file_format
        self._encode, self._decode = _form(spec)
        # Of no other writer, so that none renames what another is still writing.
        self._token = secrets.token_hex(4)

    @property
    def pattern(self) -> str:
        """The paths of all its parts."""
        return f"{self.folder.rstrip('/')}/{self._stem}_*.{self._suffix}"

    def name(self, period: int) -> str:
        """Return the name of a period's file."""
        return f"{self._stem}_{period:06d}.{self._suffix}"

    def open(self) -> dict[int, StoredPart]:
        """
        Make the folder, see that it can be written to, and read what is there of this capture.

        :return: by period.
        :raises QuoineInputError: if the path is of a store that is not known here, or holds a file that is no part.
        :raises OSError: if the store refuses, or cannot be reached.
        """
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except (ImportError, ValueError) as error:
            raise QuoineInputError(
                f"{self.folder!r} is of a store that the triggerer cannot write to: {error}. Nothing was captured. "
                "Install the Airflow provider of that store there, or give another path or URI."
            ) from None
        probe = self._root / f".{self._stem}.{self._token}.probe"
        probe.write_bytes(b"")
        # While it lies there: an object store knows a folder only by what is in it.
        found = self._found()
        probe.unlink()
        return {period: self._stored(self._read(path)) for period, path in found.items()}

    def write(self, part: Part, *, until: datetime) -> StoredPart:
        """
        Add to a period's file.

        :param until: up to then the file is to account for all time of its period.
        :raises QuoineInputError: if what is there is no part.
        :raises OSError: if the store refuses, or cannot be reached.
        """
        name = self.name(part.period)
        path, beside = self._root / name, self._root / entry_name(name)
        span = self._periods.span(part.period)
        while True:
            try:
                # Not asked for first: some stores answer that from an old list of theirs.
                there = self._read(path)
            except FileNotFoundError:
                there = Part(period=part.period)
            whole = with_silence_stated(merge(there, part), span._replace(until=min(until, span.until)))
            content = self._encode(whole.rows)
            entry = write_entry(entry_of(whole, span, name=name, content=content))
            # The entry first, so that rows are never there without one. Whoever writes the rows last sees to it that
            # the entry is theirs.
            self.put(entry_name(name), entry)
            self.put(name, content)
            if beside.read_bytes() == entry:
                return self._stored(whole)

    def put(self, name: str, content: bytes) -> None:
        """Write a file, which has its name only once it is whole."""
        temporary = self._root / f".{name}.{self._token}.tmp"
        temporary.write_bytes(content)
        temporary.replace(self._root / name)

    def sweep(self) -> None:
        """Remove temporary files of killed writers; a writer that still runs makes its own again."""
        for path in self._root.glob(f".*{self._stem}_*.tmp"):
            path.unlink(missing_ok=True)

    @cached_property
    def _root(self) -> ObjectStoragePath:
        from airflow.sdk import ObjectStoragePath

        return ObjectStoragePath(self.folder)

    def _found(self) -> dict[int, Any]:
        stem, suffix = f"{self._stem}_", f".{self._suffix}"
        numbered = {
            path.name[len(stem) : -len(suffix)]: path
            for path in self._root.iterdir()
            if path.name.startswith(stem) and path.name.endswith(suffix)
        }
        return {int(number): path for number, path in sorted(numbered.items()) if number.isdigit()}

    def _read(self, path: Any) -> Part:
        for attempt in range(MISMATCHES):
            time.sleep(MISMATCH_DELAY * bool(attempt))
            content = path.read_bytes()
            try:
                entry = read_entry((self._root / entry_name(path.name)).read_bytes())
                part = part_of(entry, self._decode(content), content)
            except (ValueError, LookupError, TypeError, FileNotFoundError) as error:
                raise QuoineInputError(
                    f"{path} is no part of this capture ({type(error).__name__}: {error}). It was left as it is. Move "
                    "it away, then clear this task."
                ) from None
            if fits(entry, content):
                break
        return part

    @staticmethod
    def _stored(part: Part) -> StoredPart:
        return StoredPart(len(part.rows), part.gaps, part.stretches)


def totals(stored: dict[int, StoredPart]) -> dict[str, int | float]:
    """Sum up parts; gaps that go on from one part to the next count once."""
    gaps = disjoint(gap for part in stored.values() for gap in part.gaps)
    stretches = [stretch for part in stored.values() for stretch in part.stretches]
    return {
        "files": len(stored),
        "rows": sum(part.rows for part in stored.values()),
        "gaps": len(gaps),
        "gap_seconds": round(sum(gap.seconds for gap in gaps), 6),
        "reconnects": sum(stretch.reconnects for stretch in stretches),
        "dropped": sum(stretch.dropped for stretch in stretches),
        "skipped": sum(stretch.skipped for stretch in stretches),
    }
