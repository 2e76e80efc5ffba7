"""Where the parts of a capture are kept: names that follow from run, stream and period; temporary file, then rename."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.captures.parts import GONE, Part, PartKey, merge, silence
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.formats.entries import (
    StoredPart,
    digest_of,
    entry_name,
    entry_of,
    gaps_from,
    gaps_of,
    read_entry,
    span_from,
    stored_part,
    stretches_from,
    times_of,
    write_entry,
)
from airflow_provider_quoine.formats.forms import form_of
from airflow_provider_quoine.formats.manifest import as_bytes, manifest_name, manifest_of
from airflow_provider_quoine.formats.pieces import TOLERANCE, Gap, Row, Span, disjoint, within

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_quoine.captures.spec import CaptureSpec

MISMATCHES = 5
"""Readings of a part whose rows and entry do not fit until it counts as interrupted: a second copy writes both."""

MISMATCH_DELAY = 0.2
"""Seconds between two of them."""

MOST_TRIES = 5
"""How often a part is merged anew because another life has written it, or the one before it, meanwhile."""

BEFORE = "before"
"""Key of the entry that an entry replaces."""


class PartStore:
    """
    The files of one capture. Everything here may take long, so it belongs on a thread.

    Two lives that capture the same at the same time write the same names. Each reads a part, merges, and writes what is
    new under a temporary name. If the part is still what it has read, it gives that file the part's name, and removes
    the temporary files of all others: they were made of an older part. Who finds its own gone begins anew. So nothing
    is overwritten that the writer has not read, however the steps of the two follow each other.

    :raises QuoineInputError: if its format needs a library that is not installed.
    """

    def __init__(self, spec: CaptureSpec) -> None:
        self._spec = spec
        self.folder = spec.folder
        self.life = secrets.token_hex(4)
        """Of no other run of the capture. It marks the temporary files, too."""
        self._periods = spec.periods
        self.stem = f"{spec.label}_{spec.periods.began_at:%Y%m%dT%H%M%S.%f}".replace(".000000", "") + "Z"
        self._suffix = spec.file_format
        self._encode, self._decode = form_of(spec.file_format, stream=spec.stream, depth=spec.depth)
        self._marks: dict[PartKey, str | None] = {}
        """Of the files as this life wrote them last."""
        self._own: set[PartKey] = set()
        """Those in which it was the only one then."""

    @property
    def pattern(self) -> str:
        """The paths of all its parts."""
        return f"{self.folder.rstrip('/')}/{self.stem}_*.{self._suffix}"

    def name(self, period: int, cut: int = 0) -> str:
        """Return the name of a part's file; the order of the names is that of time."""
        return f"{self.stem}_{period:06d}{f'_{cut:06d}' if cut else ''}.{self._suffix}"

    def open(self) -> list[PartKey]:
        """
        Make the folder, see that it can be written to, and list what is there of this capture.

        :raises QuoineInputError: if the path is of a store that is not known here.
        :raises OSError: if the store refuses, or cannot be reached.
        """
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except (ImportError, ValueError) as error:
            raise QuoineInputError(
                f"{self.folder!r} is of a store that the triggerer cannot write to: {error}. Nothing was captured. "
                "Install the Airflow provider of that store there, or give another path or URI."
            ) from None
        probe = self._temporary(f"{self.stem}_probe", b"")
        # While it lies there: an object store knows a folder only by what is in it.
        found = self._keys()
        probe.unlink(missing_ok=True)
        return found

    def sums(self, key: PartKey) -> StoredPart:
        """
        Return the contents of a part, without its rows if their size is what its entry says.

        :raises QuoineInputError: if what is there is no part.
        :raises OSError: if it is not there, or the store cannot be reached.
        """
        entry = self._entry(key)
        with self._naming(self._path(key)):
            return stored_part(entry)

    def _entry(self, key: PartKey) -> dict[str, Any]:
        path = self._path(key)
        size = path.stat().st_size
        with self._naming(path):
            entry = self._entry_of(path)
            fits = entry["bytes"] == size
        return entry if fits else self._read(key)[1]

    def _entry_of(self, path: ObjectStoragePath) -> dict[str, Any]:
        entry = read_entry(self._beside(path).read_bytes())
        if entry["name"] != path.name:
            raise ValueError(f"its entry is that of {entry['name']!r:.200}")
        return entry

    def write(self, key: PartKey, part: Part, *, until: datetime) -> dict[PartKey, StoredPart]:
        """
        Add to the parts of a period.

        :param until: up to then the parts are to account for all time of their period.
        :return: the parts that were written.
        :raises QuoineInputError: if what is there is no part.
        :raises OSError: if the store refuses, or cannot be reached.
        """
        found, written = {*self._keys()}, dict[PartKey, StoredPart]()
        new, done = {key} - found, set[PartKey]()
        while True:
            keys, beyond = sorted({key, *found}), Part()
            spans = self._periods.spans(one for one in keys if one.period in (key.period, key.period + 1))
            for number, (at, span) in enumerate(spans.items(), keys.index(min(spans))):
                own = at.period == key.period
                news = [piece for each in (beyond, part) if (piece := each.within(span))]
                before = keys[max(0, number - 1) : number]
                # An event that two lives have on both sides of a border stays in the part before it.
                repeats = at in found and any(one in written and self._repeats(at, one, span) for one in before)
                if news or (own and not part) or at == key or self._divided(at, new, done) or repeats:
                    try:
                        whole = self._write(at, news or [Part()], span, until=until, beside=before, beyond=beyond)
                    except BaseException:
                        # Who tries again has what was taken out of one part, and is in no other yet.
                        part += Part(rows=beyond.rows, stretches=beyond.stretches)
                        raise
                    written[at] = _told(whole)
                    done.add(at)
            # Another life may have written meanwhile, and not have known of this.
            found = {*self._keys()}
            if late := found - {*keys}:
                new, done = new | late, set()
            elif not any(self._divided(at, new, done) for at in spans):
                return written

    def _write(
        self, key: PartKey, news: list[Part], span: Span, *, until: datetime, beside: list[PartKey], beyond: Part
    ) -> Part:
        """
        Add to a part.

        :param beyond: gets what the part had of the time of later ones.
        :return: what is in it now.
        """
        path, told = self._path(key), dict[str, Any]()
        entry_path = self._beside(path)
        for _ in range(MOST_TRIES):
            marks, merged, before = (self._mark(path), self._marks_of(beside)), Part(), None
            # Not asked for first: some stores answer that from an old list of theirs.
            with suppress(FileNotFoundError):
                merged, before = self._read(key, told)
            lives = {row.life for part in (merged, *news) for row in part.rows}
            edges = self._edges(span, beside, alone=lives <= {"", self.life})
            for new in news:
                merged = merge(merged, new, beside=edges)
            whole = merged.within(span)
            accounted = span._replace(until=min(until, span.until))
            silent = silence(accounted, [whole]) if accounted.since < accounted.until else []
            whole.gaps = disjoint(whole.gaps + silent)
            content = self._encode(whole.rows)
            told = entry_of(_told(whole), span, period=key.period, name=path.name, content=content)
            lives = {stretch.life for stretch in whole.stretches} | {row.life for row in whole.rows}
            (self._own.add if lives <= {"", self.life} else self._own.discard)(key)
            if told == before and read_entry(entry_path.read_bytes())["sha256"] == told["sha256"]:
                # Nothing is new. If two wrote all the same, each would make the other one look again, without an end.
                if (self._mark(path), self._marks_of(beside)) == marks:
                    self._marks[key] = marks[0]
                    return whole
                continue
            entry = write_entry({**told, BEFORE: before})
            ready = self._temporary(entry_path.name, entry), self._temporary(path.name, content)
            if (self._mark(path), self._marks_of(beside)) != marks:
                continue
            # The entry first, so that rows are never there without one. It has the entry before it, whose rows stay
            # if this writer is killed here.
            with suppress(FileNotFoundError):
                ready[0].replace(entry_path)
                ready[1].replace(path)
                beyond += merged.within(Span(span.until, self._periods.ends_at))
                self._withdraw(path.name)
                self._marks[key] = self._mark(path)
                stands = entry_path.read_bytes() == entry and path.read_bytes() == content
                if stands and self._marks_of(beside) == marks[1]:
                    return whole
        raise OSError(f"{path} is not as it was written: another one writes it, or the store does not keep it")

    def write_manifest(self) -> dict[str, Any]:
        """
        Write the manifest of what is stored, and return it.

        :raises OSError: if the store refuses, or cannot be reached.
        :raises QuoineInputError: if somebody has put something else in the place of a part.
        """
        whole = Span(self._periods.began_at, self._periods.ends_at)
        while True:
            state = self._state()
            entries = {key: self._entry(key) for key, (rows, _) in state.items() if rows is not None}
            unfinished = list[PartKey]()
            for key, span in self._periods.spans(state).items():
                period = self._periods.span(key.period)
                # Written by this life, and gone since; or its writer was killed before it looked for the next one.
                gone = [] if key in entries else [Gap(*period, GONE)]
                if gone or any(one.until > span.until for one in stretches_from(entries[key])):
                    self.write(key, Part(gaps=gone), until=period.until)
                    unfinished.append(key)
            if unfinished:
                continue
            told = [self._sealed(entries[key], span) for key, span in self._periods.spans(state).items()]
            manifest = manifest_of(self._spec.as_json(), whole, told)
            self.put(manifest_name(self.stem), as_bytes(manifest))
            if self._state() == state:
                return manifest

    def _state(self) -> dict[PartKey, tuple[str | None, str | None]]:
        """Return what changes whenever a part does, or its entry."""
        # A list may be old, or a part gone that was there; each period has one.
        keys = sorted({*self._keys(), *map(PartKey, range(self._periods.count))})
        return {key: (self._mark(path := self._path(key)), self._mark(self._beside(path))) for key in keys}

    def _sealed(self, entry: dict[str, Any], span: Span) -> dict[str, Any]:
        """Return an entry as it stands in the manifest, under its own time."""
        # A part that was written before the next one of its period began does not know its end.
        # Where the next one is gone, nobody says anything of that time.
        gaps = within(gaps_from(entry), span)
        gone = silence(span, [StoredPart(0, gaps, stretches_from(entry))], GONE)
        told = {**entry, **times_of(span), **gaps_of(disjoint(gaps + gone))}
        return {name: value for name, value in told.items() if name != BEFORE}

    def put(self, name: str, content: bytes) -> None:
        """Write a file, which has its name only once it is whole."""
        self._temporary(name, content).replace(self._root / name)

    def _temporary(self, name: str, content: bytes) -> ObjectStoragePath:
        temporary = self._root / f".{name}.{self.life}.tmp"
        temporary.write_bytes(content)
        return temporary

    def sweep(self) -> None:
        """Remove temporary files of killed writers; a writer that still runs makes its own again."""
        # Stores have errors of their own, and what is left lying there harms nobody.
        with suppress(Exception):
            self._withdraw(f"{self.stem}_")

    def _withdraw(self, name: str) -> None:
        """Remove the temporary files of a part, or of all."""
        for one in self._names():
            if name in one and one.startswith(".") and one.endswith(".tmp"):
                (self._root / one).unlink(missing_ok=True)

    @cached_property
    def _root(self) -> ObjectStoragePath:
        from airflow.sdk import ObjectStoragePath

        return ObjectStoragePath(self.folder)

    def _path(self, key: PartKey) -> ObjectStoragePath:
        return self._root / self.name(*key)

    def _beside(self, path: ObjectStoragePath) -> ObjectStoragePath:
        return self._root / entry_name(path.name)

    def _keys(self) -> list[PartKey]:
        """List the parts that are there, in the order of time."""
        form = re.compile(rf"{re.escape(self.stem)}_(\d+)(?:_(\d+))?\.{re.escape(self._suffix)}")
        return sorted(PartKey(int(one[1]), int(one[2] or 0)) for one in map(form.fullmatch, self._names()) if one)

    def _names(self) -> list[str]:
        root = self._root
        root.fs.invalidate_cache(root.path)
        # An object store has no empty folder.
        with suppress(FileNotFoundError):
            return [name.rpartition("/")[2] for name in root.fs.ls(root.path, detail=False)]
        return []

    def _marks_of(self, keys: list[PartKey]) -> list[str | None]:
        return [self._mark(self._path(key)) for key in keys]

    @staticmethod
    def _mark(path: ObjectStoragePath) -> str | None:
        """Return what changes whenever a file does; None if it is not there."""
        with suppress(FileNotFoundError):
            return str(path.fs.ukey(path.path))
        return None

    def _divided(self, key: PartKey, new: set[PartKey], done: set[PartKey]) -> bool:
        """
        Return whether a part may hold rows of another life that are of the time of a new part.

        :param done: what was written since the new part is known.
        """
        return any(key < one for one in new) and self._shared(key, self._own | done)

    def _shared(self, key: PartKey, own: set[PartKey] | None = None) -> bool:
        """Return whether another life may have rows in a part."""
        return key not in (self._own if own is None else own) or self._marks.get(key) != self._mark(self._path(key))

    def _repeats(self, key: PartKey, before: PartKey, span: Span) -> bool:
        """Return whether a part of another life may have an event that stands in the one before as well."""
        if not self._shared(key) and not self._shared(before):
            return False
        known = {row.event for row in self._edges(span, [before], alone=False)} - {None}
        return any(row.event in known for row in self._read(key)[0].rows if row.at <= span.since + TOLERANCE)

    def _edges(self, span: Span, keys: Iterable[PartKey], *, alone: bool) -> list[Row]:
        """
        Return the rows near a part that stand in the part before it.

        What the part after has does not matter: if each of two writers left an event to the other's part, it would
        be in none.

        :param alone: whether all that goes into it is this life's: then its own part before it does not matter.
        """
        near, rows = Span(span.since - TOLERANCE, span.since), list[Row]()
        for key in filter(self._shared, keys) if alone else keys:
            with suppress(FileNotFoundError):
                rows += [row for row in self._read(key)[0].rows if near.holds(row.at)]
        return rows

    def _read(self, key: PartKey, own: dict[str, Any] | None = None) -> tuple[Part, dict[str, Any]]:
        """
        Return a part and its entry, or the entry before if the rows are still that one's.

        :param own: the entry that this life wrote last: another one may have put its own there, and no rows.
        """
        path = self._path(key)
        for attempt in range(MISMATCHES):
            time.sleep(MISMATCH_DELAY * bool(attempt))
            content = path.read_bytes()
            with self._naming(path):
                entry, rows, digest = self._entry_of(path), self._decode(content), digest_of(content)
                fitting = [one for one in (entry, entry.pop(BEFORE, None), own) if one and one["sha256"] == digest]
                if fitting and fitting[0] is entry:
                    break
        with self._naming(path):
            if not fitting:
                # Nobody knows what is missing. So it says of no time that it was listened to, and who goes on states
                # all of it as a gap.
                unknown = StoredPart(len(rows), [], [])
                fitting = [entry_of(unknown, span_from(entry), period=key.period, name=path.name, content=content)]
            _, gaps, stretches = stored_part(fitting[0])
            return Part(rows=rows, gaps=gaps, stretches=stretches), fitting[0]

    @contextmanager
    def _naming(self, path: ObjectStoragePath) -> Iterator[None]:
        try:
            yield
        except (ValueError, LookupError, TypeError, FileNotFoundError) as error:
            raise QuoineInputError(
                f"{path} is no part of this capture ({type(error).__name__}: {error}). It was left as it is. Move it "
                "away, then clear this task."
            ) from None


def _told(part: Part) -> StoredPart:
    return StoredPart(len(part.rows), part.gaps, part.stretches)
