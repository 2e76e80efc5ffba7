"""The files of a capture, on a real disk and in fsspec's memory."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]  # fsspec has no types

from airflow_provider_quoine.captures.parts import GONE, NOT_RUNNING, Part, merge
from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.captures.store import PartStore
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.formats import entries
from airflow_provider_quoine.formats.entries import (
    StoredPart,
    entry_name,
    gaps_from,
    read_entry,
    stored_part,
    stretches_from,
    totals,
)
from airflow_provider_quoine.formats.kinds import FileFormat
from airflow_provider_quoine.formats.lines import line_of, row_of
from airflow_provider_quoine.formats.pieces import Gap, Row, Span, Stretch

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def spec_of(folder: str, stream: str = "event", file_format: str = "jsonl") -> CaptureSpec:
    """A capture of three minutes in three parts."""
    given: dict[str, Any] = {"folder": folder, "stream": stream, "file_format": file_format, "duration": 180}
    if stream in ("order_book", "product"):
        given["interval"] = 1
    return CaptureSpec.of(**given, began_at=NOON.isoformat(), part_seconds=60, pair="btcjpy", channels=["a"])


PERIODS = spec_of("/captures").periods
END = PERIODS.ends_at
Stores = Callable[..., PartStore]

LINES: dict[str, dict[str, Any]] = {
    "order_book": {
        "seq": 30,
        "pair": "btcjpy",
        "due_at": "2026-01-02T12:00:30+00:00",
        "taken_at": "2026-01-02T12:00:30.000200+00:00",
        "bids": [["600.5", "0.00000001"], ["0.1", "9" * 40]],
        "asks": [],
        "bids_received_at": "2026-01-02T12:00:29.900000+00:00",
        "asks_received_at": "2026-01-02T11:59:00+00:00",
        "bids_age": 0.1,
        "asks_age": 90.0,
        "best_bid": "600.5",
        "best_ask": None,
        "mid": None,
        "spread": None,
        "crossed": None,
        "stale": True,
    },
    "product": {
        "seq": 30,
        "pair": "btcjpy",
        "due_at": "2026-01-02T12:00:30+00:00",
        "taken_at": "2026-01-02T12:00:30+00:00",
        "received_at": "2026-01-02T12:00:29+00:00",
        "age": 1.0,
        "stale": False,
        "id": "5",
        "code": "CASH",
        "currency_pair_code": None,
        "market_ask": "601",
        "market_bid": "600",
        "low_market_bid": None,
        "high_market_ask": None,
        "last_traded_price": "600.5",
        "last_traded_quantity": "0.1",
        "volume_24h": "1",
        "last_price_24h": None,
        "last_event_timestamp": "1767355229.5",
        "pusher_channel": None,
        "other": {"new": ["1.5", None]},
    },
    "execution": {
        "seq": 7,
        "pair": "btcjpy",
        "received_at": "2026-01-02T12:00:30.000001+00:00",
        "connection": "1234abcd-2",
        "id": "90001",
        "price": "600.5",
        "quantity": "0.1",
        "taker_side": "buy",
        "created_at": "2026-01-02T12:00:29+00:00",
    },
    "event": {
        "seq": 7,
        "received_at": "2026-01-02T12:00:30.000001+00:00",
        "connection": "1234abcd-1",
        "channel": "executions_cash_btcjpy",
        "event": "created",
        "data": '{"id": 1}\n\u2028 "quoted" 太郎',
    },
}


@pytest.fixture(params=["disk", "memory", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder on a disk, in memory, or in memory without folders: an object store has only what lies in them."""
    # As a provider of Airflow registers its own.
    attach("memory", fs=MemoryFileSystem())
    if request.param == "bucket":
        for name in ("mkdir", "makedirs"):
            monkeypatch.setattr(MemoryFileSystem, name, lambda *args, **kwargs: None)
    place = tmp_path / "captures" if request.param == "disk" else f"memory://{uuid.uuid4().hex}"
    return f"{place}/dag/run/task"


@pytest.fixture
def store_of(folder: str) -> Stores:
    def make(stream: str = "order_book", file_format: str = "jsonl") -> PartStore:
        return PartStore(spec_of(folder, stream, file_format))

    return make


def part_of(*seconds: float, period: int = 0, since: float = 0, until: float = 60, life: str = "1234abcd") -> Part:
    """A part with a row for each second, counted from the period's beginning."""
    begin = PERIODS.span(period).since
    rows = [row_of(book_line(begin + timedelta(seconds=second))) for second in seconds]
    times = begin + timedelta(seconds=since), begin + timedelta(seconds=until)
    stretch = Stretch(*times, reconnects=1, dropped=2, life=life, monotonic=17.25)
    return Part(rows=rows, stretches=[stretch])


def book_line(due_at: datetime) -> bytes:
    return line_of({"type": "order_book", **LINES["order_book"], "due_at": due_at.isoformat()})


def heard_at(second: float, life: str) -> Row:
    """A row of a life with the event x."""
    told = {"received_at": (NOON + timedelta(seconds=second)).isoformat(), "connection": f"{life}-1"}
    return row_of(line_of({"type": "event", "seq": 1, **told, "channel": "a", "event": "e", "data": "x"}))


def write(store: PartStore, part: Part, period: int = 0, *, since: float = 0, until: float = 60) -> None:
    """Have a store write a part of a period, cut at some seconds of it."""
    begin = PERIODS.span(period).since
    store.write(part, Span(begin + timedelta(seconds=since), begin + timedelta(seconds=until)))


def entries_of(store: PartStore) -> list[dict[str, Any]]:
    """The entries of all files, in the order of their names."""
    root = ObjectStoragePath(store.folder)
    return [read_entry((root / entry_name(name)).read_bytes()) for name in names(store.folder) if name[0] not in "._"]


def tidied(store: PartStore, period: int = 0) -> list[StoredPart]:
    """What the files say of themselves when those of one time are one."""
    store.tidy(PERIODS.span(period))
    return [stored_part(entry) for entry in entries_of(store)]


def rows_in(store: PartStore) -> list[list[Row]]:
    """The rows of all files."""
    names_of = [entry["name"] for entry in entries_of(store)]
    # What belongs to a life lists what it has not seen yet.
    store.parts()
    return [part.rows for part in map(store._read, names_of) if part is not None]


def file_of(store: PartStore, number: int = 0) -> ObjectStoragePath:
    """A file of rows, by its place in the order of time."""
    name: str = entries_of(store)[number]["name"]
    return ObjectStoragePath(store.folder) / name


def names(folder: str) -> list[str]:
    return sorted(path.name for path in ObjectStoragePath(folder).iterdir())


@pytest.mark.parametrize("stream", LINES)
@pytest.mark.parametrize("file_format", FileFormat)
def test_what_is_written_is_read_back_to_the_last_digit(store_of: Stores, stream: str, file_format: str) -> None:
    row = row_of(line_of({"type": stream, **LINES[stream]}))
    gap = Gap(NOON, NOON + timedelta(seconds=5), "the connection was reset", "1234abcd")
    stretch = Stretch(gap.until, PERIODS.span(0).until, 3, 4, 5, "1234abcd", 17.25)
    store = store_of(stream, file_format)
    assert store.open() == 0
    write(store, Part(rows=[row], gaps=[gap], stretches=[Stretch(NOON, gap.until, life="1234abcd"), stretch]))
    again = store_of(stream, file_format)
    assert again.open() == 1
    assert again.parts() == [(1, [gap._replace(life="")], [stretch])]
    # Merged with nothing new, its rows are those that were written.
    write(again, Part(gaps=[gap]))
    (part,) = tidied(again)
    assert part == (1, [gap._replace(life="")], [stretch])
    assert rows_in(again) == [[row]]


def test_a_row_that_could_not_be_read_goes_into_parquet_as_well(store_of: Stores) -> None:
    told = {name: LINES["execution"][name] for name in ("seq", "pair", "received_at", "connection")}
    told["unreadable"] = "{"
    nothing = dict.fromkeys(("id", "price", "quantity", "taker_side", "created_at"))
    store = store_of("execution", "parquet")
    store.open()
    write(store, Part(rows=[row_of(line_of({"type": "execution", **told}))]))
    ((row,),) = rows_in(store)
    assert json.loads(row.line) == {"type": "execution", **told, **nothing}


def test_a_file_has_rows_only_and_its_entry_says_what_they_are(store_of: Stores, folder: str) -> None:
    store = store_of()
    store.open()
    part = part_of(1, 30, 60)
    part.gaps.append(Gap(NOON, NOON + timedelta(seconds=0.5), "lost", "1234abcd"))
    write(store, part)
    name = f"order_book_btcjpy_20260102T120000Z_000000_000000_{store.life}-1.jsonl"
    assert names(folder) == [f"_{name}.json", name]
    content = (ObjectStoragePath(folder) / name).read_bytes()
    assert content.endswith(b"\n")
    assert [json.loads(line)["type"] for line in content.splitlines()] == 3 * ["order_book"]
    assert json.loads((ObjectStoragePath(folder) / f"_{name}.json").read_text()) == {
        "schema_version": 2,
        "name": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "part_from": "2026-01-02T12:00:00+00:00",
        "from": "2026-01-02T12:00:00+00:00",
        "until": "2026-01-02T12:01:00+00:00",
        "rows": 3,
        "gap_seconds": 0.5,
        "reconnects": 1,
        "dropped": 2,
        "skipped": 0,
        "gaps": [
            {
                "from": "2026-01-02T12:00:00+00:00",
                "until": "2026-01-02T12:00:00.500000+00:00",
                "seconds": 0.5,
                "reason": "lost",
            }
        ],
        "listened": [
            {
                "from": "2026-01-02T12:00:00.500000+00:00",
                "until": "2026-01-02T12:01:00+00:00",
                "life": "1234abcd",
                "monotonic": 17.75,
                "reconnects": 1,
                "dropped": 2,
                "skipped": 0,
            }
        ],
        "missed": [
            {
                "from": "2026-01-02T12:00:00+00:00",
                "until": "2026-01-02T12:00:00.500000+00:00",
                "life": "1234abcd",
                "reason": "lost",
            }
        ],
        "repeats": [],
        "replaces": [],
        "after": [],
    }


@pytest.mark.parametrize("file_format", FileFormat)
def test_a_writer_that_is_killed_between_entry_and_rows_leaves_what_was_there(
    store_of: Stores, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    store = store_of(file_format=file_format)
    store.open()
    write(store, part_of(10, 20, until=25), until=25)
    there, replace = store.parts(), ObjectStoragePath.replace

    def replace_and_die(self: ObjectStoragePath, target: ObjectStoragePath) -> None:
        replace(self, target)
        raise ZeroDivisionError

    with monkeypatch.context() as killed:
        killed.setattr(ObjectStoragePath, "replace", replace_and_die)
        with pytest.raises(ZeroDivisionError):
            write(store, part_of(30, since=25))
    again = store_of(file_format=file_format)
    assert again.parts() == there
    write(again, part_of(50, 60, since=45, life="5678"))
    (stored,) = tidied(again)
    assert stored.rows == 4
    assert stored.gaps == [Gap(NOON + timedelta(seconds=25), NOON + timedelta(seconds=45), NOT_RUNNING)]


def test_a_writer_that_is_killed_while_it_merges_costs_nothing_whatever_it_has_done(
    store_of: Stores, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    for step in count():
        store = PartStore(spec_of(f"{folder}/{step}", "order_book"))
        store.open()
        write(store, part_of(10, 20, until=25), until=25)
        write(store, part_of(20, 30, since=15, life="5678"))
        left = [step]

        def killed_at(change: Callable[..., object], left: list[int]) -> Callable[..., object]:
            def change_or_die(*given: Any, **named: Any) -> object:
                left[0] -= 1
                if left[0] < 0:
                    raise ZeroDivisionError
                return change(*given, **named)

            return change_or_die

        with monkeypatch.context() as dying:
            for name in ("write_bytes", "replace", "unlink"):
                dying.setattr(ObjectStoragePath, name, killed_at(getattr(ObjectStoragePath, name), left))
            with suppress(ZeroDivisionError):
                store.tidy(PERIODS.span(0))
        again = PartStore(spec_of(f"{folder}/{step}", "order_book"))
        assert [(part.rows, part.gaps) for part in tidied(again)] == [(3, [])]
        if left[0] >= 0:
            break
    assert step == 8


def test_rows_that_are_not_those_of_their_entry_are_no_part(store_of: Stores) -> None:
    store = store_of()
    store.open()
    write(store, part_of(10, 20))
    path = file_of(store)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    write(store, part_of(50, since=45, life="5678"))
    with pytest.raises(QuoineInputError, match="its rows are not those"):
        store.tidy(PERIODS.span(0))
    with pytest.raises(QuoineInputError, match=r"its entry is that of .* bytes"):
        store_of().parts()
    assert path.read_bytes() == content[: len(content) // 2]


def test_whoever_goes_on_adds_to_an_unfinished_part_and_states_the_time_between(store_of: Stores, folder: str) -> None:
    first, second = store_of(), store_of()
    first.open()
    write(first, part_of(10, 20, until=25), until=25)
    assert second.parts()[0].gaps == []
    write(second, part_of(50, 60, since=45, life="5678"))
    write(second, part_of(30, period=2, life="5678"), 2)
    manifest = second.write_manifest()
    assert [entry["name"].split("_")[4:6] for entry in manifest["parts"]] == [
        [f"{period:06d}", "000000"] for period in range(3)
    ]
    files = [entry["name"] for entry in manifest["parts"]]
    assert names(folder) == sorted(
        [*files, *map(entry_name, files), "_order_book_btcjpy_20260102T120000Z.manifest.json"]
    )
    assert [entry["rows"] for entry in manifest["parts"]] == [4, 0, 1]
    assert totals(store_of().parts()) == {
        "files": 3,
        "rows": 5,
        "gaps": 2,
        "gap_seconds": 80.0,
        "reconnects": 3,
        "dropped": 6,
        "skipped": 0,
    }


def test_gzip_of_the_same_part_is_the_same_file(store_of: Stores) -> None:
    store = store_of(file_format="jsonl.gz")
    store.open()
    for _ in range(2):
        write(store, part_of(5))
    first, second = (file_of(store, number).read_bytes() for number in range(2))
    assert first == second
    assert len(gzip.decompress(first).splitlines()) == 1


@pytest.mark.parametrize("file_format", FileFormat)
@pytest.mark.parametrize("content", [b"", b"{}\n", b'{"type":"order_book"}\n{"type":"pa', b"\x1f\x8b\x08\0", b"PAR1"])
def test_a_file_that_is_no_part_is_left_as_it_is(
    store_of: Stores, folder: str, file_format: str, content: bytes
) -> None:
    store = store_of(file_format=file_format)
    store.open()
    path = ObjectStoragePath(folder) / f"{store.stem}_000000_000000_1234abcd-1.{file_format}"
    path.write_bytes(content)
    write(store, part_of(1))
    for strike in (store.parts, lambda: store.tidy(PERIODS.span(0)), store.write_manifest):
        with pytest.raises(QuoineInputError, match="no part of this capture"):
            strike()
    assert path.read_bytes() == content


def test_a_part_of_the_form_before_this_one_is_refused_in_words(store_of: Stores, folder: str) -> None:
    store = store_of()
    store.open()
    root, name = ObjectStoragePath(folder), f"{store.stem}_000000.jsonl"
    (root / name).write_bytes(b"")
    (root / entry_name(name)).write_text(json.dumps({"schema_version": 1, "name": name, "bytes": 0}))
    with pytest.raises(QuoineInputError, match=r"_000000.jsonl is no part.*it is not of schema version 2"):
        store.write_manifest()


def test_half_a_character_in_an_event_keeps_no_part_from_being_written_and_doubles_nothing(store_of: Stores) -> None:
    store = store_of("event", "parquet")
    store.open()
    # JSON can say it: "\\ud800".
    row = row_of(line_of({"type": "event", **LINES["event"], "data": "a \ud800 b"}))
    part = Part(rows=[row], stretches=[Stretch(*PERIODS.span(0), life="1234abcd")])
    copy = row_of(row.line.replace(b"1234abcd", b"copycopy").replace(b"000001+", b"100001+"))
    for one in (part, part, Part(rows=[copy], stretches=part.stretches)):
        write(store, one)
        store.tidy(PERIODS.span(0))
    assert [[json.loads(row.line)["data"] for row in rows] for rows in rows_in(store)] == [["a \\ud800 b"]]


def test_a_damaged_parquet_file_is_named_and_is_no_failure_of_the_store(store_of: Stores) -> None:
    store = store_of(file_format="parquet")
    store.open()
    write(store, part_of(1))
    path = file_of(store)
    # pyarrow says of it what it says of a disk that cannot be read: OSError.
    content = path.read_bytes()
    content = content[:4] + bytes(16) + content[20:]
    path.write_bytes(content)
    # As if it had been written like that.
    beside = path.parent / entry_name(path.name)
    beside.write_text(json.dumps(json.loads(beside.read_text()) | {"sha256": hashlib.sha256(content).hexdigest()}))
    again = store_of(file_format="parquet")
    write(again, part_of(2))
    with pytest.raises(QuoineInputError, match="no part of this capture"):
        again.tidy(PERIODS.span(0))


def test_a_part_that_is_moved_away_while_it_is_read_is_not_there_and_no_foreign_file(
    store_of: Stores, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    store, other = store_of(), store_of()
    store.open()
    write(store, part_of(1))
    listed = PartStore._list

    def list_and_remove(self: PartStore) -> list[str]:
        found = listed(self)
        for name in found:
            (ObjectStoragePath(folder) / name).unlink()
        return found

    monkeypatch.setattr(PartStore, "_list", list_and_remove)
    assert other.parts() == store.parts() == []


@pytest.mark.parametrize(
    "without", ["sha256", "gaps", "listened", "missed", "repeats", "replaces", "after", "part_from"]
)
def test_an_entry_that_is_none_is_named_and_is_no_failure_of_the_store(
    store_of: Stores, folder: str, without: str
) -> None:
    store = store_of()
    store.open()
    write(store, part_of(1))
    beside = ObjectStoragePath(folder) / entry_name(file_of(store).name)
    entry = json.loads(beside.read_bytes())
    beside.write_bytes(json.dumps({name: value for name, value in entry.items() if name != without}).encode())
    again = store_of()
    write(again, part_of(2))
    with pytest.raises(QuoineInputError, match="no part of this capture"):
        again.tidy(PERIODS.span(0))


def test_half_written_files_of_the_killed_are_swept_up_and_nothing_else(store_of: Stores, folder: str) -> None:
    store = store_of()
    store.open()
    write(store, part_of(1))
    root, name = ObjectStoragePath(folder), file_of(store).name
    for each in (name, entry_name(name)):
        (root / f".{each}.12345678.tmp").write_bytes(b"half")
    (root / ".of-others.tmp").write_bytes(b"")
    store.write_manifest()
    assert [each for each in names(folder) if each[0] == "."] == [".of-others.tmp"]


def test_a_path_of_an_unknown_store_is_refused_in_words() -> None:
    store = PartStore(spec_of("nowhere://x"))
    with pytest.raises(QuoineInputError, match="store that the triggerer cannot write to"):
        store.open()


def test_a_path_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = PartStore(spec_of(str(tmp_path / "file" / "x")))
    with pytest.raises(OSError, match="file"):
        store.open()


def test_parquet_without_pyarrow_says_what_to_install(store_of: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "airflow_provider_quoine.formats.parquet", raising=False)
    with pytest.raises(QuoineInputError, match=r"airflow-provider-quoine\[parquet\]"):
        store_of(file_format="parquet")


def test_a_gap_that_goes_on_in_the_next_part_counts_once(store_of: Stores) -> None:
    store = store_of()
    store.open()
    for number in range(2):
        write(store, Part(gaps=[Gap(*PERIODS.span(number), "lost", "1234abcd")]), number)
    summed_up = totals(store_of().parts())
    assert (summed_up["gaps"], summed_up["gap_seconds"]) == (1, 120.0)


def test_a_manifest_reads_each_entry_once_and_again_if_one_has_come_meanwhile(
    store_of: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, read, put = store_of(), list[bytes](), PartStore._put
    store.open()
    for number in range(3):
        write(store, part_of(30, period=number), number)

    def count_and_read(content: bytes) -> dict[str, Any]:
        read.append(content)
        return read_entry(content)

    monkeypatch.setattr(entries, "read_entry", count_and_read)
    again = store_of()
    manifest = again.write_manifest()
    assert (manifest["rows"], manifest["gap_seconds"], len(read)) == (3, 0.0, 3)
    copies = [store_of()]

    def put_late(self: PartStore, files: dict[str, bytes]) -> None:
        if copies and self is not copies[0]:
            write(copies.pop(), part_of(40, period=1, life="5678"), 1)
        put(self, files)

    monkeypatch.setattr(PartStore, "_put", put_late)
    assert again.write_manifest()["rows"] == 4
    assert len(read) == 4


def test_a_period_is_several_parts_where_one_life_cut_it_and_the_other_did_not(store_of: Stores, folder: str) -> None:
    one, other = store_of("event"), store_of("event")
    one.open()

    def events_of(life: str, *seconds: int, since: float, until: float) -> Part:
        def row(second: int) -> Row:
            at = NOON + timedelta(seconds=second)
            told = {"received_at": at.isoformat(), "connection": f"{life}-1", "channel": "a", "event": "e"}
            return row_of(line_of({"type": "event", "seq": second, **told, "data": str(second)}))

        stretch = Stretch(NOON + timedelta(seconds=since), NOON + timedelta(seconds=until), life=life)
        return Part(rows=[row(second) for second in seconds], stretches=[stretch])

    write(one, events_of("one", 5, 10, since=0, until=10), until=10)
    write(one, events_of("one", 11, 29, since=10, until=30), since=10, until=30)
    # The other one has a time that spans both, and cuts elsewhere.
    write(other, events_of("other", 10, 11, 12, since=8, until=20), until=20)
    write(other, events_of("other", 29, 40, since=20, until=60), since=20)
    other.tidy(PERIODS.span(0))
    made = [name for name in names(folder) if name[0] != "_"]
    cuts = [f"event_20260102T120000Z_000000_{cut:06d}" for cut in (0, 10, 20)]
    assert [name.rpartition("_")[0] for name in made] == cuts
    assert [[json.loads(row.line)["seq"] for row in rows] for rows in rows_in(one)] == [[5, 10], [11, 12], [29, 40]]
    assert [part.gaps for part in tidied(one)] == [[], [], []]


def test_a_large_part_that_a_life_wrote_before_is_not_read_by_the_next_one_of_its_period(
    store_of: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = store_of(), store_of()
    one.open()
    write(one, part_of(1, until=20), until=20)
    write(one, part_of(21, since=20, until=40), since=20, until=40)
    # It knows of no cut, and its own first one is later.
    write(other, part_of(45, since=42, until=50, life="5678"), until=50)
    write(other, part_of(55, since=50, life="5678"), since=50)
    _, *later = (entry["name"] for entry in sorted(entries_of(one), key=lambda entry: entry["from"]))
    names_read, read = set[str](), PartStore._read

    def note_and_read(self: PartStore, name: str) -> Part | None:
        names_read.add(name)
        return read(self, name)

    monkeypatch.setattr(PartStore, "_read", note_and_read)
    other.tidy(PERIODS.span(0))
    assert names_read == {*later[:2]}


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_part_that_is_gone_when_the_capture_ends_is_a_gap_of_the_manifest(store_of: Stores, gone: int) -> None:
    store = store_of()
    store.open()
    write(store, part_of(1, until=20), until=20)
    write(store, part_of(since=20), since=20)
    for period in (1, 2):
        write(store, part_of(1, period=period), period)
    assert store.write_manifest()["gap_seconds"] == 0
    lost = Gap(
        *[
            Span(NOON, NOON + timedelta(seconds=20)),
            Span(NOON + timedelta(seconds=20), PERIODS.span(0).until),
            PERIODS.span(1),
        ][gone],
        GONE,
    )
    file_of(store, gone).unlink()
    manifest = store.write_manifest()
    assert [gap for part in manifest["parts"] for gap in gaps_from(part)] == [lost]
    assert manifest["gap_seconds"] == lost.seconds


def test_a_period_that_was_there_when_a_life_began_and_is_not_at_the_end_is_gone(store_of: Stores) -> None:
    store, again = store_of(), store_of()
    store.open()
    for period in range(3):
        write(store, part_of(1, period=period), period)
    assert again.open() == 3
    file_of(store, 1).unlink()
    manifest = again.write_manifest()
    assert [gap for part in manifest["parts"] for gap in gaps_from(part)] == [Gap(*PERIODS.span(1), GONE)]


def test_a_part_that_was_gone_for_a_while_is_not_stated_as_gone(store_of: Stores) -> None:
    store = store_of()
    store.open()
    for period in range(3):
        write(store, part_of(1, period=period), period)
    path = file_of(store, 1)
    content = path.read_bytes()
    path.unlink()
    assert len(store.parts()) == 2
    path.write_bytes(content)
    manifest = store.write_manifest()
    assert (manifest["rows"], manifest["gap_seconds"]) == (3, 0)
    path.unlink()
    assert store.write_manifest()["gap_seconds"] == 60
    path.write_bytes(content)
    manifest = store.write_manifest()
    assert (manifest["rows"], manifest["gap_seconds"]) == (3, 0)


def test_a_writer_that_always_finds_something_new_gives_way(store_of: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of()
    store.open()
    monkeypatch.setattr(PartStore, "_merge_first", lambda *_: True)
    with pytest.raises(OSError, match="another one writes to these files all the time"):
        store.tidy(PERIODS.span(0))


def test_a_file_that_a_list_does_not_show_yet_is_there_for_who_has_written_it(
    store_of: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of()
    store.open()
    old = store._list()
    for period in range(3):
        write(store, part_of(1, period=period), period)
    monkeypatch.setattr(PartStore, "_list", lambda self: old)
    manifest = store.write_manifest()
    assert (manifest["files"], manifest["rows"], manifest["gap_seconds"]) == (3, 3, 0)


@pytest.mark.parametrize("kept", [0.0, 0.5])
@pytest.mark.parametrize("of", ["rows", "entry"])
def test_a_store_that_says_success_and_keeps_nothing_or_half_is_an_error_and_the_next_try_is_whole(
    store_of: Stores, monkeypatch: pytest.MonkeyPatch, of: str, kept: float
) -> None:
    store, write_bytes = store_of(), ObjectStoragePath.write_bytes
    store.open()

    def keep_half(self: ObjectStoragePath, content: bytes) -> None:
        loses = self.name.startswith("._") == (of == "entry")
        if kept or not loses:
            write_bytes(self, content[: int(len(content) * kept)] if loses else content)

    with monkeypatch.context() as lying:
        lying.setattr(ObjectStoragePath, "write_bytes", keep_half)
        with pytest.raises(OSError, match="has not kept") as caught:
            write(store, part_of(1, 2))
    # Which would be a store that refuses.
    assert not isinstance(caught.value, FileNotFoundError)
    assert store_of().parts() == []
    write(store, part_of(1, 2))
    assert [part.rows for part in store_of().parts()] == [2]


def test_a_part_under_the_name_of_another_one_is_no_part(store_of: Stores, folder: str) -> None:
    store, root = store_of(), ObjectStoragePath(folder)
    store.open()
    for period in (0, 1):
        write(store, part_of(1, period=period), period)
    name, other = (file_of(store, number).name for number in range(2))
    for rename in (str, entry_name):
        (root / rename(name)).replace(root / rename(other))
    again = store_of()
    for strike in (again.parts, lambda: again.tidy(PERIODS.span(1)), again.write_manifest):
        with pytest.raises(QuoineInputError, match=r"its entry is that of .*_000000_000000_.*.jsonl"):
            strike()


def test_what_another_life_missed_is_no_gap_of_the_one_that_cuts_its_part_later(store_of: Stores) -> None:
    """The other one did not know of the cut when it wrote, so what it missed stands in the part before."""
    one, other = store_of(), store_of()
    one.open()
    opening = Gap(NOON + timedelta(seconds=25), NOON + timedelta(seconds=30), "not subscribed yet", "other")
    write(one, part_of(until=20, life="one"), until=20)
    late = part_of(since=25, life="other")
    late.gaps.append(opening)
    write(other, late)
    other.tidy(PERIODS.span(0))
    write(one, part_of(since=20, life="one"), since=20)
    one.write_manifest()
    first, second = entries_of(one)[:2]
    assert first["gaps"] == second["gaps"] == []
    assert [(each.life, each.since) for each in stretches_from(second)] == [
        ("one", NOON + timedelta(seconds=20)),
        ("other", opening.until),
    ]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_gap_that_becomes_known_late_ends_its_lifes_listening_in_whatever_order_files_are_merged(
    store_of: Stores, order: tuple[int, ...]
) -> None:
    """A slow life may merge what it has read before the gap was known, and write it long after."""
    stores = [store_of() for _ in range(3)]
    stores[0].open()
    gap = Gap(NOON + timedelta(seconds=20), NOON + timedelta(seconds=30), "lost", "deaf")
    write(stores[0], part_of(10, life="deaf"))
    write(stores[1], part_of(40, since=35, life="other"))
    assert len(stores[2].parts()) == 2
    there = [entry["name"] for entry in entries_of(stores[2])]
    merged = merge([part for part in map(stores[2]._read, there) if part is not None])
    work: list[Callable[[], object]] = [
        lambda: write(stores[0], Part(gaps=[gap])),
        lambda: stores[1].tidy(PERIODS.span(0)),
        lambda: stores[2]._write(merged, PERIODS.span(0), NOON, replaces=there),
    ]
    for number in order:
        work[number]()
    (stored,) = tidied(store_of())
    assert (stored.rows, stored.gaps) == (2, [gap._replace(life="")])
    assert not any(one.life == "deaf" and one.since < gap.until and gap.since < one.until for one in stored.stretches)


def test_two_that_merge_the_same_files_at_once_keep_one_of_the_two_that_they_make(
    store_of: Stores, folder: str
) -> None:
    stores = [store_of(), store_of()]
    stores[0].open()
    for store, life in zip(stores, ("one", "other"), strict=True):
        write(store, part_of(10, life=life))
    made = iter([stores[1]])
    merged = PartStore._merge

    def merge_at_once(self: PartStore, *given: Any, **named: Any) -> None:
        for other in made:
            # It has listed the same, and writes first.
            other.tidy(PERIODS.span(0))
        merged(self, *given, **named)

    with pytest.MonkeyPatch.context() as patch:
        # Nothing is removed until both have written.
        patch.setattr(ObjectStoragePath, "unlink", lambda self, **given: None)
        patch.setattr(PartStore, "_merge", merge_at_once)
        stores[0].tidy(PERIODS.span(0))
    assert len(entries_of(stores[0])) == 4
    assert [part.rows for part in tidied(store_of())] == [1]
    assert len([name for name in names(folder) if name[0] not in "._"]) == 1


def events_at(store: PartStore, *events: tuple[float, str], period: int = 0) -> None:
    """Have a life write what it has of a period: seconds after noon, and data."""
    rows = []
    for number, (second, data) in enumerate(events):
        told = {"received_at": (NOON + timedelta(seconds=second)).isoformat(), "connection": f"{store.life}-1"}
        line = line_of({"type": "event", "seq": number, **told, "channel": "a", "event": "e", "data": data})
        rows.append(row_of(line))
    write(store, Part(rows=rows, stretches=[Stretch(*PERIODS.span(period), life=store.life)]), period)


def data_in(store: PartStore) -> list[list[str]]:
    """The data of the events in the files of a capture that was sealed."""
    store.write_manifest()
    return [[json.loads(row.line)["data"] for row in rows] for rows in rows_in(store)]


@pytest.mark.parametrize("lives", [("one", "other"), ("other", "one")])
def test_an_event_near_the_end_of_a_part_that_the_next_one_has_is_there_once(
    store_of: Stores, lives: tuple[str, str]
) -> None:
    one, other = store_of("event"), store_of("event")
    one.life, other.life = lives
    one.open()
    # One life has the event before the end of the first part, and the other one after it.
    events_at(one, (59.999, "x"), (59.9995, "y"))
    events_at(one, (60.5, "y"), period=1)
    events_at(other, (59.9993, "x"))
    events_at(other, (60.0001, "y"), (60.5002, "y"), period=1)
    assert data_in(one)[:2] == [["x", "y"], ["y"]]
    # Whoever looks again, and whatever is written anew.
    write(other, Part(gaps=[Gap(NOON, NOON + timedelta(seconds=1), "lost", other.life)]))
    assert data_in(other)[:2] == data_in(store_of("event"))[:2] == [["x", "y"], ["y"]]


@pytest.mark.parametrize("lives", [("one", "other"), ("other", "one")])
@pytest.mark.parametrize("later", [59.9, 60.3])
def test_two_equal_events_within_a_second_are_two_however_often_their_files_are_merged(
    store_of: Stores, lives: tuple[str, str], later: float
) -> None:
    one, other = store_of("event"), store_of("event")
    one.life, other.life = lives
    one.open()
    for store, shift in ((one, 0.0), (other, 0.01)):
        events = [(59.5 + shift, "x"), (later - shift, "x")]
        for period in range(2):
            events_at(store, *(one for one in events if (one[0] > 60) == period), period=period)
    for _ in range(3):
        assert [data for file in data_in(one) for data in file] == ["x", "x"]
        write(other, Part(gaps=[Gap(NOON, NOON + timedelta(seconds=1), "lost", other.life)]))


def test_an_event_is_in_the_next_part_again_if_the_one_before_is_gone(store_of: Stores) -> None:
    one, other = store_of("event"), store_of("event")
    one.life, other.life = "one", "other"
    one.open()
    events_at(one, (59.999, "x"))
    events_at(other, (60.001, "x"), period=1)
    assert data_in(one) == [["x"], [], []]
    file_of(one).unlink()
    assert data_in(one) == [[], ["x"], []]


def test_an_event_that_another_life_has_beyond_the_part_of_the_first_is_there_once(store_of: Stores) -> None:
    one, other = store_of("event"), store_of("event")
    one.life, other.life = "one", "other"
    one.open()

    def heard(store: PartStore, since: float, until: float, *seconds: float) -> None:
        rows = [heard_at(second, store.life) for second in seconds]
        times = NOON + timedelta(seconds=since), NOON + timedelta(seconds=until)
        write(store, Part(rows=rows, stretches=[Stretch(*times, life=store.life)]), since=since, until=until)
        store.tidy(PERIODS.span(0))

    # The other one has it from before it began, and does not know where the first one cuts.
    heard(one, 0, 20)
    heard(other, 40.2, 60, 40.3)
    heard(one, 20, 40, 39.9)
    heard(one, 40, 60)
    assert [len(rows) for rows in data_in(one)][:4] == [0, 1, 0, 0]


def test_what_a_stretch_has_counted_is_counted_once_where_its_file_is_cut(store_of: Stores) -> None:
    one, other = store_of(), store_of()
    one.open()
    for since, until in ((0, 20), (20, 40), (40, 60)):
        write(one, part_of(since=since, until=until, life="one"), since=since, until=until)
    write(other, part_of(since=10, life="other"), since=10)
    manifest = one.write_manifest()
    assert (manifest["reconnects"], manifest["dropped"]) == (4, 8)
    (second,) = [one for one in stretches_from(entries_of(one)[2]) if one.life == "other"]
    assert second.monotonic == 17.25 + 10
