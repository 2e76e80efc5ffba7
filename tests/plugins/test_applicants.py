"""The pages of applicants, and what a form may hold: on Airflow's API server and task runner in this process."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import tempfile
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest

from airflow_provider_quoine.applications.application import Application, new_reference, time_of
from airflow_provider_quoine.applications.configuration import open_store
from airflow_provider_quoine.applications.store import ApplicationStore
from airflow_provider_quoine.plugins import applicants as pages
from airflow_provider_quoine.plugins import uploads
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.plugins.applicants import BOUNDARY, FILES, TEXTS, Part, body_of, form_of, named, post, send, token_for
from tests.plugins.browser import Person, token_in
from tests.support.airflow_fixtures import stored_variable
from tests.support.documents import GIF, JPEG, PDF, PNG, XPS, archive
from tests.support.leaks import cells, contents, find
from tests.support.one_task import OneTask, api, database, ledger_of_tests, parsed, payments_cli, set_connection

REFERENCE = re.compile(r"/quoine/applicants/([0-9]{8}T[0-9]{6}-[0-9a-f]{20})$")


@pytest.fixture(autouse=True)
def folder(exchange: SandboxControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Keep applications in a folder of the test, and have another one for temporary files."""
    parsed()
    folder = tmp_path / "applications"
    monkeypatch.setenv("AIRFLOW__QUOINE__APPLICATIONS_PATH", str(folder))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield folder
    assert list(temporary.iterdir()) == []


@pytest.fixture
def op(folder: Path) -> Person:
    """A person who may start runs."""
    return Person("op")


def nothing_is_left(folder: Path) -> bool:
    return not folder.exists() or list(folder.iterdir()) == []


def runs() -> dict[str, dict[str, Any]]:
    """The runs of applicants, by id."""
    found = api().get("/api/v2/dags/create_applicant/dagRuns", params={"limit": 1000}).json()["dag_runs"]
    return {run["dag_run_id"]: run for run in found}


def reference_in(answer: Any) -> str:
    """The applicant to whom a form has led."""
    assert answer.status_code == 303, answer.text
    found = REFERENCE.search(answer.headers["location"])
    assert found
    return found[1]


def test_a_form_becomes_an_encrypted_application_and_a_run_of_the_person(op: Person, folder: Path) -> None:
    reference = reference_in(send(op))
    assert sorted(path.suffix for path in folder.iterdir()) == [".received", ".sealed"]
    application = open_store().read(reference)
    assert application.user.email == TEXTS["email"]
    assert application.user.first_furi_name == TEXTS["first_furi_name"]
    names = {field: (document.name, document.content) for field, document in application.documents.items()}
    assert names == {
        "id_document": ("id_document.pdf", PDF),
        "proof_address": ("proof_address.png", PNG),
        "bank_statement": ("bank_statement.jpeg", JPEG),
    }
    run = runs()[f"applicant__{reference}"]
    assert (run["triggering_user_name"], run["conf"]) == ("op", {"application": reference})
    assert (run["triggered_by"], run["run_type"], run["state"]) == ("ui", "manual", "queued")
    logged = api().get("/api/v2/eventLogs", params={"run_id": run["dag_run_id"]}).json()["event_logs"]
    assert [(each["event"], each["owner"]) for each in logged] == [("trigger_dag_run", "op")]


def test_the_task_sends_it_and_it_is_removed(op: Person, exchange: SandboxControl, folder: Path) -> None:
    reference = reference_in(send(op))
    task = OneTask.of_run("create_applicant", f"applicant__{reference}")
    assert task.step().state == "success"
    (user,) = exchange.state()["users"]
    assert (user["email"], user["phone"]) == (TEXTS["email"], "+819086427531")
    assert user["documents"]["id_document"]["filename"] == "id_document.pdf"
    assert sorted(path.suffix for path in folder.iterdir()) == [".received", ".user"]
    # Once more, as after a clear: it finds its user without the application.
    task.clear()
    assert task.step().state == "success"
    assert task.xcom() == str(user["user_id"])
    assert len(exchange.state()["requests"]) == 1


def test_another_form_with_the_same_address_is_not_said_to_be_sent(
    op: Person, exchange: SandboxControl, folder: Path
) -> None:
    first, second = reference_in(send(op)), reference_in(send(op, first_name="Jiro", bank_statement=Part(PDF, "b.pdf")))
    assert OneTask.of_run("create_applicant", f"applicant__{first}").step().state == "success"
    (user,) = exchange.state()["users"]
    task = OneTask.of_run("create_applicant", f"applicant__{second}")
    for _ in range(2):
        end = task.step()
        assert end.state == "failed"
        assert f"Another form has made user {user['user_id']} with this e-mail address." in end.words
        assert "This application was not sent." in end.words
        assert f"applicant__{first}" in end.words.replace("\n", "")
        assert ">failed<" in op.get(f"/applicants/{second}").text
        task.clear()
    assert len(exchange.state()["requests"]) == 1


def test_a_user_whose_application_could_not_be_removed_is_found_again(
    op: Person, exchange: SandboxControl, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise PermissionError(13, "not for you")

    task = OneTask.of_run("create_applicant", f"applicant__{reference_in(send(op))}")
    with monkeypatch.context() as broken:
        broken.setattr("airflow_provider_quoine.applications.store.ApplicationStore.settle", fail)
        assert task.step().state == "success"
    assert sorted(path.suffix for path in folder.iterdir()) == [".received", ".sealed"]
    task.clear()
    assert task.step().state == "success"
    assert sorted(path.suffix for path in folder.iterdir()) == [".received", ".user"]
    assert len(exchange.state()["requests"]) == 1


def test_a_user_in_doubt_is_found_when_the_application_has_expired(
    op: Person, exchange: SandboxControl, folder: Path
) -> None:
    exchange.fault("drop_after", "POST /users/onboarding")
    email = "in-doubt-marker@example.com"
    reference = reference_in(send(op, email=email))
    task = OneTask.of_run("create_applicant", f"applicant__{reference}")
    assert task.step().state == "failed"
    (user,) = exchange.state()["users"]
    kept_for = timedelta(days=7)
    ApplicationStore(str(folder), kept_for=kept_for, clock=lambda: datetime.now(UTC) + 2 * kept_for).expire()
    assert [path.suffix for path in folder.iterdir()] == [".received"]
    # Before a person has looked it is still in doubt.
    task.clear()
    assert "it may exist at the exchange" in task.step().words
    assert "<dt>Sent by</dt><dd>op</dd>" in op.get(f"/applicants/{reference}").text
    payments_cli("exists", email, "--kind", "user", "--id", str(user["user_id"]), "--why", "a test")
    task.clear()
    assert task.step().state == "success"
    assert task.xcom() == str(user["user_id"])
    assert sorted(path.suffix for path in folder.iterdir()) == [".received", ".user"]
    assert len(exchange.state()["requests"]) == 1


def test_a_retry_reads_it_again(op: Person, exchange: SandboxControl, folder: Path) -> None:
    words = "API rate limit exceeded. Please retry after 1s"
    exchange.fault("status", "POST /users/onboarding", status=429, body=words)
    task = OneTask.of_run("create_applicant", f"applicant__{reference_in(send(op))}")
    assert task.step().state == "up_for_retry"
    assert ".sealed" in {path.suffix for path in folder.iterdir()}
    assert task.step().state == "success"


def test_a_place_that_does_not_answer_the_task_is_said_in_words(
    op: Person, exchange: SandboxControl, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise PermissionError(13, "not for you")

    task = OneTask.of_run("create_applicant", f"applicant__{reference_in(send(op))}")
    with monkeypatch.context() as broken:
        broken.setattr("airflow_provider_quoine.applications.store.ApplicationStore._names", fail)
        end = task.step()
    assert end.state == "up_for_retry"
    assert end.words.startswith("The place of applications does not answer. Nothing was sent, so nothing was done")
    assert task.step().state == "success"


def test_no_personal_data_and_no_secret_is_anywhere_but_encrypted(
    op: Person, exchange: SandboxControl, folder: Path, tmp_path: Path, airflow_log: io.StringIO
) -> None:
    # What the exchange says may have them.
    said = f"Email {TEXTS['email']} of {TEXTS['first_name']} {TEXTS['first_furi_name']} is not liked"
    refusal = {"status": 422, "body": json.dumps({"message": said}), "content_type": "application/json"}
    exchange.fault("status", "POST /users/onboarding", **refusal)
    send(op, email=Part(b"no mail"))
    send(op, id_document=Part(b"MZ", "passport-marker.pdf"))
    reference = reference_in(send(op))
    task = OneTask.of_run("create_applicant", f"applicant__{reference}")
    end = task.step()
    assert end.state == "failed"
    assert "Email *** of *** *** is not liked" in end.words
    for path in ("/applicants", f"/applicants/{reference}"):
        assert op.get(path).status_code == 200
    task.clear()
    assert task.step().state == "success"
    personal = {field: text for field, text in TEXTS.items() if field not in ("country", "dag_id", "phone")}
    personal |= {"phone": "90-8642-7531", "as it is sent": "9086427531", "files": "-marker.", "document": "A document"}
    personal["password"] = stored_variable(f"quoine_password_applicant__{reference}")
    assert len(personal["password"]) > 20
    (tmp_path / "log").write_text(airflow_log.getvalue() + end.words + str(task.rendered()) + str(task.xcom()))
    assert f"applicant__{reference}" in airflow_log.getvalue()
    assert find(personal, cells(database())) == set()
    assert find(personal, contents(tmp_path)) == set()
    assert find(personal, cells(database().parent / "quoine" / "ledger.db")) == set()
    shown = [op.get(path).content for path in ("/applicants", f"/applicants/{reference}")]
    assert find(personal, enumerate_places(shown)) == set()


def enumerate_places(texts: list[bytes]) -> Iterator[tuple[str, bytes]]:
    for number, text in enumerate(texts):
        yield str(number), text


def test_a_form_that_is_sent_twice_counts_once(op: Person, folder: Path) -> None:
    token = token_for(op)
    first = reference_in(send(op, token))
    assert reference_in(send(op, token)) == first
    assert len([run for run in runs() if first in run]) == 1


@pytest.mark.parametrize(
    "changes", [{"first_name": "Another"}, {"bank_statement": Part(PDF, "a.pdf")}, {"phone": "none"}, {"dag_id": "x"}]
)
def test_another_person_in_a_form_that_was_sent_is_not_lost_in_silence(
    op: Person, folder: Path, changes: dict[str, Any]
) -> None:
    token = token_for(op)
    first = reference_in(send(op, token))
    answer = send(op, token, **changes)
    assert answer.status_code == 422
    assert f"This form was sent before, and made the applicant {first}" in answer.text
    assert 'value="Tokyo-Marker"' in answer.text
    assert open_store().read(first).user.first_name == TEXTS["first_name"]
    # What the person sees is a new form.
    again = token_in(answer.text)
    assert reference_in(send(op, again, first_name="Another", email="another-marker@example.com")) != first
    assert {kept.reference for kept in open_store().kept()} > {first}


def test_a_form_that_comes_again_when_the_exchange_has_the_user_is_said_to_be_one(op: Person, folder: Path) -> None:
    token = token_for(op)
    first = reference_in(send(op, token))
    assert OneTask.of_run("create_applicant", f"applicant__{first}").step().state == "success"
    assert f"made the applicant {first}" in send(op, token).text
    assert len(open_store().kept()) == 1


def test_a_form_that_is_sent_twice_at_once_counts_once(op: Person, folder: Path) -> None:
    token = token_for(op)
    # As many as one person may send.
    with ThreadPoolExecutor(uploads.AT_ONCE_OF_ONE) as threads:
        answers = list(threads.map(lambda _: send(op, token), range(uploads.AT_ONCE_OF_ONE)))
    assert len({reference_in(answer) for answer in answers}) == 1
    assert sorted(path.suffix for path in folder.iterdir()) == [".received", ".sealed"]
    assert len([run for run in runs() if reference_in(answers[0]) in run]) == 1


def test_two_people_at_once_have_an_applicant_each(folder: Path) -> None:
    people = [Person("op"), Person("user")]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda person: send(person, email=f"{id(person)}@example.com"), people))
    references = [reference_in(answer) for answer in answers]
    assert len({*references}) == 2
    assert [runs()[f"applicant__{each}"]["triggering_user_name"] for each in references] == ["op", "user"]
    assert {open_store().read(each).user.email for each in references} == {f"{id(one)}@example.com" for one in people}


@pytest.mark.parametrize(
    ("sending", "status", "words"),
    [
        (["op"] * uploads.AT_ONCE_OF_ONE, 429, "You are sending 2 other forms at this moment."),
        (["a", "a", "b", "b"], 503, "Others are sending forms at this moment."),
    ],
)
def test_more_than_some_at_once_are_asked_to_wait(
    op: Person, folder: Path, sending: list[str], status: int, words: str
) -> None:
    token = token_for(op)
    with ExitStack() as others:
        for person in sending:
            others.enter_context(uploads.one_of_few(person))
        answer = send(op, token)
        # Somebody who is not logged in does not come as far as that.
        assert post(Person(None), body_of(form_of("x"))).status_code == 401
    assert (answer.status_code, words in answer.text, "nothing was stored" in answer.text.lower()) == (
        status,
        True,
        True,
    )
    assert nothing_is_left(folder)
    reference_in(send(op, token))


def test_of_the_forms_at_once_one_person_has_some_only(
    op: Person, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As while the database is locked: each form is in memory, however fast it was read.
    other, third = Person("user"), Person("admin")
    some = [op] * uploads.AT_ONCE_OF_ONE + [other] * uploads.AT_ONCE_OF_ONE
    tokens = [(person, token_for(person)) for person in (*some, op, third)]
    began, may_end = threading.Semaphore(0), threading.Event()

    def wait(*_: object) -> None:
        began.release()
        assert may_end.wait(60)

    monkeypatch.setattr(pages, "start_run", wait)
    with ThreadPoolExecutor(len(some)) as threads:
        answers = [threads.submit(send, *sender) for sender in tokens[: len(some)]]
        for _ in answers:
            assert began.acquire(timeout=60)
        refused = [send(*sender).status_code for sender in tokens[len(some) :]]
        may_end.set()
        assert {answer.result().status_code for answer in answers} == {303}
    assert refused == [429, 503]
    assert [send(*sender).status_code for sender in tokens[len(some) :]] == [303, 303]


def test_all_faults_are_said_beside_their_fields_and_what_was_typed_is_kept(op: Person, folder: Path) -> None:
    typed: dict[str, Any] = {
        "first_name": '"><script>alert(1)</script>',
        "email": "no mail",
        "phone": "none",
        "country": "XX",
    }
    wrong: dict[str, Any] = {"last_name": "", "id_document": Part(b"MZ", "a.pdf"), "proof_address": Part(b"", "")}
    answer = send(op, **typed | wrong)
    assert answer.status_code == 422
    for field, words in {
        "last_name": "Last name is required.",
        "email": "E-mail is no e-mail address.",
        "phone": "Phone must be 6 to 15 digits",
        "country": "Country must be a two-letter",
        "id_document": "Id document: the file &#39;a.pdf&#39; is no PDF inside",
        "proof_address": "Proof of address: choose a file.",
    }.items():
        assert re.search(rf'<span class="fault" id="fault-{field}">{re.escape(words)}', answer.text), words
        assert re.search(rf'id="{field}"[^>]* aria-describedby="[^"]*fault-{field}" aria-invalid="true"', answer.text)
    assert "a browser does not keep them" in answer.text
    assert "<script>alert" not in answer.text
    assert 'value="no mail"' in answer.text
    assert f'value="{TEXTS["city"]}"' in answer.text
    assert nothing_is_left(folder)


def test_a_form_that_is_refused_leaves_nothing_in_airflow_and_in_the_ledger(op: Person, folder: Path) -> None:
    token = token_for(op)
    before = kept_of_forms()
    assert send(op, token, phone="none", id_document=Part(b"MZ", "a.pdf")).status_code == 422
    assert kept_of_forms() == before
    assert "There are no applicants yet" in op.get("/applicants").text


def test_a_form_that_only_its_task_refuses_leaves_nothing_in_the_ledger(
    op: Person, exchange: SandboxControl, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = reference_in(send(op))
    before = kept_of_forms()
    # As if a smaller limit were set meanwhile.
    set_connection(monkeypatch, max_document_mb=0.00001)
    task = OneTask.of_run("create_applicant", f"applicant__{reference}")
    end = task.step()
    assert (end.state, "more than the 1e-05 MB" in end.words) == ("failed", True)
    # Airflow logs that the task has run.
    assert (kept_of_forms() | {"log": before["log"]}, task.remembers()) == (before, 0)
    assert open_store().record_of(reference).keys() == {"dag_id", "by"}
    set_connection(monkeypatch, max_document_mb=10)
    task.clear()
    assert task.step().state == "success"
    assert len(exchange.state()["users"]) == 1


def kept_of_forms() -> dict[str, Any]:
    """What there is of new users: in the ledger, and of runs, events and Variables in Airflow."""
    with closing(sqlite3.connect(database(), timeout=60)) as connection:
        there = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        # From Airflow 3.4 on XComs are in two tables.
        xcoms = {name for name in there if name.startswith("xcom")}
        tables = {"dag_run", "log", "variable", "task_state_store"} | xcoms
        assert xcoms
        assert there >= tables
        counts = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
    return {"ledger": ledger_of_tests().all(), **counts}


def test_the_form_has_a_label_for_each_field_and_the_countries_by_name(op: Person, folder: Path) -> None:
    form = op.get("/applicants/new").text
    assert '<option value="JP">Japan</option>' in form
    ids = re.findall(r'<(?:input|select)(?: type="\w+")? id="(\w+)"', form)
    # With several DAGs that take applications, the form asks for one of them; other tests may leave some.
    assert {*ids} - {"dag_id"} == {*TEXTS, *FILES} - {"dag_id"}
    assert [each for each in ids if f'<label for="{each}">' not in form] == []
    assert "of 10 MB at most" in form


@pytest.mark.parametrize(
    ("field", "part"),
    [
        ("id_document", Part(GIF, "a.gif")),
        ("id_document", Part(XPS, "a.XPS")),
        ("id_document", Part(b"\0" * 100 + PDF, "a.pdf")),
        ("bank_statement", Part(JPEG + b"\0" * 200_000, "film.jpg")),
        ("bank_statement", Part(PDF, "C:\\Users\\hanako\\statement.pdf")),
        ("bank_statement", Part(PDF, "旅券 (1).pdf")),
        ("bank_statement", Part(PDF, "a.pdf", b"Content-Type: image/png\r\n")),
    ],
    ids=["gif", "xps", "pdf after something", "jpeg before something", "windows", "unicode", "another type told"],
)
def test_what_a_browser_sends_of_a_person_who_means_well_is_taken(
    op: Person, folder: Path, field: str, part: Part
) -> None:
    changes: dict[str, Any] = {field: part}
    reference = reference_in(send(op, **changes))
    document = open_store().read(reference).documents[field]
    assert document.content == part.content
    assert re.fullmatch(rf"{field}\.[a-z]{{3,4}}", document.name)


def test_nothing_is_unpacked(op: Person, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(*_: object, **__: object) -> NoReturn:
        raise AssertionError("something is unpacked")

    bomb = zlib.compress(b"\0" * 50_000_000, 9)
    png = PNG[:33] + bomb + PNG[33:]
    xps = archive(**{"FixedDocSeq.fdseq": b"\0" * 50_000_000})
    token = token_for(op)
    for name in ("zlib.decompress", "zlib.decompressobj", "gzip.decompress", "zipfile.ZipFile", "zipfile.is_zipfile"):
        monkeypatch.setattr(name, unpack)
    answer = send(op, token, id_document=Part(png, "a.png"), proof_address=Part(xps, "a.xps"))
    documents = open_store().read(reference_in(answer)).documents
    assert (documents["id_document"].content, documents["proof_address"].content) == (png, xps)


def cut(part: Part, at: int) -> Part:
    return Part(part.content[:at], part.name)


MARKED = {"id_document": FILES["id_document"]}
FORM_NOT_WHOLE = "This form is cut off. Nothing was stored"
#: Changes of one file, and what is said beside its field.
HOSTILE_FILES: dict[str, tuple[Part | None, str]] = {
    "empty": (Part(b"", "a.pdf"), "is empty"),
    "not chosen": (Part(b"", ""), "choose a file"),
    "left out": (None, "choose a file"),
    "larger than the connection allows": (Part(PDF.ljust(10_000_001), "a.pdf"), "has 10.0 MB, more than the 10 MB"),
    "larger than the page takes": (Part(PDF.ljust(21_000_000), "a.pdf"), "has 21.0 MB, more than the 20 MB"),
    "cut off pdf": (cut(FILES["id_document"], -20), "is cut off"),
    "cut off png": (Part(PNG[:-8], "a.png"), "is cut off"),
    "cut off jpeg": (Part(JPEG[:-1], "a.jpg"), "is cut off"),
    "cut off gif": (Part(GIF[:-1], "a.gif"), "is cut off"),
    "cut off xps": (Part(XPS[:-22], "a.xps"), "is cut off"),
    "a program named as a pdf": (Part(b"MZ" + b"\0" * 100, "a.pdf"), "is no PDF inside"),
    "a page named as a picture": (Part(b"<html><script>1</script>", "a.png"), "is no PNG inside"),
    "an svg named as a jpeg": (Part(b"<svg onload='1'/>", "a.jpg"), "is no JPG inside"),
    "a jpeg named as a png": (Part(JPEG, "a.png"), "is no PNG inside"),
    "gzip bomb named as a pdf": (Part(zlib.compress(b"\0" * 10_000_000), "a.pdf"), "is no PDF inside"),
    "zip bomb named as a pdf": (Part(archive(a=b"\0" * 10_000_000), "a.pdf"), "is no PDF inside"),
    "zip bomb named as an xps": (Part(archive(a=b"\0" * 10_000_000), "a.xps"), "is no XPS inside"),
    "base64 of a pdf": (Part(b"JVBERi0xLjQ=", "a.pdf", b"Content-Transfer-Encoding: base64\r\n"), "is no PDF inside"),
    "a type that the exchange does not take": (Part(b"{\\rtf1", "a.rtf"), "has a type that the exchange does not take"),
    "svg": (Part(b"<svg/>", "a.svg"), "has a type that the exchange does not take"),
    "two ends": (named("id_document", "a.pdf.exe"), "has a type that the exchange does not take"),
    "no end": (named("id_document", "passport"), "has a type that the exchange does not take"),
    "nothing but an end": (named("id_document", ".pdf"), "has a type that the exchange does not take"),
    "letters that run backwards": (named("id_document", "a\u202efdp.exe"), "has a type that the exchange does not"),
    "path upwards": (named("id_document", "../../../etc/cron.d/a.pdf"), "is no file name"),
    "absolute path": (named("id_document", "/etc/passwd.pdf"), "is no file name"),
    "path upwards for windows": (named("id_document", "..\\..\\a.pdf"), "is no file name"),
    "null byte": (named("id_document", "a.exe\0.pdf"), "is no file name"),
    "url": (named("id_document", "s3://bucket/a.pdf"), "is no file name"),
    "long name": (named("id_document", "a" * 252 + ".pdf"), "name is longer than 255 characters"),
}


@pytest.mark.parametrize("case", HOSTILE_FILES)
def test_a_hostile_file_is_refused_in_words_and_leaves_nothing(op: Person, folder: Path, case: str) -> None:
    part, words = HOSTILE_FILES[case]
    before = runs()
    answer = send(op, id_document=part)
    assert answer.status_code == 422
    (fault,) = re.findall(r'<span class="fault" id="fault-(\w+)">([^<]*)', answer.text)
    assert fault[0] == "id_document"
    assert words in fault[1]
    assert nothing_is_left(folder)
    assert runs() == before


#: Changes of one text, and what is said beside its field.
HOSTILE_TEXTS = {
    "null byte": ("first_name", "Ha\0na", "holds a control character"),
    "line end": ("city", "Tokyo\r\nX-Header: 1", "holds a control character"),
    "escape": ("last_name", "\x1b[31m", "holds a control character"),
    "long": ("address", "a" * 201, "is longer than 200 characters"),
    "two addresses": ("email", "a@example.com,b@example.com", "is no e-mail address"),
    "another dag": ("dag_id", "withdraw", "must be one of those that take applications"),
    "no dag": ("dag_id", "", "must be one of those that take applications"),
    "dag path": ("dag_id", "../create_applicant", "must be one of those that take applications"),
}


@pytest.mark.parametrize("case", HOSTILE_TEXTS)
def test_a_hostile_text_is_refused_in_words_and_leaves_nothing(op: Person, folder: Path, case: str) -> None:
    field, text, words = HOSTILE_TEXTS[case]
    changes: dict[str, Any] = {field: text}
    answer = send(op, **changes)
    assert answer.status_code == 422
    assert words in answer.text
    assert nothing_is_left(folder)


def many(token: str) -> list[tuple[str, Part]]:
    """The fields of a form."""
    return list(form_of(token).items())


#: What makes a body of a token; headers; status; words.
HOSTILE_BODIES: dict[str, tuple[Any, dict[str, str], int, str]] = {
    "cut off": (lambda token: body_of(form_of(token))[:-80], {}, 400, FORM_NOT_WHOLE),
    "without its end": (lambda token: body_of(form_of(token))[: -len(BOUNDARY) - 6], {}, 400, FORM_NOT_WHOLE),
    "shorter than told": (lambda token: body_of(form_of(token)), {"Content-Length": "99999"}, 400, FORM_NOT_WHOLE),
    "longer than told": (lambda token: body_of(form_of(token)), {"Content-Length": "10"}, 400, FORM_NOT_WHOLE),
    "told to be too large": (
        lambda token: body_of(form_of(token)),
        {"Content-Length": "104857601"},
        413,
        "The form is larger than 102400 KiB",
    ),
    "told to be no number": (lambda token: body_of(form_of(token)), {"Content-Length": "1e3"}, 413, "is larger than"),
    "too large, and told to be small": (
        lambda token: body_of(form_of(token)) + b"\0" * 104_857_601,
        {"Content-Length": "1000"},
        413,
        "has more than 100 MiB",
    ),
    "empty": (lambda token: b"", {}, 400, FORM_NOT_WHOLE),
    "no form": (lambda token: b"{}", {"Content-Type": "application/json"}, 400, "is no form with files"),
    "without files": (
        lambda token: b"token=" + token.encode(),
        {"Content-Type": "application/x-www-form-urlencoded"},
        400,
        "is no form with files",
    ),
    "without a boundary": (
        lambda token: body_of(form_of(token)),
        {"Content-Type": "multipart/form-data"},
        400,
        "is no form with files",
    ),
    "a boundary beyond all bounds": (
        lambda token: body_of(form_of(token), "b" * 5000),
        {"Content-Type": f"multipart/form-data; boundary={'b' * 5000}"},
        400,
        "cannot be read",
    ),
    "another boundary": (lambda token: body_of(form_of(token), "other"), {}, 400, "cannot be read"),
    "packed": (
        lambda token: zlib.compress(body_of(form_of(token))),
        {"Content-Encoding": "deflate"},
        400,
        "cannot be read",
    ),
    "rubbish": (lambda token: bytes(range(256)) * 100, {}, 400, "cannot be read"),
    "a field twice": (
        lambda token: body_of([*many(token), ("email", Part(b"b@example.com"))]),
        {},
        400,
        "has other fields than the page",
    ),
    "a file twice": (
        lambda token: body_of([*many(token), ("id_document", Part(PDF, "b.pdf"))]),
        {},
        400,
        "has other fields than the page",
    ),
    "a field more": (lambda token: body_of(form_of(token, is_admin="1")), {}, 400, "has other fields than the page"),
    "ten thousand fields": (
        lambda token: body_of([*many(token), *((f"f{n}", Part(b"")) for n in range(10_000))]),
        {},
        400,
        "has other fields than the page",
    ),
    "a file more": (
        lambda token: body_of(form_of(token, other=Part(PDF, "c.pdf"))),
        {},
        400,
        "has other fields than the page",
    ),
    "a file for a text": (
        lambda token: body_of(form_of(token, email=Part(b"a@example.com", "a.txt"))),
        {},
        400,
        "has other fields than the page",
    ),
    "a text for a file": (
        lambda token: body_of(form_of(token, id_document=Part(PDF))),
        {},
        400,
        "has other fields than the page",
    ),
    "a text beyond all bounds": (
        lambda token: body_of(form_of(token, address="a" * 5000)),
        {},
        400,
        "has a field that is too long",
    ),
    "a text that is no text": (
        lambda token: body_of(form_of(token, address=Part(b"\xff\xfe"))),
        {},
        400,
        "has a text that is no UTF-8",
    ),
    "a codec that unpacks": (
        lambda token: body_of(form_of(token, address=Part(zlib.compress(b"a" * 1000)))),
        {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}; charset=zlib"},
        400,
        "has a text that is no UTF-8",
    ),
    "a head beyond all bounds": (
        lambda token: body_of(form_of(token, address=Part(b"", head=b"X: " + b"a" * 5000 + b"\r\n"))),
        {},
        400,
        "",
    ),
    "a thousand heads": (
        lambda token: body_of(form_of(token, address=Part(b"", head=b"X: a\r\n" * 1000))),
        {},
        400,
        "",
    ),
    "a name beyond all bounds": (
        lambda token: body_of(form_of(token, id_document=Part(PDF, "a" * 5000 + ".pdf"))),
        {},
        400,
        "",
    ),
    "a part without a name": (
        lambda token: b"--%b\r\nX: y\r\n\r\na\r\n" % BOUNDARY.encode() + body_of(form_of(token)),
        {},
        400,
        "has other fields than the page",
    ),
    "sent by another site": (
        lambda token: body_of(form_of(token)),
        {"Sec-Fetch-Site": "cross-site"},
        403,
        "was sent by another site",
    ),
    "without a token": (lambda token: body_of(many(token)[1:]), {}, 403, "was opened by somebody else"),
    "a token of rubbish": (lambda token: body_of(form_of(token[::-1])), {}, 403, "was opened by somebody else"),
    "a token of another person": (
        lambda token: body_of(form_of(token_for(Person("user")))),
        {},
        403,
        "was opened by somebody else",
    ),
    "a token of another form": (
        lambda token: body_of(form_of(other_token())),
        {},
        403,
        "was opened by somebody else",
    ),
}


def other_token() -> str:
    """The same person's token of other forms."""
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    from airflow_provider_quoine.plugins.protection import form_token

    return form_token(SimpleAuthManagerUser(username="op", role="OP"))


@pytest.mark.parametrize("case", HOSTILE_BODIES)
def test_a_hostile_form_is_refused_in_words_and_leaves_nothing(op: Person, folder: Path, case: str) -> None:
    make, headers, status, words = HOSTILE_BODIES[case]
    before = runs()
    answer = post(op, make(token_for(op)), **headers)
    assert (answer.status_code, words in answer.text) == (status, True), answer.text
    assert "Nothing" in answer.text
    assert answer.headers["content-type"].startswith("text/html")
    assert nothing_is_left(folder)
    assert runs() == before


def test_a_form_that_comes_too_slowly_is_ended(op: Person, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "SECONDS", -1)
    answer = send(op)
    assert (answer.status_code, "did not come within" in answer.text) == (408, True)
    assert nothing_is_left(folder)


def test_of_somebody_who_may_not_send_it_nothing_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object, **__: object) -> NoReturn:
        raise AssertionError("it is read")

    monkeypatch.setattr(pages, "read_form", read)
    monkeypatch.setattr(pages, "one_of_few", read)
    assert post(Person("viewer"), body_of(form_of("x"))).status_code == 403
    assert post(Person(None), body_of(form_of("x"))).status_code == 401


def test_a_smaller_limit_of_the_connection_holds(op: Person, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_connection(monkeypatch, max_document_mb=0.5)
    assert "of 0.5 MB at most" in op.get("/applicants/new").text
    answer = send(op, id_document=Part(PDF.ljust(500_001), "a.pdf"))
    assert "has 0.5 MB, more than the 0.5 MB" in answer.text
    assert nothing_is_left(folder)


def test_a_connection_that_cannot_be_used_is_named_instead_of_the_form(
    op: Person, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = token_for(op)
    monkeypatch.delenv("AIRFLOW_CONN_QUOINE_DEFAULT")
    form = op.get("/applicants/new").text
    assert "The connection &#39;quoine_default&#39; of the DAG create_applicant cannot be used" in form
    assert "<form" not in form
    assert send(op, token).status_code == 422
    assert nothing_is_left(folder)


def test_what_is_received_and_then_expires_says_so(op: Person, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "new_reference", lambda now: new_reference(now - timedelta(hours=1)))
    reference = reference_in(send(op))
    page = op.get(f"/applicants/{reference}").text
    assert ">received<" in page
    assert f"{time_of(reference):%Y-%m-%d %H:%M:%S} UTC" in page
    assert f'href="/dags/create_applicant/runs/applicant__{reference}"' in page
    assert "<dt>Sent by</dt><dd>op</dd>" in page
    monkeypatch.setenv("AIRFLOW__QUOINE__APPLICATIONS_DAYS", "0.01")
    assert ">expired<" in op.get("/applicants").text
    assert "removed because their time was over" in op.get(f"/applicants/{reference}").text
    assert [path.suffix for path in folder.iterdir()] == [".received"]
    task = OneTask.of_run("create_applicant", f"applicant__{reference}")
    end = task.step()
    assert end.state == "failed"
    assert f"There is no application {reference}" in end.words
    assert "Nothing was sent" in end.words


def test_an_applicant_whose_run_was_deleted_is_shown_and_can_be_sent_again(op: Person, folder: Path) -> None:
    token = token_for(op)
    reference = reference_in(send(op, token))
    task = OneTask.of_run("create_applicant", f"applicant__{reference}")
    task.delete_run()
    page = op.get(f"/applicants/{reference}").text
    assert "There is none: it was deleted" in page
    assert "<dt>Sent by</dt><dd>op</dd>" in page
    assert reference_in(send(op, token)) == reference
    assert runs()[task.run_id]["state"] == "queued"


@contextmanager
def a_database_that_takes_no_run(words: str) -> Iterator[None]:
    """Have the database refuse new runs."""
    refuses = "CREATE TRIGGER takes_no_run BEFORE INSERT ON dag_run BEGIN SELECT RAISE({}, 'no'); END"
    with closing(sqlite3.connect(database(), timeout=60)) as connection:
        connection.execute(refuses.format(words))
        try:
            yield
        finally:
            connection.execute("DROP TRIGGER takes_no_run")


@pytest.mark.parametrize("how", ["killed before", "refused", "deleted"])
def test_an_application_without_a_run_is_shown_and_can_be_started(
    op: Person, folder: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    token = token_for(op)
    if how == "killed before":
        with monkeypatch.context() as killed:
            killed.setattr(pages, "start_run", lambda *_: None)
            send(op, token)
    elif how == "refused":
        with a_database_that_takes_no_run("FAIL"):
            answer = send(op, token)
        assert (answer.status_code, "is stored, but Airflow&#39;s database did not take" in answer.text) == (503, True)
    else:
        OneTask.of_run("create_applicant", f"applicant__{reference_in(send(op, token))}").delete_run()
    (kept,) = open_store().kept()
    path = f"/applicants/{kept.reference}"
    assert ">not started<" in op.get("/applicants").text
    assert "Nothing sends this application" in op.get(path).text
    viewer = Person("viewer")
    assert "Start the run" not in viewer.get(path).text
    assert viewer.request("POST", path, data={"token": viewer.token}).status_code == 403
    assert runs().get(f"applicant__{kept.reference}") is None
    for _ in range(2):
        other = Person("user")
        assert reference_in(other.request("POST", path, data={"token": other.token})) == kept.reference
    run = runs()[f"applicant__{kept.reference}"]
    assert (run["triggering_user_name"], run["state"]) == ("user", "queued")
    shown = op.get(path).text
    assert "Start the run" not in shown
    assert "<dt>Sent by</dt><dd>op</dd>" in shown
    assert OneTask.of_run("create_applicant", run["dag_run_id"]).step().state == "success"


def test_a_run_that_is_deleted_after_its_user_exists_is_not_asked_for_again(op: Person, folder: Path) -> None:
    reference = reference_in(send(op))
    task = OneTask.of_run("create_applicant", f"applicant__{reference}")
    assert task.step().state == "success"
    task.delete_run()
    shown = op.get(f"/applicants/{reference}").text
    assert "There is none any more" in shown
    assert "Start the run" not in shown


def test_a_form_that_comes_again_does_not_remove_what_waits(
    op: Person, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = token_for(op)
    reference = reference_in(send(op, token))
    OneTask.of_run("create_applicant", f"applicant__{reference}").delete_run()
    monkeypatch.setenv("AIRFLOW__SCHEDULER__ALLOWED_RUN_ID_PATTERN", "^never$")
    assert send(op, token).status_code == 422
    assert op.request("POST", f"/applicants/{reference}", data={"token": op.token}).status_code == 422
    assert open_store().read(reference).user.email == TEXTS["email"]


def test_an_applicant_who_is_not_there_is_told(op: Person, folder: Path) -> None:
    for reference in (new_reference(time_of("20260101T000000-x")), "..%2f..%2fx", "x"):
        assert op.get(f"/applicants/{reference}").status_code == 404
    assert "There are no applicants yet" in op.get("/applicants").text


def test_a_run_that_airflow_refuses_leaves_nothing(op: Person, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__SCHEDULER__ALLOWED_RUN_ID_PATTERN", "^never$")
    answer = send(op)
    assert answer.status_code == 422
    assert "Airflow starts no run of the DAG create_applicant" in answer.text
    assert 'value="Tokyo-Marker"' in answer.text
    assert nothing_is_left(folder)


def test_a_store_that_does_not_answer_is_told(op: Person, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise PermissionError(13, "not for you")

    token = token_for(op)
    monkeypatch.setattr("airflow_provider_quoine.applications.store.ApplicationStore._write", fail)
    answer = send(op, token)
    assert (answer.status_code, "does not answer: PermissionError. Nothing was sent" in answer.text) == (422, True)
    monkeypatch.setattr("airflow_provider_quoine.applications.store.ApplicationStore._names", fail)
    for path in ("/applicants", f"/applicants/{new_reference(time_of('20260101T000000-x'))}"):
        assert op.get(path).status_code == 503


def test_an_application_is_not_shown() -> None:
    assert not [name for name in Application.__dataclass_fields__.values() if name.repr]
