"""The files of a capture, on a real disk and in fsspec's memory."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]  # fsspec has no types

from airflow_provider_quoine.captures import store as capture_store
from airflow_provider_quoine.captures.parts import GONE, NOT_RUNNING, Part, PartKey
from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.captures.store import PartStore
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.formats.entries import StoredPart, entry_name, gaps_from, read_entry, totals
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
    return Part(life=life, rows=rows, stretches=[stretch])


def book_line(due_at: datetime) -> bytes:
    return line_of({"type": "order_book", **LINES["order_book"], "due_at": due_at.isoformat()})


def heard_at(second: float, life: str) -> Row:
    """A row of a life with the event x."""
    told = {"received_at": (NOON + timedelta(seconds=second)).isoformat(), "connection": f"{life}-1"}
    return row_of(line_of({"type": "event", "seq": 1, **told, "channel": "a", "event": "e", "data": "x"}))


def stored_in(store: PartStore) -> dict[int, StoredPart]:
    """What the parts say of themselves, by period."""
    return {key.period: store.sums(key) for key in store.open()}


def read_from(store: PartStore, period: int = 0, cut: int = 0) -> Part:
    return store._read(PartKey(period, cut))[0]


def names(folder: str) -> list[str]:
    return sorted(path.name for path in ObjectStoragePath(folder).iterdir())


@pytest.mark.parametrize("stream", LINES)
@pytest.mark.parametrize("file_format", FileFormat)
def test_what_is_written_is_read_back_to_the_last_digit(store_of: Stores, stream: str, file_format: str) -> None:
    row = row_of(line_of({"type": stream, **LINES[stream]}))
    gap = Gap(NOON, NOON + timedelta(seconds=5), "the connection was reset")
    stretch = Stretch(gap.until, PERIODS.span(0).until, 3, 4, 5, "1234abcd", 17.25)
    part = Part(rows=[row], gaps=[gap], stretches=[stretch])
    store = store_of(stream, file_format)
    assert store.open() == []
    written = store.write(PartKey(0), part, until=END)
    again = store_of(stream, file_format)
    assert again.open() == [PartKey(0)]
    assert written == {PartKey(0): (1, [gap], part.stretches)}
    assert again.sums(PartKey(0)) == written[PartKey(0)]
    # Merged with nothing new, its rows are those that were written.
    again.write(PartKey(0), Part(), until=END)
    assert read_from(again) == part


def test_a_row_that_could_not_be_read_goes_into_parquet_as_well(store_of: Stores) -> None:
    told = {name: LINES["execution"][name] for name in ("seq", "pair", "received_at", "connection")}
    told["unreadable"] = "{"
    nothing = dict.fromkeys(("id", "price", "quantity", "taker_side", "created_at"))
    store = store_of("execution", "parquet")
    store.open()
    store.write(PartKey(0), Part(rows=[row_of(line_of({"type": "execution", **told}))]), until=NOON)
    (row,) = read_from(store).rows
    assert json.loads(row.line) == {"type": "execution", **told, **nothing}


def test_a_file_has_rows_only_and_its_entry_says_what_they_are(store_of: Stores, folder: str) -> None:
    store = store_of()
    store.open()
    store.write(PartKey(0), part_of(1, 30, 60, since=0.5), until=END)
    name = "order_book_btcjpy_20260102T120000Z_000000.jsonl"
    assert names(folder) == [f"_{name}.json", name]
    content = (ObjectStoragePath(folder) / name).read_bytes()
    assert content.endswith(b"\n")
    assert [json.loads(line)["type"] for line in content.splitlines()] == 3 * ["order_book"]
    assert json.loads((ObjectStoragePath(folder) / f"_{name}.json").read_text()) == {
        "schema_version": 1,
        "name": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "period": 0,
        "from": "2026-01-02T12:00:00+00:00",
        "until": "2026-01-02T12:01:00+00:00",
        "rows": 3,
        "gap_seconds": 0.5,
        "reconnects": 1,
        "dropped": 2,
        "skipped": 0,
        "before": None,
        "gaps": [
            {
                "from": "2026-01-02T12:00:00+00:00",
                "until": "2026-01-02T12:00:00.500000+00:00",
                "seconds": 0.5,
                "reason": NOT_RUNNING,
            }
        ],
        "listened": [
            {
                "from": "2026-01-02T12:00:00.500000+00:00",
                "until": "2026-01-02T12:01:00+00:00",
                "life": "1234abcd",
                "monotonic": 17.25,
                "reconnects": 1,
                "dropped": 2,
                "skipped": 0,
            }
        ],
    }


@pytest.mark.parametrize("file_format", FileFormat)
def test_a_writer_that_is_killed_between_entry_and_rows_leaves_what_was_there(
    store_of: Stores, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    monkeypatch.setattr(capture_store, "MISMATCH_DELAY", 0)
    store = store_of(file_format=file_format)
    store.open()
    store.write(PartKey(0), part_of(10, 20, until=25), until=NOON + timedelta(seconds=25))
    there, replace = store.sums(PartKey(0)), ObjectStoragePath.replace

    def replace_and_die(self: ObjectStoragePath, target: ObjectStoragePath) -> None:
        replace(self, target)
        raise ZeroDivisionError

    with monkeypatch.context() as killed:
        killed.setattr(ObjectStoragePath, "replace", replace_and_die)
        with pytest.raises(ZeroDivisionError):
            store.write(PartKey(0), part_of(30, since=25), until=END)
    again = store_of(file_format=file_format)
    assert again.sums(PartKey(0)) == there
    again.write(PartKey(0), part_of(50, 60, since=45, life="5678"), until=END)
    stored = again.sums(PartKey(0))
    assert stored.rows == 4
    assert stored.gaps == [Gap(NOON + timedelta(seconds=25), NOON + timedelta(seconds=45), NOT_RUNNING)]


def test_rows_that_are_not_those_of_their_entry_are_a_stated_gap(
    store_of: Stores, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_store, "MISMATCH_DELAY", 0)
    store = store_of()
    store.open()
    store.write(PartKey(0), part_of(10, 20), until=END)
    path = ObjectStoragePath(folder) / store.name(0)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    assert store.sums(PartKey(0)) == (1, [], [])
    # What is listened to from now on is no gap.
    store.write(PartKey(0), part_of(50, 60, since=45, life="5678"), until=END)
    assert store.sums(PartKey(0)).gaps == [Gap(NOON, NOON + timedelta(seconds=45), NOT_RUNNING)]
    assert store.sums(PartKey(0)).rows == 3


def test_rows_and_entry_fit_when_two_write_at_once_and_what_one_of_them_lost_is_a_gap(
    store_of: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = store_of(), store_of()
    one.open()
    put, left = PartStore.put, [True]

    def put_late(self: PartStore, name: str, content: bytes) -> None:
        put(self, name, content)
        if self is one and left.pop():
            # The other one writes both between the entry and the rows of this one.
            left.append(False)
            other.write(PartKey(0), part_of(30, since=20, until=60, life="5678"), until=END)

    monkeypatch.setattr(capture_store, "MISMATCH_DELAY", 0)
    monkeypatch.setattr(PartStore, "put", put_late)
    one.write(PartKey(0), part_of(10, until=20), until=END)
    monkeypatch.undo()
    stored = store_of().sums(PartKey(0))
    lost = Gap(NOON + timedelta(seconds=20), NOON + timedelta(seconds=60), NOT_RUNNING)
    assert (stored.rows, stored.gaps) == (1, [lost])
    # The other one has it still, if it writes once more.
    other.write(PartKey(0), part_of(30, since=20, until=60, life="5678"), until=END)
    stored = store_of().sums(PartKey(0))
    assert (stored.rows, stored.gaps) == (2, [])


def test_whoever_goes_on_adds_to_an_unfinished_part_and_states_the_time_between(store_of: Stores, folder: str) -> None:
    first, second = store_of(), store_of()
    first.open()
    first.write(PartKey(0), part_of(10, 20, until=25), until=NOON + timedelta(seconds=25))
    assert stored_in(second)[0].gaps == []
    second.write(PartKey(0), part_of(50, 60, since=45, life="5678"), until=END)
    second.write(PartKey(2), part_of(30, period=2, life="5678"), until=END)
    second.write(PartKey(1), Part(), until=END)
    made = [f"order_book_btcjpy_20260102T120000Z_00000{number}.jsonl" for number in range(3)]
    assert names(folder) == sorted([*made, *map(entry_name, made)])
    stored = {key: store_of().sums(key) for key in store_of().open()}
    assert [one.rows for one in stored.values()] == [4, 0, 1]
    assert totals(stored.values()) == {
        "files": 3,
        "rows": 5,
        "gaps": 2,
        "gap_seconds": 80.0,
        "reconnects": 3,
        "dropped": 6,
        "skipped": 0,
    }


def test_gzip_of_the_same_part_is_the_same_file(store_of: Stores, folder: str) -> None:
    store = store_of(file_format="jsonl.gz")
    store.open()
    store.write(PartKey(0), part_of(5), until=END)
    path = ObjectStoragePath(folder) / store.name(0)
    content = path.read_bytes()
    store.write(PartKey(0), part_of(5), until=END)
    assert path.read_bytes() == content
    assert len(gzip.decompress(content).splitlines()) == 1


@pytest.mark.parametrize("file_format", FileFormat)
@pytest.mark.parametrize("content", [b"", b"{}\n", b'{"type":"order_book"}\n{"type":"pa', b"\x1f\x8b\x08\0", b"PAR1"])
def test_a_file_that_is_no_part_is_left_as_it_is(
    store_of: Stores, folder: str, file_format: str, content: bytes
) -> None:
    store = store_of(file_format=file_format)
    store.open()
    path = ObjectStoragePath(folder) / store.name(0)
    path.write_bytes(content)
    for strike in (lambda: store.sums(PartKey(0)), lambda: store.write(PartKey(0), part_of(1), until=END)):
        with pytest.raises(QuoineInputError, match="no part of this capture"):
            strike()
    assert path.read_bytes() == content


def test_half_a_character_in_an_event_keeps_no_part_from_being_written_and_doubles_nothing(store_of: Stores) -> None:
    store = store_of("event", "parquet")
    store.open()
    # JSON can say it: "\\ud800".
    row = row_of(line_of({"type": "event", **LINES["event"], "data": "a \ud800 b"}))
    part = Part(life="1234abcd", rows=[row], stretches=[Stretch(*PERIODS.span(0), life="1234abcd")])
    copy = row_of(row.line.replace(b"1234abcd", b"copycopy").replace(b"000001+", b"100001+"))
    for one in (part, part, Part(life="copycopy", rows=[copy], stretches=part.stretches)):
        store.write(PartKey(0), one, until=END)
    assert [json.loads(row.line)["data"] for row in read_from(store).rows] == ["a \\ud800 b"]


def test_a_damaged_parquet_file_is_named_and_is_no_failure_of_the_store(store_of: Stores, folder: str) -> None:
    store = store_of(file_format="parquet")
    store.open()
    store.write(PartKey(0), part_of(1), until=END)
    path = ObjectStoragePath(folder) / store.name(0)
    # pyarrow says of it what it says of a disk that cannot be read: OSError.
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(16) + content[20:])
    with pytest.raises(QuoineInputError, match="no part of this capture"):
        store.write(PartKey(0), part_of(2), until=END)


def test_a_part_that_was_moved_away_since_it_was_listed_is_not_there_and_no_foreign_file(
    store_of: Stores, folder: str
) -> None:
    store = store_of()
    store.open()
    store.write(PartKey(0), part_of(1), until=END)
    for name in names(folder):
        (ObjectStoragePath(folder) / name).unlink()
    with pytest.raises(FileNotFoundError):
        store.sums(PartKey(0))


@pytest.mark.parametrize("without", ["sha256", "gaps", "listened"])
def test_an_entry_that_is_none_is_named_and_is_no_failure_of_the_store(
    store_of: Stores, folder: str, without: str
) -> None:
    store = store_of()
    store.open()
    store.write(PartKey(0), part_of(1), until=END)
    beside = ObjectStoragePath(folder) / entry_name(store.name(0))
    entry = json.loads(beside.read_bytes())
    beside.write_bytes(json.dumps({name: value for name, value in entry.items() if name != without}).encode())
    with pytest.raises(QuoineInputError, match="no part of this capture"):
        store.write(PartKey(0), part_of(2), until=END)


def test_half_written_files_of_the_killed_are_swept_up_and_nothing_else(store_of: Stores, folder: str) -> None:
    store = store_of()
    store.open()
    store.write(PartKey(0), part_of(1), until=END)
    root = ObjectStoragePath(folder)
    for name in (store.name(0), entry_name(store.name(0))):
        (root / f".{name}.12345678.tmp").write_bytes(b"half")
    (root / ".of-others.tmp").write_bytes(b"")
    store.sweep()
    assert names(folder) == [".of-others.tmp", entry_name(store.name(0)), store.name(0)]


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
        store.write(PartKey(number), Part(gaps=[Gap(*PERIODS.span(number), "lost")]), until=END)
    summed_up = totals([store_of().sums(key) for key in store_of().open()])
    assert (summed_up["gaps"], summed_up["gap_seconds"]) == (1, 120.0)


def test_a_manifest_reads_each_entry_once_and_again_if_one_has_changed_meanwhile(
    store_of: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, read, put = store_of(), list[bytes](), PartStore.put
    store.open()
    for number in range(3):
        store.write(PartKey(number), part_of(30, period=number, since=20), until=END)

    def count_and_read(content: bytes) -> dict[str, Any]:
        read.append(content)
        return read_entry(content)

    monkeypatch.setattr(capture_store, "read_entry", count_and_read)
    manifest = store.write_manifest()
    assert (manifest["rows"], manifest["gap_seconds"], len(read)) == (3, 60.0, 3)
    copies = [store_of()]

    def put_late(self: PartStore, name: str, content: bytes) -> None:
        if copies and self is not copies[0]:
            # The same rows, so that only the entry has changed.
            copies.pop().write(PartKey(1), part_of(30, period=1, life="5678"), until=END)
        put(self, name, content)

    monkeypatch.setattr(PartStore, "put", put_late)
    assert store.write_manifest()["gap_seconds"] == 40.0


def test_a_period_is_several_parts_where_one_life_cut_it_and_the_other_did_not(store_of: Stores, folder: str) -> None:
    one, other = store_of("event"), store_of("event")
    one.life, other.life = "one", "other"
    one.open()

    def events_of(life: str, *seconds: int, since: float, until: float) -> Part:
        def row(second: int) -> Row:
            at = NOON + timedelta(seconds=second)
            told = {"received_at": at.isoformat(), "connection": f"{life}-1", "channel": "a", "event": "e"}
            return row_of(line_of({"type": "event", "seq": second, **told, "data": str(second)}))

        stretch = Stretch(NOON + timedelta(seconds=since), NOON + timedelta(seconds=until), life=life)
        return Part(life=life, rows=[row(second) for second in seconds], stretches=[stretch])

    one.write(PartKey(0), events_of("one", 5, 10, since=0, until=10), until=NOON + timedelta(seconds=10))
    one.write(PartKey(0, 10), events_of("one", 11, 29, since=10, until=30), until=NOON + timedelta(seconds=30))
    # The other one has a time that spans both, and cuts elsewhere.
    other.write(PartKey(0), events_of("other", 10, 11, 12, since=8, until=20), until=NOON + timedelta(seconds=20))
    other.write(PartKey(0, 20), events_of("other", 29, 40, since=20, until=60), until=END)
    base = "event_20260102T120000Z_000000"
    made = [f"{base}.jsonl", f"{base}_000010.jsonl", f"{base}_000020.jsonl"]
    assert [name for name in names(folder) if name[0] != "_"] == made
    parts = [read_from(one, 0, cut) for cut in (0, 10, 20)]
    assert [[json.loads(row.line)["seq"] for row in part.rows] for part in parts] == [[5, 10], [11, 12], [29, 40]]
    assert [part.gaps for part in parts] == [[], [], []]


@pytest.mark.parametrize("gone", [(1, 0), (0, 20)])
def test_a_part_that_is_gone_when_the_capture_ends_is_a_gap_of_the_manifest(
    store_of: Stores, folder: str, gone: tuple[int, int]
) -> None:
    store = store_of()
    store.open()
    store.write(PartKey(0), part_of(1, until=20), until=NOON + timedelta(seconds=20))
    store.write(PartKey(0, 20), part_of(since=20), until=END)
    for period in (1, 2):
        store.write(PartKey(period), part_of(1, period=period), until=END)
    assert store.write_manifest()["gap_seconds"] == 0
    (ObjectStoragePath(folder) / store.name(*gone)).unlink()
    manifest = store.write_manifest()
    gaps = [gap for part in manifest["parts"] for gap in gaps_from(part)]
    lost = [PERIODS.span(1), Span(NOON + timedelta(seconds=20), PERIODS.span(0).until)][gone[1] > 0]
    assert gaps == [Gap(*lost, GONE)]
    assert manifest["gap_seconds"] == gaps[0].seconds


@pytest.mark.parametrize("kept", [0.0, 0.5])
@pytest.mark.parametrize("of", ["rows", "entry"])
def test_a_store_that_says_success_and_keeps_nothing_or_half_is_an_error(
    store_of: Stores, monkeypatch: pytest.MonkeyPatch, of: str, kept: float
) -> None:
    store, write = store_of(), PartStore._temporary
    store.open()

    def keep_half(self: PartStore, name: str, content: bytes) -> ObjectStoragePath:
        loses = name.startswith("_") == (of == "entry")
        return write(self, name, content[: int(len(content) * kept)] if loses else content)

    with monkeypatch.context() as lying:
        lying.setattr(PartStore, "_temporary", keep_half)
        lying.setattr(capture_store, "MISMATCH_DELAY", 0)
        with pytest.raises((OSError, QuoineInputError), match=r"not as it was written|no part of this capture|\.tmp"):
            store.write(PartKey(0), part_of(1, 2), until=END)


def test_a_part_under_the_name_of_another_one_is_no_part(store_of: Stores, folder: str) -> None:
    store, root = store_of(), ObjectStoragePath(folder)
    store.open()
    for period in (0, 1):
        store.write(PartKey(period), part_of(1, period=period), until=END)
    for rename in (str, entry_name):
        (root / rename(store.name(0))).replace(root / rename(store.name(1)))
    for strike in (lambda: store.sums(PartKey(1)), store.write_manifest):
        with pytest.raises(QuoineInputError, match=r"its entry is that of .*_000000.jsonl"):
            strike()


def test_what_another_life_missed_is_no_gap_of_the_one_that_cuts_its_part_later(store_of: Stores) -> None:
    """The other one did not know of the cut when it wrote, so what it missed stands in the part before."""
    one, other = store_of(), store_of()
    one.open()
    opening = Gap(NOON + timedelta(seconds=25), NOON + timedelta(seconds=30), "not subscribed yet")
    one.write(PartKey(0), part_of(until=20, life="one"), until=NOON + timedelta(seconds=20))
    late = part_of(since=25, life="other")
    late.gaps.append(opening)
    other.write(PartKey(0), late, until=END)
    one.write(PartKey(0, 20), part_of(since=20, life="one"), until=END)
    assert [read_from(one, 0, cut).gaps for cut in (0, 20)] == [[], []]
    assert [(each.life, each.since) for each in read_from(one, 0, 20).stretches] == [
        ("one", NOON + timedelta(seconds=20)),
        ("other", opening.until),
    ]


def test_an_event_near_the_end_of_a_part_that_the_next_one_has_is_there_once(store_of: Stores) -> None:
    one, other = store_of("event"), store_of("event")
    one.life, other.life = "one", "other"
    one.open()

    def write(store: PartStore, life: str, period: int, *events: tuple[float, str]) -> None:
        rows = []
        for number, (second, data) in enumerate(events):
            told = {"received_at": (NOON + timedelta(seconds=second)).isoformat(), "connection": f"{life}-1"}
            line = line_of({"type": "event", "seq": number, **told, "channel": "a", "event": "e", "data": data})
            rows.append(row_of(line))
        part = Part(life=life, rows=rows, stretches=[Stretch(*PERIODS.span(period), life=life)])
        store.write(PartKey(period), part, until=END)

    # One life has the event before the end of the first part, and the other one after it.
    write(one, "one", 0, (59.999, "x"), (59.9995, "y"))
    write(one, "one", 1, (60.5, "y"))
    write(other, "other", 0, (59.9993, "x"))
    write(other, "other", 1, (60.0001, "y"), (60.5002, "y"))
    found = [[json.loads(row.line)["data"] for row in read_from(one, period).rows] for period in (0, 1)]
    assert found == [["x", "y"], ["y"]]


def test_an_event_that_another_life_has_beyond_the_part_of_the_first_is_there_once(store_of: Stores) -> None:
    one, other = store_of("event"), store_of("event")
    one.life, other.life = "one", "other"
    one.open()

    def write(store: PartStore, cut: int, since: float, until: float, *seconds: float) -> None:
        rows = [heard_at(second, store.life) for second in seconds]
        times = NOON + timedelta(seconds=since), NOON + timedelta(seconds=until)
        part = Part(life=store.life, rows=rows, stretches=[Stretch(*times, life=store.life)])
        store.write(PartKey(0, cut), part, until=times[1])

    # The other one has it from before it began, and does not know where the first one cuts.
    write(one, 0, 0, 20)
    write(other, 0, 40.2, 60, 40.3)
    write(one, 20, 20, 40, 39.9)
    write(one, 40, 40, 60)
    assert [len(read_from(one, 0, cut).rows) for cut in (0, 20, 40)] == [0, 1, 0]


def test_two_that_write_two_parts_at_once_leave_an_event_near_their_border_in_one_of_them(
    store_of: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = store_of("event"), store_of("event")
    one.life, other.life = "one", "other"
    one.open()
    meanwhile: list[Callable[[], object]] = []
    temporary = PartStore._temporary

    def written_meanwhile(store: PartStore, name: str, content: bytes) -> ObjectStoragePath:
        """Have the other one write while this one does."""
        while meanwhile:
            meanwhile.pop()()
        return temporary(store, name, content)

    monkeypatch.setattr(PartStore, "_temporary", written_meanwhile)

    def write(store: PartStore, period: int, *seconds: float) -> None:
        rows = [heard_at(second, store.life) for second in seconds]
        span = PERIODS.span(period)
        store.write(
            PartKey(period),
            Part(life=store.life, rows=rows, stretches=[Stretch(*span, life=store.life)]),
            until=span.until,
        )

    # One has it before the border, and the other, which was slow, after it: neither knows yet what the other writes.
    meanwhile.append(lambda: write(one, 0, 59.9))
    write(other, 1, 60.2)
    # Now each finds it in the part beside its own.
    meanwhile.append(lambda: write(other, 0))
    write(one, 1)
    assert [len(read_from(one, period).rows) for period in (0, 1)] == [1, 0]
