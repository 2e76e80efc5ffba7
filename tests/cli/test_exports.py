"""Exports of the ledger's events: whole, tied to the chain, and without anything secret."""

from __future__ import annotations

import json
import random
import re
import tracemalloc
from argparse import Namespace
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]  # fsspec has no types
from sqlalchemy import delete, update

from airflow_provider_quoine.cli import payments
from airflow_provider_quoine.cli.exports import Period, export, faults_of_export
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.payments.database import open_file
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.schema import EVENTS, SENDABLE, Step
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.payments.memory import Memory
from tests.payments.processes import payment
from tests.support.documents import PDF
from tests.support.one_task import OneTask, payments_cli

#: The ledger that they share takes seconds to fill.
pytestmark = pytest.mark.long

#: 600 payments on 30 days, two events each.
DAYS = [date(2026, 11, day) for day in range(1, 31)]
MIDDLE = Period(first=DAYS[9], last=DAYS[19], timezone="UTC")


def make_ledger(folder: Path, *, per_day: int = 20) -> Ledger:
    """A ledger with two events for each of some payments on each day of a month, every hour or so."""
    # Its exports are events too, and none of that month.
    ledger = Ledger(open_file(folder / "ledger.db"), pin=Memory(), clock=lambda _: datetime(2027, 1, 1, tzinfo=UTC))
    with ledger.transaction() as at:
        begin = at.now.replace(year=2026, month=11, day=1, hour=0, minute=0, second=0, microsecond=0)
        for number in range(len(DAYS) * per_day):
            at.now = begin + timedelta(days=1) * number / per_day
            at.find_or_add(payment(number), actor="dag / run / task, try 1")
            at.change(payment(number), if_step=SENDABLE, step=Step.HELD, reason="Ünder the counter")
            at.append(payment(number), Step.HELD, actor="ann", why="Ünder the counter")
    return ledger


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """A ledger with 1,200 events of a month."""
    return make_ledger(tmp_path_factory.mktemp("ledger"))


@pytest.fixture
def path(tmp_path: Path, ledger: Ledger) -> Path:
    """An export of the middle of the month."""
    export(ledger, str(tmp_path / "events.jsonl"), MIDDLE, who="ann")
    return tmp_path / "events.jsonl"


@pytest.fixture
def short(tmp_path: Path, ledger: Ledger) -> Path:
    """An export of three of those days, with 120 events, for tests that read it a hundred times."""
    period = Period(first=MIDDLE.first, last=DAYS[11], timezone=MIDDLE.timezone)
    export(ledger, str(tmp_path / "events.jsonl"), period, who="ann")
    return tmp_path / "events.jsonl"


def said(ledger: Ledger, path: Path) -> list[str]:
    """What is wrong with an export."""
    return list(faults_of_export(ledger, str(path)))


def numbers(path: Path) -> list[int]:
    """The events in an export."""
    return [json.loads(line)["number"] for line in path.read_text(encoding="utf-8").splitlines()]


def beside(path: Path) -> Path:
    """What stands beside an export."""
    return path.parent / f"{path.name}.head.json"


def edit(path: Path, **values: Any) -> None:
    """Edit what stands beside an export, in the form in which the export writes it."""
    tie = json.loads(beside(path).read_text()) | values
    beside(path).write_bytes(json.dumps(tie, indent=1).encode() + b"\n")


def place(line: bytes) -> dict[str, Any]:
    """The place in the chain of a line's event."""
    event = json.loads(line)
    return {"number": event["number"], "hash": event["hash"]}


def test_an_export_has_each_event_of_its_days_and_is_tied_to_the_chain(ledger: Ledger, path: Path) -> None:
    assert numbers(path) == list(range(9 * 40 + 1, 20 * 40 + 1))
    assert sorted(each.name for each in path.parent.iterdir()) == ["events.jsonl", "events.jsonl.head.json"]
    tie = json.loads((path.parent / "events.jsonl.head.json").read_text())
    (exported,) = ledger.events(tie["head"]["number"], tie["head"]["number"])
    assert (exported["event"], exported["actor"], exported["hash"]) == ("exported", "ann", tie["head"]["hash"])
    known = ledger.hashes([360, 800])
    told = {
        "ledger": ledger.identity,
        "since": "2026-11-10T00:00:00+00:00",
        "until": "2026-11-21T00:00:00+00:00",
        "timezone": "UTC",
        "count": 440,
        "before": {"number": 360, "hash": known[360]},
        "last": {"number": 800, "hash": known[800]},
    }
    assert tie == told | {"head": tie["head"]}
    assert json.loads(exported["data"]) == told
    assert said(ledger, path) == []


@pytest.mark.parametrize(
    ("first", "last", "timezone", "expected"),
    [
        ("2026-11-01", "2026-11-30", "UTC", (1, 1200)),
        ("2026-11-01", "2026-11-01", "UTC", (1, 40)),
        # Nine hours of that day are the UTC day before.
        ("2026-11-02", "2026-11-02", "Asia/Tokyo", (27, 66)),
        ("2026-10-01", "2026-10-31", "UTC", (1, 0)),
        ("2026-12-01", "2026-12-31", "UTC", (1201, 1200)),
    ],
)
def test_the_days_are_those_of_the_zone(
    ledger: Ledger, tmp_path: Path, first: str, last: str, timezone: str, expected: tuple[int, int]
) -> None:
    path = tmp_path / "events.jsonl"
    export(ledger, str(path), Period.parse(first, last, timezone), who="ann")
    assert numbers(path) == list(range(expected[0], expected[1] + 1))
    assert said(ledger, path) == []


def test_it_is_written_to_any_object_store(ledger: Ledger) -> None:
    # Airflow's providers register those of real stores.
    attach("memory", fs=MemoryFileSystem())
    path = "memory://exports/november/events.jsonl"
    export(ledger, path, MIDDLE, who="ann")
    assert list(faults_of_export(ledger, path)) == []
    assert len(ObjectStoragePath(path).read_bytes().splitlines()) == 440


def test_every_edit_of_one_byte_is_named(ledger: Ledger, short: Path) -> None:
    chance = random.Random(1)
    whole = short.read_bytes()
    for place in chance.sample(range(len(whole)), 100):
        other = chance.choice([byte for byte in b'0aZ "\\{}\n\xff' if byte != whole[place]])
        short.write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
        line = whole[:place].count(b"\n")
        words = " ".join(said(ledger, short))
        assert f"Event {361 + line} " in words or f"Line {line + 1} " in words


def test_every_removal_and_swap_is_named(ledger: Ledger, short: Path) -> None:
    chance = random.Random(2)
    lines = short.read_bytes().splitlines(keepends=True)
    for _ in range(50):
        one, other = sorted(chance.sample(range(len(lines)), 2))
        short.write_bytes(b"".join(lines[:one] + lines[one + 1 :]))
        assert said(ledger, short) == [f"Event {361 + one} is missing."]
        swapped = list(lines)
        swapped[one], swapped[other] = swapped[other], swapped[one]
        short.write_bytes(b"".join(swapped))
        words = " ".join(said(ledger, short))
        assert f"Event {361 + one} stands behind event" in words
    short.write_bytes(b"".join([*lines[:5], lines[3], *lines[5:]]))
    assert said(ledger, short) == ["Event 364 stands behind event 365: it was moved there, or is there twice."]
    short.write_bytes(b"".join(lines[:-2]))
    assert said(ledger, short) == ["Events 479 to 480 are missing."]


def test_an_export_that_was_forged_to_its_end_differs_from_the_ledger(ledger: Ledger, path: Path) -> None:
    """Somebody who can compute hashes changes an event, all after it, and the file beside them."""
    from airflow_provider_quoine.payments.chain import hash_of

    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    before = events[99]["hash"]
    for event in events[100:]:
        event |= {"actor": "mallory", "hash_before": before}
        before = event["hash"] = hash_of(event)
    path.write_text("".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events), encoding="utf-8")
    edit(path, last={"number": 800, "hash": before})
    words = said(ledger, path)
    assert re.fullmatch(r"events\.jsonl\.head\.json says otherwise than event \d+, .+: last\.", words[0])
    assert words[1] == "The chain's head has another hash than event 800."
    assert words[2:] == [f"Event {number} has another hash in the ledger." for number in range(461, 801)]


@pytest.mark.parametrize("cut", ["end", "begin", "all"])
def test_events_cut_off_are_named_though_the_file_beside_says_otherwise(ledger: Ledger, path: Path, cut: str) -> None:
    """All that it takes stands in the export itself: no ledger and no hash has to be forged."""
    lines = path.read_bytes().splitlines(keepends=True)
    if cut == "end":
        path.write_bytes(b"".join(lines[:-7]))
        edit(path, count=len(lines) - 7, last=place(lines[-8]))
        missing = "Events 794 to 800 are missing."
    elif cut == "begin":
        path.write_bytes(b"".join(lines[7:]))
        edit(path, count=len(lines) - 7, before=place(lines[6]))
        missing = "Events 361 to 367 are missing."
    else:
        path.write_bytes(b"")
        edit(path, count=0, last=json.loads(beside(path).read_text())["before"])
        missing = "Events 361 to 800 are missing."
    words = said(ledger, path)
    assert "says otherwise than event" in words[0]
    assert missing in words[1:]


@pytest.mark.parametrize(
    "values",
    [
        {"since": "2026-11-01T00:00:00+00:00", "until": "2026-12-01T00:00:00+00:00"},
        {"timezone": "Asia/Tokyo"},
        {"since": "no time at all"},
        {"last": {"number": "80", "hash": "0" * 64}},
        {"before": {"number": [1], "hash": "0" * 64}},
        {"count": "440"},
        {"count": 440.0},
    ],
)
def test_what_stands_beside_is_compared_with_the_ledger(ledger: Ledger, path: Path, values: dict[str, Any]) -> None:
    edit(path, **values)
    (words,) = said(ledger, path)
    assert words.endswith(f"which the export has left: {', '.join(values)}.")


@pytest.mark.parametrize("number", [0, 5, True, -1, 2**70, "80", [1]])
def test_an_export_of_which_the_ledger_knows_nothing_is_named(ledger: Ledger, path: Path, number: Any) -> None:
    edit(path, head={"number": number, "hash": ledger.hashes([5])[5]})
    (words,) = said(ledger, path)
    assert words.endswith("the ledger has no such export.")


@pytest.mark.parametrize(("name", "value"), [("number", -(10**30)), ("number", 10**30), ("actor", "\ud800")])
def test_a_line_that_no_database_takes_is_named(ledger: Ledger, path: Path, name: str, value: Any) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    event = json.loads(lines[3]) | {name: value}
    lines[3] = json.dumps(event, ensure_ascii=name == "actor").encode() + b"\n"
    path.write_bytes(b"".join(lines))
    assert "Line 4 is no event, or was written otherwise." in said(ledger, path)


@pytest.mark.parametrize("name", ["folder", "folder/", ".", ""])
def test_a_folder_is_refused_and_nothing_is_written(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises((OSError, ValueError)):
        export(ledger, name, MIDDLE, who="ann")
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []


def test_an_export_is_for_its_owner_as_the_ledger_is(path: Path) -> None:
    assert [each.stat().st_mode & 0o777 for each in (path, beside(path))] == [0o600, 0o600]


@pytest.mark.parametrize("wrong", ["", "{}", "[]", "no JSON", '{"ledger": 1}', "[" * 100_000])
def test_what_is_no_head_is_named(ledger: Ledger, path: Path, wrong: str) -> None:
    (path.parent / "events.jsonl.head.json").write_text(wrong)
    assert said(ledger, path) == ["events.jsonl.head.json cannot be used: it is not as the export wrote it."]


def test_an_export_of_another_ledger_is_named(path: Path, tmp_path: Path) -> None:
    another = make_ledger(tmp_path / "another", per_day=1)
    assert "The export is of another ledger" in said(another, path)[0]


def test_what_the_ledger_has_lost_since_is_named(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "ledger", per_day=2)
    path = tmp_path / "events.jsonl"
    export(ledger, str(path), MIDDLE, who="ann")
    with ledger.transaction() as at:
        at.connection.execute(delete(EVENTS).where(EVENTS.c.number == 50))
        at.connection.execute(update(EVENTS).where(EVENTS.c.number == 60).values(hash="0" * 64))
    assert said(ledger, path) == [
        "Event 50 is not in the ledger.",
        "Event 60 has another hash in the ledger.",
    ]


def test_nothing_is_left_half_written(ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = path.read_bytes()

    def break_off(*_: int) -> Iterator[dict[str, Any]]:
        raise OSError("the disk is full")

    monkeypatch.setattr(ledger, "events", break_off)
    with pytest.raises(OSError, match="the disk is full"):
        export(ledger, str(path), Period(first=DAYS[0], last=DAYS[1], timezone="UTC"), who="ann")
    assert path.read_bytes() == whole
    assert {each.name for each in path.parent.iterdir()} == {path.name, beside(path).name}


def test_memory_does_not_grow_with_the_export(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_quoine.payments.ledger.READ_AT_ONCE", 50)
    monkeypatch.setattr("airflow_provider_quoine.cli.exports.AT_ONCE", 25)
    peaks = []
    # The first fills caches, which takes as much.
    for days in (30, 10, 30):
        tracemalloc.start()
        period = Period(first=DAYS[0], last=DAYS[days - 1], timezone="UTC")
        export(ledger, str(tmp_path / "events.jsonl"), period, who="ann")
        assert said(ledger, tmp_path / "events.jsonl") == []
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1]


# The commands


@pytest.mark.parametrize(
    ("first", "last", "timezone"),
    [
        ("2026-11-31", "2026-12-01", "UTC"),
        ("2026-11-02", "2026-11-01", "UTC"),
        ("2026-11-01", "2026-11-02", "Moon"),
        ("2026-11-01", "9999-12-31", "UTC"),
        ("0001-01-01", "2026-11-30", "Asia/Tokyo"),
        ("2026-11-01", "2026-11-30", "Asia"),
    ],
)
def test_what_is_no_period_is_refused(first: str, last: str, timezone: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"This is no period: .+ Nothing was written"):
        payments.export_(Namespace(first=first, last=last, timezone=timezone, path=str(tmp_path / "x")))
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_used_is_named(airflow_database: None, tmp_path: Path) -> None:
    for path in (str(tmp_path / "nowhere" / "x"), "nosuchstore://bucket/x"):
        with pytest.raises(SystemExit, match="cannot be used"):
            payments_cli("export", "--from", "2026-11-01", "--to", "2026-11-30", path)
        with pytest.raises(SystemExit, match="cannot be used"):
            payments_cli("verify", "--export", path)


def test_no_secret_and_no_personal_data_is_in_it(
    exchange: SandboxControl,
    payer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = OneTask("authorize", user_id=payer, amount="0.5", address="bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4")
    task.step()
    code = exchange.latest_code(payer)
    assert task.answer("Send", code).state == "success"
    documents = {name: str(tmp_path / f"{name}.pdf") for name in ("id_document", "proof_address", "bank_statement")}
    for document in documents.values():
        Path(document).write_bytes(PDF)
    form = {"first_name": "Hanako", "last_name": "Yamada", "phone": "09017901357", "country": "JP"}
    monkeypatch.setenv("AIRFLOW_VAR_NEW_PASSWORD", "Passw0rd-of-another")
    user = OneTask("create_user_False", **form, **documents, email_address="new@example.com", password="new_password")
    assert user.step().state == "success"

    path = tmp_path / "events.jsonl"
    payments_cli("export", "--from", "2020-01-01", "--to", "2099-12-31", "--timezone", "Asia/Tokyo", str(path))
    assert "(Asia/Tokyo) are in" in capsys.readouterr().out
    payments_cli("verify", "--export", str(path))
    assert "The export is whole, and the ledger has its events: " in capsys.readouterr().out
    written = path.read_text(encoding="utf-8") + (tmp_path / "events.jsonl.head.json").read_text()
    assert task.reference in written
    key = json.loads(str(QuoineHook(credentials_variable="user_key")._credentials.to_json()))["api_secret"]
    for secret in (code, key, "Passw0rd", "new@example.com", "Hanako", "Yamada", "09017901357"):
        assert secret not in written
    path.write_text(path.read_text(encoding="utf-8").replace(task.reference, "another"), encoding="utf-8")
    with pytest.raises(SystemExit, match="the export was changed by other means"):
        payments_cli("verify", "--export", str(path))
