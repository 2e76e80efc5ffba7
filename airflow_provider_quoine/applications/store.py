"""
Where applications are kept: up to three files for each, and each file is whole or not there.

``REFERENCE.sealed`` has the person's data, encrypted. ``REFERENCE.received`` says who has sent the form and for which
DAG, and, once it was to be sent, what stands for the user in the ledger of payments; it makes the application one.
``REFERENCE.user`` has what stands for the user, and says that the exchange has the user. The first goes as soon as the
third is there, or its time is over. The others, which have no personal data, stay for a year: what has expired can
still be said.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import IO, TYPE_CHECKING

from airflow_provider_quoine.applications.application import (
    REFERENCE,
    Application,
    first_reference,
    is_reference,
    seal,
    the_fernet,
    unseal,
)
from airflow_provider_quoine.exchange.errors import QuoineError, QuoineInputError

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

RECORD_KEPT_FOR = timedelta(days=365)
HALF_WRITTEN_KEPT_FOR = timedelta(days=1)
"""Longer than a form may be open, so no writer can still be at it."""
MOST_BYTES = 500_000_000
"""Of a file with an application; a larger one is none."""

EXPECTED = "user"
"""In a record: what stands for the user in the ledger, once the application was to be sent."""

_FILE = re.compile(rf"({REFERENCE})\.(sealed|received|user)")
_HALF_WRITTEN = re.compile(rf"\.({REFERENCE})\..*\.tmp")


class QuoineApplicationsError(QuoineError):
    """The place of applications refuses, or does not answer."""


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except QuoineError:
        raise
    except Exception as error:  # each store has errors of its own
        raise QuoineApplicationsError(
            f"The place of applications ([quoine] applications_path) does not answer: {type(error).__name__}. Nothing "
            "was sent. Try again, or tell whoever keeps this Airflow."
        ) from error


@dataclass(frozen=True, kw_only=True)
class Kept:
    """
    What is there of an application.

    :param reference: of the application.
    :param is_readable: whether the person's data are still there.
    :param has_user: whether the exchange has the user.
    """

    reference: str
    is_readable: bool
    has_user: bool


class ApplicationStore:
    """
    The applications of one Airflow.

    :param path: a folder, as ``ObjectStoragePath`` knows them; it is made on first use.
    :param kept_for: after so long an application is removed, and is not read any more.
    :param unusable: why no application may be put there; empty if one may.
    :param clock: tells the time.
    """

    def __init__(
        self,
        path: str,
        *,
        kept_for: timedelta,
        unusable: str = "",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.kept_for = kept_for
        self._path = path
        self._unusable = unusable
        self._clock = clock

    @_in_words()
    def check(self) -> None:
        """
        See that an application can be put here.

        :raises QuoineInputError: if not, in words for the person who keeps this Airflow.
        """
        if self._unusable:
            raise QuoineInputError(self._unusable)
        the_fernet()
        try:
            if self._is_local:
                os.makedirs(self._folder.path, mode=0o700, exist_ok=True)
            else:
                self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise QuoineInputError(
                f"No application can be put into {self._path!r} ([quoine] applications_path): "
                f"{error.strerror or type(error).__name__}. Nothing was stored."
            ) from None

    @_in_words()
    def add(self, reference: str, application: Application, record: Mapping[str, str]) -> bool:
        """
        Keep an application.

        :param record: what is to be known of it without the person's data: nothing personal.
        :return: whether it is new; another one under the reference stays as it is.
        :raises QuoineInputError: if none can be put here.
        :raises QuoineApplicationsError: if the store refuses, or cannot be reached.
        """
        self.check()
        if self._has(f"{reference}.received"):
            return False
        self._write(f"{reference}.sealed", seal(reference, application))
        self._write(f"{reference}.received", [json.dumps(dict(record)).encode()])
        return True

    @_in_words()
    def read(self, reference: str) -> Application:
        """
        Return an application.

        :raises QuoineInputError: if there is none, or if it cannot be read.
        :raises QuoineApplicationsError: if the store cannot be reached.
        """
        path = self._at(reference, "sealed")
        try:
            if reference < self._oldest(self.kept_for) or path.stat().st_size > MOST_BYTES:
                raise FileNotFoundError
            return unseal(reference, path.read_bytes())
        except FileNotFoundError:
            raise QuoineInputError(
                f"There is no application {reference}: it was removed, at the latest after "
                f"{self.kept_for / timedelta(days=1):g} days. Nothing was sent. Have the form filled in again, on the "
                "page Quoine, Applicants."
            ) from None

    @_in_words()
    def user_of(self, reference: str) -> str:
        """Return what stands in the ledger of payments for the user whom the exchange has; empty if it has none."""
        return self._text(reference, "user")

    @_in_words()
    def expect(self, reference: str, *, user: str) -> None:
        """
        Write down for whom an application is, before it is sent: its user may be in doubt for longer than it is here.

        :param user: what stands for the user in the ledger.
        :raises QuoineApplicationsError: if the store refuses, or cannot be reached.
        """
        record = self.record_of(reference) | {EXPECTED: user}
        self._write(f"{reference}.received", [json.dumps(record).encode()])

    @_in_words()
    def record_of(self, reference: str) -> dict[str, str]:
        """Return what is known of an application without the person's data; empty if there is no such application."""
        text = self._text(reference, "received")
        with suppress(ValueError):
            record: dict[str, str] = json.loads(text)
            return record
        # There is none, or something has damaged it.
        return {}

    @_in_words()
    def settle(self, reference: str, *, user: str) -> None:
        """
        Remove the person's data at once, because the exchange has the user.

        :param user: what stands for the user in the ledger.
        :raises QuoineApplicationsError: if the store refuses, or cannot be reached.
        """
        try:
            self._write(f"{reference}.user", [user.encode()])
        finally:
            self._remove(f"{reference}.sealed")

    @_in_words()
    def discard(self, reference: str) -> None:
        """Remove an application of which nothing came."""
        for kind in ("received", "sealed"):
            self._remove(f"{reference}.{kind}")

    @_in_words()
    def kept(self) -> list[Kept]:
        """Return what is there, the newest first."""
        kinds: dict[str, set[str]] = {}
        oldest = self._oldest(self.kept_for)
        for found in map(_FILE.fullmatch, self._names()):
            if found:
                kinds.setdefault(found[1], set()).add(found[2])
        return [
            Kept(
                reference=reference,
                is_readable="sealed" in kinds[reference] and reference >= oldest,
                has_user="user" in kinds[reference],
            )
            for reference in sorted(kinds, reverse=True)
            if "received" in kinds[reference]
        ]

    @_in_words()
    def expire(self) -> int:
        """
        Remove the personal data whose time is over, or whose user exists, and what writers that were killed have left.

        :return: the number of applications that were removed.
        """
        names = self._names()
        there, removed = {*names}, 0
        kept_for, half_written, record = map(self._oldest, (self.kept_for, HALF_WRITTEN_KEPT_FOR, RECORD_KEPT_FOR))
        for name in names:
            if found := _HALF_WRITTEN.fullmatch(name):
                if found[1] < half_written:
                    self._remove(name)
            elif found := _FILE.fullmatch(name):
                reference, kind = found.groups()
                over = kind == "sealed" and (reference < kept_for or f"{reference}.user" in there)
                if over or reference < record:
                    self._remove(name)
                    removed += over
        return removed

    def _oldest(self, kept_for: timedelta) -> str:
        """Return what comes before all references that are not older."""
        return first_reference(self._clock() - kept_for)

    def _write(self, name: str, lines: Iterable[bytes]) -> None:
        temporary = self._folder / f".{name}.{secrets.token_hex(4)}.tmp"
        try:
            with self._new_file(temporary) as file:
                for line in lines:
                    file.write(line)
            temporary.replace(self._folder / name)
        finally:
            temporary.unlink(missing_ok=True)

    def _new_file(self, path: ObjectStoragePath) -> IO[bytes]:
        if self._is_local:
            return os.fdopen(os.open(path.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        file: IO[bytes] = path.open("wb")  # type: ignore[no-untyped-call]  # Airflow's
        return file

    def _text(self, reference: str, kind: str) -> str:
        with suppress(FileNotFoundError):
            return self._at(reference, kind).read_bytes().decode(errors="replace")
        return ""

    def _at(self, reference: str, kind: str) -> ObjectStoragePath:
        if not is_reference(reference):
            raise QuoineInputError(
                f"{reference!r:.80} is no reference of an application. Nothing was sent. Take it from the page Quoine, "
                "Applicants."
            )
        return self._folder / f"{reference}.{kind}"

    def _has(self, name: str) -> bool:
        return name in self._names()

    def _remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def _names(self) -> list[str]:
        folder = self._folder
        folder.fs.invalidate_cache(folder.path)
        # An object store has no empty folder.
        with suppress(FileNotFoundError):
            return [name.rpartition("/")[2] for name in folder.fs.ls(folder.path, detail=False)]
        return []

    @cached_property
    def _is_local(self) -> bool:
        from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]  # has no types

        return isinstance(self._folder.fs, LocalFileSystem)

    @cached_property
    def _folder(self) -> ObjectStoragePath:
        from airflow.sdk import ObjectStoragePath

        try:
            folder = ObjectStoragePath(self._path)
            _ = folder.fs
        except (ImportError, ValueError) as error:
            raise QuoineInputError(
                f"Applications are kept in {self._path!r} ([quoine] applications_path), which this process cannot "
                f"reach: {error}. Nothing was stored, and nothing was sent. Install the Airflow provider of that "
                "store, or correct the setting."
            ) from None
        return folder
