"""Where applications are kept: encrypted, whole or not there, and not for longer than is said."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.sdk import crypto
from cryptography.fernet import Fernet

from airflow_provider_quoine.applications.application import Application, is_reference, new_reference, seal
from airflow_provider_quoine.applications.configuration import open_store
from airflow_provider_quoine.applications.store import RECORD_KEPT_FOR, ApplicationStore, QuoineApplicationsError
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.models import Document, OnboardingUser
from tests.support.documents import JPEG, PDF, PNG
from tests.support.leaks import contents, find

NOW = datetime(2026, 11, 26, 12, 0, 1, tzinfo=UTC)
APPLICATION = Application(
    user=OnboardingUser(
        first_name="Hanako", last_name="Suzuki-Marker", phone="09017901357", email="h@example.com", country="JP"
    ),
    documents={
        "id_document": Document(name="id_document.pdf", content=PDF),
        "proof_address": Document(name="proof_address.png", content=PNG),
        "bank_statement": Document(name="bank_statement.jpg", content=JPEG),
    },
)
RECORD = {"by": "op", "dag_id": "a_dag", "run_id": "a_run"}


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Give Airflow Fernet keys, the newest first."""

    def set_keys(*names: str) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", ",".join(names))
        crypto.get_fernet.cache_clear()

    set_keys(Fernet.generate_key().decode())
    yield set_keys
    monkeypatch.undo()
    crypto.get_fernet.cache_clear()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "quoine" / "applications"


@pytest.fixture
def store(folder: Path, clock: Clock, keys: Callable[..., None]) -> ApplicationStore:
    return ApplicationStore(str(folder), kept_for=timedelta(days=7), clock=clock)


@pytest.fixture
def reference(store: ApplicationStore) -> str:
    """An application that is there."""
    made = new_reference(NOW)
    assert store.add(made, APPLICATION, RECORD)
    return made


def names(folder: Path) -> list[str]:
    """The kinds of the files that are there."""
    return sorted(path.name.partition(".")[2] for path in folder.iterdir())


def test_what_is_read_is_what_was_stored(store: ApplicationStore, reference: str) -> None:
    assert store.read(reference) == APPLICATION
    assert store.record_of(reference) == RECORD


def test_files_are_encrypted_and_for_their_owner_only(folder: Path, reference: str) -> None:
    assert names(folder) == ["received", "sealed"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    personal = {"name": "Suzuki-Marker", "mail": "h@example.com", "document": "A document", "phone": "09017901357"}
    assert find(personal, contents(folder)) == set()


@pytest.mark.parametrize("written", ["", "file://", "local://"])
def test_a_local_folder_has_tight_rights_however_it_is_written(
    folder: Path, keys: Callable[..., None], written: str
) -> None:
    store = ApplicationStore(f"{written}{folder}", kept_for=timedelta(days=7))
    store.add(new_reference(NOW), APPLICATION, RECORD)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("damaged", [b"", b"{", b"\xff", b'{"by": '])
def test_a_record_that_is_damaged_is_none(
    store: ApplicationStore, folder: Path, reference: str, damaged: bytes
) -> None:
    (folder / f"{reference}.received").write_bytes(damaged)
    assert store.record_of(reference) == {}
    assert store.read(reference) == APPLICATION
    assert [kept.is_readable for kept in store.kept()] == [True]


def test_whatever_a_store_raises_is_said_in_one_way(
    store: ApplicationStore, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoCredentialsError(Exception):
        """As of a cloud's client: no ``OSError``, and with what nobody may see."""

    def fail(*_: object, **__: object) -> None:
        raise NoCredentialsError("a secret")

    for part in ("_names", "_text", "_write", "_remove", "_at"):
        monkeypatch.setattr(store, part, fail)
    steps: list[Callable[[], object]] = [
        store.kept,
        store.expire,
        lambda: store.add(reference, APPLICATION, RECORD),
        lambda: store.read(reference),
        lambda: store.user_of(reference),
        lambda: store.record_of(reference),
        lambda: store.settle(reference, user="hash"),
        lambda: store.discard(reference),
    ]
    for step in steps:
        with pytest.raises(QuoineApplicationsError, match="does not answer: NoCredentialsError") as caught:
            step()
        assert "secret" not in str(caught.value)


def test_the_reference_is_random_and_has_nothing_but_a_time() -> None:
    made = {new_reference(NOW) for _ in range(100)}
    assert len(made) == 100
    assert all(each.startswith("20261126T120001-") and is_reference(each) for each in made)


@pytest.mark.parametrize("wrong", ["", "../x", f"20261126T120001-{'A' * 20}", f"20261126T120001-{'a' * 20}/x"])
def test_what_is_no_reference_leads_nowhere(store: ApplicationStore, wrong: str) -> None:
    assert not is_reference(wrong)
    for look in (store.read, store.user_of, store.record_of):
        with pytest.raises(QuoineInputError, match="is no reference of an application"):
            look(wrong)


def test_the_second_of_a_reference_changes_nothing(store: ApplicationStore, reference: str) -> None:
    other = replace(APPLICATION, user=replace(APPLICATION.user, first_name="Jiro"))
    assert not store.add(reference, other, RECORD | {"by": "another"})
    assert store.read(reference) == APPLICATION
    assert store.record_of(reference) == RECORD


def test_it_is_removed_when_the_user_exists(store: ApplicationStore, folder: Path, reference: str) -> None:
    store.settle(reference, user="hash")
    assert names(folder) == ["received", "user"]
    assert store.user_of(reference) == "hash"
    with pytest.raises(QuoineInputError, match="There is no application"):
        store.read(reference)
    (kept,) = store.kept()
    assert (kept.is_readable, kept.has_user) == (False, True)


def test_it_is_not_read_after_its_time_and_then_removed(
    store: ApplicationStore, folder: Path, clock: Clock, reference: str
) -> None:
    clock.now = NOW + timedelta(days=7)
    assert store.expire() == 0
    assert store.read(reference) == APPLICATION
    clock.now += timedelta(seconds=1)
    with pytest.raises(QuoineInputError, match=r"at the latest after 7 days\. Nothing was sent"):
        store.read(reference)
    assert [kept.is_readable for kept in store.kept()] == [False]
    assert store.expire() == 1
    assert names(folder) == ["received"]
    clock.now = NOW + RECORD_KEPT_FOR + timedelta(seconds=1)
    store.expire()
    assert names(folder) == []


def test_a_late_second_submit_leaves_nothing(store: ApplicationStore, folder: Path, reference: str) -> None:
    sealed = (folder / f"{reference}.sealed").read_bytes()
    store.settle(reference, user="hash")
    (folder / f"{reference}.sealed").write_bytes(sealed)
    assert store.expire() == 1
    assert names(folder) == ["received", "user"]


def test_what_a_killed_writer_left_is_removed_after_a_day(store: ApplicationStore, folder: Path, clock: Clock) -> None:
    folder.mkdir(parents=True)
    (folder / f".{new_reference(NOW)}.sealed.1a2b3c4d.tmp").write_bytes(b"half")
    clock.now += timedelta(hours=23)
    store.expire()
    assert len(list(folder.iterdir())) == 1
    clock.now += timedelta(hours=2)
    store.expire()
    assert list(folder.iterdir()) == []
    assert store.kept() == []


def test_a_write_that_fails_leaves_nothing(
    store: ApplicationStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seal_and_fail(*_: object) -> Iterator[bytes]:
        yield b"a beginning"
        raise OSError("the disk is full")

    monkeypatch.setattr("airflow_provider_quoine.applications.store.seal", seal_and_fail)
    with pytest.raises(QuoineApplicationsError, match=r"does not answer: OSError\. Nothing was sent"):
        store.add(new_reference(NOW), APPLICATION, RECORD)
    assert list(folder.iterdir()) == []


def test_without_a_fernet_key_nothing_is_stored(
    store: ApplicationStore, folder: Path, keys: Callable[..., None]
) -> None:
    keys("")
    with pytest.raises(QuoineInputError, match="Airflow has no Fernet key"):
        store.add(new_reference(NOW), APPLICATION, RECORD)
    keys("no key")
    with pytest.raises(QuoineInputError, match=r"Fernet key .* cannot be used"):
        store.add(new_reference(NOW), APPLICATION, RECORD)
    assert not folder.exists()


def test_a_rotated_key_still_reads_it(store: ApplicationStore, reference: str, keys: Callable[..., None]) -> None:
    old, new = os.environ["AIRFLOW__CORE__FERNET_KEY"], Fernet.generate_key().decode()
    keys(new, old)
    assert store.read(reference) == APPLICATION
    keys(new)
    with pytest.raises(QuoineInputError, match="cannot be read: Airflow's Fernet key has changed"):
        store.read(reference)


@pytest.mark.parametrize("change", ["cut", "swapped", "renamed", "empty", "document lost"])
def test_what_was_changed_is_not_read(store: ApplicationStore, folder: Path, reference: str, change: str) -> None:
    path, other = folder / f"{reference}.sealed", new_reference(NOW)
    sealed = path.read_bytes()
    lines = sealed.split(b"\n")
    changed = {
        "cut": sealed[:-10],
        "swapped": b"\n".join([lines[0], lines[2], lines[1], lines[3]]),
        "renamed": b"\n".join(seal(other, APPLICATION)),
        "empty": b"",
        "document lost": b"\n".join(lines[:-1]),
    }
    path.write_bytes(changed[change])
    with pytest.raises(QuoineInputError, match="cannot be read") as caught:
        store.read(reference)
    assert "Hanako" not in str(caught.value)


def test_a_file_beyond_all_bounds_is_no_application(
    store: ApplicationStore, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_quoine.applications.store.MOST_BYTES", 10)
    with pytest.raises(QuoineInputError, match="There is no application"):
        store.read(reference)


def test_any_object_store_will_do(clock: Clock, keys: Callable[..., None]) -> None:
    from airflow.sdk.io import attach
    from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]  # has no types

    attach("memory", fs=MemoryFileSystem())
    store = ApplicationStore("memory://applications-of-a-test", kept_for=timedelta(days=7), clock=clock)
    made = new_reference(NOW)
    assert store.kept() == []
    assert store.add(made, APPLICATION, RECORD)
    assert not store.add(made, APPLICATION, RECORD)
    assert store.read(made) == APPLICATION
    store.settle(made, user="hash")
    assert [(kept.reference, kept.is_readable, kept.has_user) for kept in store.kept()] == [(made, False, True)]
    store.discard(made)
    assert store.kept() == []


def test_a_store_that_is_not_known_is_named(keys: Callable[..., None]) -> None:
    store = ApplicationStore("pigeon://loft", kept_for=timedelta(days=7))
    with pytest.raises(QuoineInputError, match=r"'pigeon://loft' \(\[quoine\] applications_path\)"):
        store.check()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, keys: Callable[..., None]) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = ApplicationStore(str(tmp_path / "file" / "below"), kept_for=timedelta(days=7))
    with pytest.raises(QuoineInputError, match="No application can be put into"):
        store.check()


def test_the_configuration_says_where_and_how_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    assert open_store().kept_for == timedelta(days=7)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("AIRFLOW__QUOINE__APPLICATIONS_DAYS", "0.5")
    monkeypatch.setenv("AIRFLOW__QUOINE__APPLICATIONS_PATH", str(tmp_path / "elsewhere"))
    assert open_store().kept_for == timedelta(hours=12)


def test_a_folder_of_one_host_is_refused_where_tasks_run_on_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: Callable[..., None]
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    with pytest.raises(QuoineInputError, match=r"CeleryExecutor.* may run tasks on others"):
        open_store().check()
    monkeypatch.setenv("AIRFLOW__QUOINE__APPLICATIONS_PATH", str(tmp_path / "shared"))
    open_store().check()


@pytest.mark.parametrize("path", ["applications", "file://applications", "local://applications"])
def test_a_path_that_each_process_would_look_for_elsewhere_is_refused(
    monkeypatch: pytest.MonkeyPatch, keys: Callable[..., None], path: str
) -> None:
    monkeypatch.setenv("AIRFLOW__QUOINE__APPLICATIONS_PATH", path)
    with pytest.raises(QuoineInputError, match="Give a path that begins with /"):
        open_store().check()


def test_it_is_removed_even_if_nothing_can_be_written(
    store: ApplicationStore, folder: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(store, "_write", fail)
    with pytest.raises(QuoineApplicationsError, match="does not answer: OSError"):
        store.settle(reference, user="hash")
    assert names(folder) == ["received"]


def test_nothing_is_shown_of_an_application() -> None:
    assert "Hanako" not in repr(APPLICATION)
