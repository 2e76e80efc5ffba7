"""
Verifies captures.

Every part must be there as it was written, every row in its place, and all that is missing stated.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.datasets.reading import CHUNK, HashedFile, captures_in, digest_of, opened
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.formats.entries import gaps_from, span_from, stretches_from
from airflow_provider_quoine.formats.forms import rows_in
from airflow_provider_quoine.formats.kinds import placed_by
from airflow_provider_quoine.formats.manifest import ManifestError, completeness, manifest_name, sums_of
from airflow_provider_quoine.formats.pieces import TOLERANCE, Gap, Span, outside

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_quoine.datasets.reading import StoredCapture

MOST_ROWS = 20
"""Rows out of order that are named of one part; the others are counted."""

INDENT = 10 * " "

NO_MANIFEST = "there is none: the capture has not ended, or somebody has removed it"

CANNOT_BE_READ = "it cannot be read"

SLOP = 1e-5
"""Seconds by which a sum of rounded seconds may differ."""


class FaultKind(StrEnum):
    """The kinds of damage."""

    MANIFEST = "manifest"
    """There is no manifest, or it was edited."""
    MISSING = "missing"
    """A part is not there."""
    CHANGED = "changed"
    """A part is not as it was written, or cannot be read."""
    DOUBLED = "doubled"
    """A file has what is another part's."""
    UNKNOWN = "unknown"
    """A file looks like a part, and the manifest does not have it."""
    ORDER = "order"
    """A row is not in its place: behind a later one, doubled, with a wrong number, or of another part's time."""
    SUMS = "sums"
    """Rows, gaps and times do not add up: something is missing that no gap states, or more is said than is there."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """
    Something that is wrong.

    :param file: the name of the file.
    :param what: in words.
    """

    kind: FaultKind
    file: str
    what: str


@dataclass(kw_only=True)
class Verification:
    """What was verified: captures, parts and rows; what is wrong, and how much of the captures is there."""

    captures: int = 0
    parts: int = 0
    rows: int = 0
    gap_seconds: float = 0.0
    completeness: float = 1.0
    faults: list[Fault] = field(default_factory=list)

    def as_dict(self) -> dict[str, int | float]:
        """Return the numbers."""
        numbers = {name: getattr(self, name) for name in ("captures", "parts", "rows", "gap_seconds", "completeness")}
        return {**numbers, "faults": len(self.faults)}

    def table(self, *, width: int) -> Iterator[str]:
        """
        Return it as lines for a person.

        :param width: characters of a line.
        """
        yield (
            f"{self.captures} captures, {self.parts} parts, {self.rows} rows; {self.gap_seconds:g} s of gaps, "
            f"completeness {self.completeness:.4%}"
        )
        for fault in self.faults:
            yield f"{fault.kind:9} {fault.file}"
            yield from textwrap.wrap(fault.what, width, initial_indent=INDENT, subsequent_indent=INDENT)


def verify(path: str) -> Verification:
    """
    Verify all captures of a path. One row is in memory at a time.

    :param path: as :func:`~airflow_provider_quoine.datasets.reading.captures_in`.
    :raises QuoineInputError: if there is no capture.
    :raises OSError: if the store refuses to list the files, or cannot be reached.
    """
    done = Verification()
    for capture in captures_in(path):
        done.captures += 1
        name = manifest_name(capture.stem)
        try:
            manifest = capture.manifest
        except FileNotFoundError:
            done.faults.append(Fault(kind=FaultKind.MANIFEST, file=name, what=NO_MANIFEST))
        except (OSError, ManifestError) as error:
            what = str(error) if isinstance(error, ManifestError) else f"{CANNOT_BE_READ}: {error}"
            done.faults.append(Fault(kind=FaultKind.MANIFEST, file=name, what=what))
        else:
            done.faults.extend(_faults_of_sums(manifest, name))
            done.faults.extend(_faults_of_files(capture, manifest, done))
    return done


def _faults_of_sums(manifest: Mapping[str, Any], name: str) -> Iterator[Fault]:
    entries = manifest["parts"]
    expected = sums_of(entries)
    expected["completeness"] = completeness(manifest["capture"], expected)
    for of, value in expected.items():
        if abs(manifest[of] - value) > SLOP:
            what = f"{of} is {manifest[of]}, and its parts give {value}"
            yield Fault(kind=FaultKind.SUMS, file=name, what=what)
    began_at, ends_at = span_from(manifest)
    ends = [(began_at, began_at), *(span_from(entry) for entry in entries), (ends_at, ends_at)]
    for (_, until), (since, _) in pairwise(ends):
        if until != since:
            what = f"no part is for the time from {until.isoformat()} until {since.isoformat()}"
            yield Fault(kind=FaultKind.SUMS, file=name, what=what)
    for entry in entries:
        for what in _wrong_in_entry(entry):
            yield Fault(kind=FaultKind.SUMS, file=entry["name"], what=what)


def _wrong_in_entry(entry: Mapping[str, Any]) -> Iterator[str]:
    span, gaps, stretches = span_from(entry), gaps_from(entry), stretches_from(entry)
    seconds = sum(gap["seconds"] for gap in entry["gaps"])
    if abs(sum(gap.seconds for gap in gaps) - entry["gap_seconds"]) + abs(seconds - entry["gap_seconds"]) > SLOP:
        yield f"gap_seconds is {entry['gap_seconds']}, and its gaps give {sum(gap.seconds for gap in gaps)}"
    if not all(span.since <= gap.since <= gap.until <= span.until for gap in gaps):
        yield "a gap is not of its time"
    if any(after.since < before.until for before, after in pairwise(gaps)):
        yield "gaps overlap"
    for unstated in outside([Gap(*span, "")], [*stretches, *gaps]):
        yield f"nobody listened for {unstated.seconds:g} s from {unstated.since.isoformat()}, and no gap states it"


def _faults_of_files(capture: StoredCapture, manifest: Mapping[str, Any], done: Verification) -> Iterator[Fault]:
    files = {path.name: path for path in capture.files()}
    done.gap_seconds += manifest["gap_seconds"]
    done.completeness = min(done.completeness, manifest["completeness"])
    # A part without rows is like any other without.
    known = {entry["sha256"]: entry["name"] for entry in manifest["parts"] if entry["rows"]}
    order = _Order(manifest)
    parts = manifest["parts"]
    for entry, after in zip_longest(parts, parts[1:]):
        done.parts += 1
        path = files.pop(entry["name"], None)
        if path is None:
            yield Fault(kind=FaultKind.MISSING, file=entry["name"], what="it is not there")
            continue
        order.begin(entry, after)
        try:
            done.rows += yield from _faults_of_part(path, entry, order, known)
        except OSError as error:
            what = f"{CANNOT_BE_READ}: {error}"
            yield Fault(kind=FaultKind.CHANGED, file=path.name, what=what)
    for name, path in files.items():
        original = None
        # Of what cannot be read nobody knows more than that it is there.
        with suppress(OSError):
            original = known.get(digest_of(path))
        what = f"it has the rows of {original} once more" if original else "the manifest does not have it"
        yield Fault(kind=FaultKind.DOUBLED if original else FaultKind.UNKNOWN, file=name, what=what)


def _faults_of_part(
    path: ObjectStoragePath, entry: Mapping[str, Any], order: _Order, known: Mapping[str, str]
) -> Generator[Fault, None, int]:
    """
    Read a part, once, and yield what is wrong with it.

    :param known: the names of all parts that have rows, by their SHA-256.
    :return: its rows; none if they are another part's.
    """
    out_of_order, unreadable = 0, ""
    named: list[Fault] = []
    with opened(path) as source:
        file = HashedFile(source)
        try:
            for row in rows_in(io.BufferedReader(file, CHUNK), path.name):
                if what := order.wrong_with(row):
                    out_of_order += 1
                    if out_of_order <= MOST_ROWS:
                        named.append(Fault(kind=FaultKind.ORDER, file=path.name, what=what))
        except QuoineInputError:
            raise
        except (ValueError, LookupError, TypeError) as error:
            unreadable = f"{CANNOT_BE_READ} after row {order.rows}: {error}"
        digest = file.digest()
    is_changed = digest != entry["sha256"]
    if is_changed and digest in known:
        # Those are of another time, so the order of what follows does not know of them.
        yield Fault(kind=FaultKind.DOUBLED, file=path.name, what=f"it has the rows of {known[digest]}")
        return 0
    yield from named
    if out_of_order > MOST_ROWS:
        yield Fault(kind=FaultKind.ORDER, file=path.name, what=f"{out_of_order - MOST_ROWS} rows more are out of order")
    sums = [] if unreadable else list(order.wrong_at_end())
    if is_changed or unreadable:
        changed = "its SHA-256 is not the manifest's" if is_changed else ""
        what = "; ".join(filter(None, [changed, unreadable, *sums]))
        yield Fault(kind=FaultKind.CHANGED, file=path.name, what=what)
    else:
        yield from (Fault(kind=FaultKind.SUMS, file=path.name, what=what) for what in sums)
    return order.rows


class _Order:
    """The place of each row, and what was due when."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        capture = manifest["capture"]
        self._field = placed_by(capture["stream"])
        self._began_at, _ = span_from(manifest)
        self._interval = None if capture["interval"] is None else timedelta(seconds=capture["interval"])
        self._last: datetime | None = None
        self._seqs: dict[str, int] = {}
        """The newest sequence number of each life."""
        self.rows = 0

    def begin(self, entry: Mapping[str, Any], after: Mapping[str, Any] | None) -> None:
        """Begin a part; its last moment may be in a gap that stands in the part after it."""
        self.rows = self._left_out = 0
        self._entry = entry
        self._span = span_from(entry)
        self._gaps = gaps_from(entry) + (gaps_from(after) if after else [])
        self._is_of_one_life = len({stretch.life for stretch in stretches_from(entry)}) == 1
        self._missing: list[datetime] = []
        self._accounted = self._span.since

    def wrong_with(self, row: Mapping[str, Any]) -> str:
        """Take the next row, and return what is wrong with its place; empty if nothing is."""
        self.rows += 1
        at = datetime.fromisoformat(row[self._field])
        if wrong := self._wrong_with(at, row):
            return f"row {self.rows}, of {row[self._field]}, {wrong}"
        return ""

    def _wrong_with(self, at: datetime, row: Mapping[str, Any]) -> str:
        if not self._span.holds(at):
            return "is not of this part's time"
        if self._interval and (at - self._began_at) % self._interval:
            return "was not due"
        if at in self._missing:
            self._missing.remove(at)
        if self._last is not None and at < self._last:
            return "comes after a later one"
        if self._interval and at == self._last:
            return "comes after one of the same time"
        if self._interval:
            self._account(at, self._interval)
        before, self._last = self._last, at
        return self._wrong_with_number(at, before, row)

    def _wrong_with_number(self, at: datetime, last: datetime | None, row: Mapping[str, Any]) -> str:
        seq = row["seq"]
        if self._interval:
            number = (at - self._began_at) // self._interval
            return "" if seq == number else f"has the number {seq} instead of {number}"
        life, _, _ = row["connection"].rpartition("-")
        before, self._seqs[life] = self._seqs.get(life), seq
        if before is None:
            return ""
        if seq <= before:
            return f"has the number {seq} after {before}"
        # What another life has as well stands in the file once, and may be that life's row.
        whole = Span(self._span.since + TOLERANCE, self._span.until - TOLERANCE)
        if self._is_of_one_life and last and whole.holds(last) and whole.holds(at):
            is_stated = any(gap.since <= at and last <= gap.until for gap in self._gaps)
            self._left_out += 0 if is_stated else seq - before - 1
        return ""

    def wrong_at_end(self) -> Iterator[str]:
        """End a part, and return what of it does not add up."""
        if self.rows != self._entry["rows"]:
            yield f"it has {self.rows} rows, and the manifest says {self._entry['rows']}"
        if self._left_out:
            yield f"{self._left_out} numbers of rows are left out outside of the gaps"
        if self._interval:
            self._account(self._span.until + self._interval, self._interval)
            if len(self._missing) > self._entry["skipped"]:
                first = self._missing[0].isoformat()
                yield f"{len(self._missing)} snapshots are missing outside of the gaps, the first one of {first}"

    def _account(self, until: datetime, interval: timedelta) -> None:
        """Note what was due and is not there, between the last row and another moment."""
        number = (self._accounted - self._began_at) // interval + 1
        while (due := self._began_at + number * interval) < until and self._span.holds(due):
            if not any(gap.since <= due <= gap.until for gap in self._gaps):
                self._missing.append(due)
            number += 1
        self._accounted = until
