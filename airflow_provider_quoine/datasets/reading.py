"""Finds captures in a folder and reads their rows one by one, however large they are."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.formats.forms import rows_in
from airflow_provider_quoine.formats.manifest import SUFFIX, manifest_name, read_manifest

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

CHUNK = 1024 * 1024
"""Bytes that are read at once."""

_ROWS_FILE = re.compile(r"(?!_)(?P<stem>.+_\d{8}T\d{6}(?:\.\d+)?Z)_.*\.(?:jsonl|jsonl\.gz|parquet)")
"""The name of a file of rows."""


@dataclass(frozen=True, kw_only=True)
class StoredCapture:
    """
    A capture that is stored.

    :param root: its folder.
    :param stem: what the names of its parts begin with.
    """

    root: ObjectStoragePath
    stem: str

    def __str__(self) -> str:
        return f"{self.root}/{self.stem}"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """
        The manifest.

        :raises ManifestError: if it is not as a capture wrote it.
        :raises FileNotFoundError: if there is none.
        """
        return read_manifest((self.root / manifest_name(self.stem)).read_bytes())

    def files(self) -> Iterator[ObjectStoragePath]:
        """Yield the files that have rows or look like it, those that the manifest does not have among them."""
        for path in sorted(self.root.iterdir(), key=lambda path: path.name):
            found = _ROWS_FILE.fullmatch(path.name)
            if found and found["stem"] == self.stem:
                yield path

    def rows(self) -> Iterator[dict[str, Any]]:
        """
        Yield all rows of all parts in the manifest.

        :raises ValueError: if a part cannot be read.
        :raises OSError: likewise.
        """
        for entry in self.manifest["parts"]:
            with (self.root / entry["name"]).open("rb") as file:
                yield from rows_in(file, entry["name"])


def captures_in(path: str) -> list[StoredCapture]:
    """
    Find captures.

    :param path: a folder, in which and below which all are meant; the ``path`` of a capture's summary, or its
        manifest. All are paths or URIs that ``ObjectStoragePath`` knows.
    :raises QuoineInputError: if there is no capture.
    :raises OSError: if the store refuses, or cannot be reached.
    """
    from airflow.sdk import ObjectStoragePath

    folder, _, name = path.rstrip("/").rpartition("/")
    stem = name.partition("_*.")[0] if "*" in name else name.removeprefix("_").removesuffix(SUFFIX)
    if stem != name:
        return [StoredCapture(root=ObjectStoragePath(folder), stem=stem)]
    found = {}
    for file in ObjectStoragePath(path).rglob("*"):
        rows = _ROWS_FILE.fullmatch(file.name)
        if rows or (file.name.startswith("_") and file.name.endswith(SUFFIX)):
            stem = rows["stem"] if rows else file.name.removeprefix("_").removesuffix(SUFFIX)
            found[str(file.parent), stem] = StoredCapture(root=file.parent, stem=stem)
    if not found:
        raise QuoineInputError(f"There is no capture in {path}. Give a capture's folder, or the path of its summary.")
    return [found[key] for key in sorted(found)]


def one_capture(path: str) -> StoredCapture:
    """
    Find the one capture of a path, as :func:`captures_in`.

    :raises QuoineInputError: if there is none, or there are several.
    """
    captures = captures_in(path)
    if len(captures) > 1:
        raise QuoineInputError(f"There are {len(captures)} captures in {path}. Give the path of one's summary.")
    return captures[0]


class HashedFile(io.RawIOBase):
    """A file that is read once, from its beginning to its end, and hashed on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        chunk = self._file.read(len(buffer))
        self._hash.update(chunk)
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def digest(self) -> str:
        """Return the SHA-256 of the whole file: what is left of it is read now."""
        while chunk := self._file.read(CHUNK):
            self._hash.update(chunk)
        return self._hash.hexdigest()


def opened(path: ObjectStoragePath) -> BinaryIO:
    """
    Open a file.

    :raises OSError: if it cannot be read, or is no file: a pipe would have no end.
    """
    if not path.is_file():
        raise OSError("it is no file")
    return path.open("rb")  # type: ignore[no-any-return,no-untyped-call]  # Airflow's


def digest_of(path: ObjectStoragePath) -> str:
    """
    Return a file's SHA-256.

    :raises OSError: if it cannot be read.
    """
    with opened(path) as file:
        return HashedFile(file).digest()
