"""Where the files of a capture are kept. None is ever changed: what several have of one time becomes a new one."""

from __future__ import annotations

import re
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.captures.parts import GONE, SECOND, Part, merge
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.formats import entries
from airflow_provider_quoine.formats.forms import form_of
from airflow_provider_quoine.formats.manifest import as_bytes, manifest_name, manifest_of
from airflow_provider_quoine.formats.pieces import TOLERANCE, Gap, Share, Span, outside, within

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_quoine.captures.spec import CaptureSpec


class PartStore:
    """
    The files of one capture. Everything here may take long, so it belongs on a thread.

    Each file has a name that no other writer can make, and is written once. If there are several of the same time, they
    are merged into another one, whose entry names them: in its time it takes their place. A file of which nothing is
    left is removed. So the steps of two writers may follow each other in any order, in any store that keeps whole
    files: both merge the same files at worst, and then merge what they have made.

    All methods raise OSError if the store refuses or cannot be reached, QuoineInputError if what is there is no part.

    :raises QuoineInputError: if its format needs a library that is not installed.
    """

    def __init__(self, spec: CaptureSpec) -> None:
        self._spec = spec
        self.folder = spec.folder
        self.life = secrets.token_hex(4)
        """Of no other run of the capture. The names of its files have it."""
        self._periods = spec.periods
        self.stem = f"{spec.label}_{spec.periods.began_at:%Y%m%dT%H%M%S.%f}".replace(".000000", "") + "Z"
        self._encode, self._decode = form_of(spec.file_format, stream=spec.stream, depth=spec.depth)
        self._form = re.compile(rf"{re.escape(self.stem)}_(\d+)(?:_.*)?\.{re.escape(spec.file_format)}")
        self._numbers = count(1)
        self._entries: dict[str, dict[str, Any]] = {}
        """Of the files that are there: each is read once."""
        self._gone: dict[str, Span] = {}
        """The times of the files that were there once. One that is listed again may be there again."""
        self._names = defaultdict[int, set[str]](set)
        """Those of both and of the newest list, by period."""
        self._found = set[int]()
        """Periods of which there was a file when this life began."""
        self._listed = set[str]()
        """Those of the newest list, which may be old."""
        self._shares: dict[int, list[Share]] = {}
        """What is left of the files of a period, as far as it was looked for since that list."""
        self._compared = set[tuple[str, ...]]()
        """Names of a file and of those before it, whose events were looked for in it."""

    @property
    def pattern(self) -> str:
        """The paths of all its parts."""
        return f"{self.folder.rstrip('/')}/{self.stem}_*.{self._spec.file_format}"

    def open(self) -> int:
        """
        Make the folder, see that it can be written to, and return how many files are there of this capture.

        :raises QuoineInputError: if the path is of a store that is not known here.
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
        self._look()
        self._found.update(self._names)
        probe.unlink(missing_ok=True)
        return sum(map(len, self._names.values()))

    def write(self, part: Part, span: Span) -> None:
        """
        Write what this life has of a part as a new file.

        :param span: from the part's beginning. Before this life listened it says nothing of it.
        """
        since = min((one.since for one in part.stretches), default=span.since)
        # At the end there may be a moment more.
        until = max([span.until, *(row.at for row in part.rows), *(gap.until for gap in part.gaps)])
        own = Span(since, min(until, self._periods.span(self._periods.number(span.since)).until))
        self._write(merge([part.within(own)]), own, span.since)

    def tidy(self, span: Span) -> None:
        """Make one file of those that have the same time, within a time of one period."""
        self._merged([self._periods.number(span.since)], span)

    def parts(self) -> list[entries.StoredPart]:
        """Return what the files say of themselves."""
        self._look()
        names = {share.name for period in [*self._names] for share in self._live(period)}
        return [entries.stored_part(self._entries[name]) for name in names]

    def write_manifest(self) -> dict[str, Any]:
        """Make one file of each time, write the manifest of them, and return it."""
        written, whole = None, Span(self._periods.began_at, self._periods.ends_at)
        while (told := self._merged(range(self._periods.count))) != written:
            manifest = manifest_of(self._spec.as_json(), whole, told)
            self._put({manifest_name(self.stem): as_bytes(manifest)})
            written = told
        self._sweep()
        return manifest

    def _merged(self, periods: Iterable[int], only: Span | None = None) -> list[dict[str, Any]]:
        """
        Merge files until there is nothing to merge, and return the entries of those of the periods then, in order.

        :param only: merge what has the same time within this span. Else all time is to be accounted for.
        """
        for _ in range(1_000):
            # Another life may have written meanwhile, but not each time.
            self._look()
            merged = [self._merge_first(period, only) for period in periods]
            if not any(merged):
                return [self._entries[share.name] for period in periods for share in self._live(period)]
        raise OSError("another one writes to these files all the time")

    def _merge_first(self, period: int, only: Span | None) -> bool:
        """Merge the files of the first part of a period that is not one file; return whether there is one."""
        of_period, shares = self._periods.span(period), self._live(period)
        begins = sorted({of_period.since, *(self._begin(share.name) for share in shares)})
        for begin, end in pairwise([*begins, of_period.until]):
            if only and (begin >= only.until or only.since >= end):
                continue
            there = within(shares, Span(begin, end))
            if only and len(there) < 2:
                continue
            span = Span(there[0].since, max(share.until for share in there)) if only else Span(begin, end)
            before, spans = self._before(span), [entries.span_from(self._entries[share.name]) for share in there]
            is_one = [span] == spans == [Span(*share[:2]) for share in there]
            if not is_one or self._may_repeat(there[0].name, before):
                self._merge(begin, span, there, before, is_one=is_one)
                return True
        return False

    def _before(self, span: Span) -> list[str]:
        """Return the files of the moment before a time: two lives may have an event on both sides."""
        if self._spec.schedule is not None:
            return []
        near = Span(max(span.since - TOLERANCE, self._periods.began_at), span.since)
        periods = range(self._periods.number(near.since), self._periods.number(near.until) + 1)
        return [*dict.fromkeys(share.name for period in periods for share in within(self._live(period), near))]

    def _may_repeat(self, name: str, before: list[str]) -> bool:
        """Return whether a file may have events of other lives in the ones before, and nobody has looked for them."""
        entry = self._entries[name]
        if before == entry["after"] or (name, *before) in self._compared:
            return False
        told = [one for one in (entry, *(self._entries[of] for of in before)) if one["rows"] or one["repeats"]]
        lives = {one["life"] for each in told for one in (*each["listened"], *each["missed"])} - {""}
        return len(lives) > 1 or bool(entry["repeats"])

    def _merge(self, begin: datetime, span: Span, shares: list[Share], before: list[str], *, is_one: bool) -> None:
        """Write one file of shares of a part; if they are one already, only if it has other repeats than it is to."""
        names = sorted({share.name for share in shares})
        parts = {name: part for name in sorted({*names, *before}) if (part := self._read(name)) is not None}
        if parts.keys() != {*names, *before}:
            # Another life has made another file of it meanwhile.
            return
        known = self._names[period := self._periods.number(begin)]
        gone = (
            [self._gone[name] for name in known & self._gone.keys()] if known or period not in self._found else [span]
        )
        pieces = [parts[share.name].within(Span(share.since, share.until)) for share in shares]
        pieces.append(Part(gaps=within(outside([Gap(*one, GONE) for one in gone], shares), span)))
        part = merge(pieces, before=[parts[name].within(Span(span.since - TOLERANCE, span.since)) for name in before])
        self._compared.update([(names[0], *before)] if is_one else [])
        if not is_one or part.repeats != parts[names[0]].repeats:
            # Also what those have replaced: of it there may be more than its time here, and so it may be there yet.
            replaces = {*names}.union(*(self._entries[name]["replaces"] for name in names)) - self._gone.keys()
            self._write(part, span, begin, replaces=sorted(replaces), after=before)

    def _write(
        self, part: Part, span: Span, begin: datetime, *, replaces: Sequence[str] = (), after: Sequence[str] = ()
    ) -> None:
        period = self._periods.number(begin)
        place = f"{period:06d}_{(begin - self._periods.span(period).since) // SECOND:06d}"
        name = f"{self.stem}_{place}_{self.life}-{next(self._numbers)}.{self._spec.file_format}"
        content = self._encode(part.rows)
        entry = entries.entry_of(
            entries.StoredPart(len(part.rows), part.missing(span), part.stretches),
            span,
            part_from=begin,
            name=name,
            content=content,
            missed=part.gaps,
            repeats=part.repeats,
            replaces=replaces,
            after=after,
        )
        # The entry first, so that rows are never there without one.
        self._put({entries.entry_name(name): entries.write_entry(entry), name: content})
        self._note(entry)

    def _put(self, files: dict[str, bytes]) -> None:
        """Write files, which get their names, in this order, once all of them are whole."""
        ready = {name: self._temporary(name, content) for name, content in files.items()}
        for name, path in ready.items():
            try:
                path.replace(self._root / name)
            except FileNotFoundError:
                raise OSError(f"somebody has removed {path} before it could be renamed") from None

    def _temporary(self, name: str, content: bytes) -> ObjectStoragePath:
        temporary = self._root / f".{name}.{self.life}.tmp"
        temporary.write_bytes(content)
        if self._size(temporary) != len(content):
            raise OSError(f"the store has not kept {temporary} as it was written")
        return temporary

    def _sweep(self) -> None:
        """Remove temporary files of killed writers; one that still runs tries again."""
        # Stores have errors of their own, and what is left lying there harms nobody.
        with suppress(Exception):
            for name in self._list():
                if name.startswith((f".{self.stem}", f"._{self.stem}")) and name.endswith(".tmp"):
                    (self._root / name).unlink(missing_ok=True)

    @cached_property
    def _root(self) -> ObjectStoragePath:
        from airflow.sdk import ObjectStoragePath

        return ObjectStoragePath(self.folder)

    def _list(self) -> list[str]:
        root = self._root
        root.fs.invalidate_cache(root.path)
        # An object store has no empty folder.
        with suppress(FileNotFoundError):
            return [name.rpartition("/")[2] for name in root.fs.ls(root.path, detail=False)]
        return []

    def _look(self) -> None:
        """List what looks like a file of rows; whether it is one says its entry."""
        listed = [match for match in map(self._form.fullmatch, self._list()) if match]
        for match in listed:
            self._names[int(match[1])].add(match[0])
        self._listed = {match[0] for match in listed}
        self._shares.clear()

    def _live(self, period: int) -> list[Share]:
        """Return what is left of a period's files, in the order of time, and remove those of which nothing is."""
        if period in self._shares:
            return self._shares[period]
        for name in sorted(self._names[period] - (self._gone.keys() - self._listed)):
            if name not in self._entries and not self._read_entry(name):
                self._names[period] -= {name} - self._gone.keys()
            elif name not in self._listed and self._size(self._root / name) is None:
                self._forget(name)
        there = {name: self._entries[name] for name in sorted(self._names[period] & self._entries.keys())}
        taken, first = defaultdict[str, list[Span]](list), dict[bytes, str]()
        for name, entry in there.items():
            span = entries.span_from(entry)
            for replaced in entry["replaces"]:
                taken[replaced].append(span)
            # Two lives have merged the same.
            if first.setdefault(entries.write_entry({**entry, "name": "", "after": []}), name) != name:
                taken[name].append(span)
        whole = (Share(*entries.span_from(entry), name) for name, entry in there.items())
        shares = sorted(share for one in whole for share in outside([one], taken[one.name]))
        for name in there.keys() - {share.name for share in shares}:
            # The rows first, so that they are never there without an entry.
            for each in (name, entries.entry_name(name)):
                (self._root / each).unlink(missing_ok=True)
            self._forget(name)
        self._shares[period] = shares
        return shares

    def _note(self, entry: dict[str, Any]) -> None:
        """Take an entry for that of a file which is there."""
        self._entries[entry["name"]] = entry
        self._gone.pop(entry["name"], None)
        period = self._periods.number(self._begin(entry["name"]))
        self._names[period].add(entry["name"])
        self._shares.pop(period, None)

    def _forget(self, name: str) -> None:
        """Take a file for one that is not there any more."""
        self._shares.pop(self._periods.number(self._begin(name)), None)
        self._gone[name] = entries.span_from(self._entries.pop(name))

    def _begin(self, name: str) -> datetime:
        """Return when the part begins that a file is of."""
        return datetime.fromisoformat(self._entries[name]["part_from"])

    @staticmethod
    def _size(path: ObjectStoragePath) -> int | None:
        """Return the bytes that a file has; None if it is not there."""
        path.fs.invalidate_cache(path.path)
        with suppress(FileNotFoundError):
            return int(path.stat().st_size)
        return None

    def _read_entry(self, name: str) -> bool:
        """Read the entry of a file; return whether that is still there."""
        path, content = self._root / name, b""
        with suppress(FileNotFoundError):
            content = (self._root / entries.entry_name(name)).read_bytes()
        if (size := self._size(path)) is None:
            return False
        with self._naming(path):
            entry = entries.read_entry(content)
            if (entry["name"], entry["bytes"]) != (name, size):
                raise ValueError(f"its entry is that of {entry['name']!r:.200} of {entry['bytes']!r:.20} bytes")
            self._note(entry)
        return True

    def _read(self, name: str) -> Part | None:
        """Read a file; None if it is not there any more."""
        path, entry = self._root / name, self._entries[name]
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            self._forget(name)
            return None
        with self._naming(path):
            if entries.digest_of(content) != entry["sha256"]:
                raise ValueError("its rows are not those that its entry is of")
            rows, gaps = self._decode(content), entries.missed_from(entry)
            repeats, stretches = entries.repeats_from(entry), entries.stretches_from(entry)
            return Part(rows=rows, repeats=repeats, gaps=gaps, stretches=stretches)

    @contextmanager
    def _naming(self, path: ObjectStoragePath) -> Iterator[None]:
        try:
            yield
        except (ValueError, LookupError, TypeError) as error:
            raise QuoineInputError(
                f"{path} is no part of this capture ({type(error).__name__}: {error}). It was left as it is. Move it "
                f"and {entries.entry_name(path.name)} away, then clear this task."
            ) from None
