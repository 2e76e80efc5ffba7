"""The operator that creates a user: all is checked before anything is sent, and no user is created twice."""

from __future__ import annotations

import io
import os
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest

from airflow_provider_quoine.exchange.models import Document, OnboardingUser, check_password
from airflow_provider_quoine.exchange.rest.client import QuoineClient
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.payments.schema import Step
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.airflow_fixtures import stored_variable
from tests.support.documents import JPEG, PDF, PNG
from tests.support.notifier import TOLD
from tests.support.one_task import OneTask, set_connection, undo_edits

pytestmark = pytest.mark.usefixtures("airflow_database")

CREATE = "POST /users/onboarding"
PASSWORD = "Passw0rd-of-the-test"


@pytest.fixture
def form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A correct form, with documents on this machine and a password in a Variable."""
    names = {"id_document": "passport.pdf", "proof_address": "bill.PNG", "bank_statement": "statement.jpg"}
    for name, content in zip(names.values(), (PDF, PNG, JPEG), strict=True):
        (tmp_path / name).write_bytes(content)
    monkeypatch.setenv("AIRFLOW_VAR_USER_PASSWORD", PASSWORD)
    return {
        "first_name": "Taro",
        "last_name": "Yamada",
        "email_address": f"taro-{uuid.uuid4().hex[:8]}@example.com",
        "phone": "090-1790-1357",
        "country": "jp",
        "password": "user_password",
        **{field: str(tmp_path / name) for field, name in names.items()},
    }


def create(form: dict[str, str], *, generate: bool = False) -> OneTask:
    return OneTask(f"create_user_{generate}", **form)


def test_the_users_id_is_returned(exchange: SandboxControl, form: dict[str, str]) -> None:
    task = create(form)
    assert task.step().state == "success"
    (user,) = exchange.state()["users"]
    assert task.xcom() == str(user["user_id"])
    assert user["email"] == form["email_address"]
    assert (user["phone"], user["country"]) == ("09017901357", "JP")
    assert user["documents"]["proof_address"]["filename"] == "bill.PNG"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"id_document": "nowhere/passport.pdf"}, "id_document: there is no file 'nowhere/passport.pdf'"),
        ({"id_document": "/tmp"}, "id_document: there is no file"),
        ({"id_document": ""}, "id_document: there is no file"),
        (
            {"id_document": "pigeon://loft/passport.pdf"},
            "id_document: this worker cannot read the store of 'pigeon://loft/passport.pdf'",
        ),
        ({"email_address": "taro at example.com"}, "email is no e-mail address"),
        ({"country": "XX"}, "country must be a two-letter ISO 3166 code"),
        ({"country": "Japan"}, "country must be a two-letter ISO 3166 code"),
        ({"last_name": "  "}, "last_name is required"),
        ({"phone": "none"}, "phone must be"),
        ({"password": "no_such_password"}, "There is no Variable 'no_such_password'"),
    ],
)
def test_wrong_input_fails_at_once_and_nothing_is_sent(
    exchange: SandboxControl, form: dict[str, str], wrong: dict[str, str], words: str
) -> None:
    task = create(form | wrong)
    end = task.step()
    assert (end.state, exchange.state()["requests"]) == ("failed", [])
    assert words in end.words
    # A form with another address is another user: this one would stay in the list for ever.
    assert (task.stands(), task.remembers()) == ("", 0)


def test_everything_that_is_wrong_is_named_at_once(
    exchange: SandboxControl, form: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "statement.docx").write_bytes(b"a document")
    wrong = {
        "country": "XX",
        "phone": "none",
        "id_document": "nowhere/passport.pdf",
        "proof_address": r"C:\Users\taro\bill.png",
        "bank_statement": str(tmp_path / "statement.docx"),
        "password": "no_such_password",
    }
    end = create(form | wrong).step()
    assert (end.state, exchange.state()["requests"]) == ("failed", [])
    for name in ("country must", "phone must", "id_document: there is no file", "no_such_password"):
        assert name in end.words
    assert "proof_address: 'C:\\\\Users\\\\taro\\\\bill.png' is a path of a Windows computer" in end.words
    assert "bank_statement: The document 'statement.docx' has a type" in end.words
    assert "Nothing was sent" in end.words


def test_a_document_of_another_type_is_not_sent(exchange: SandboxControl, form: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "statement.docx").write_bytes(b"a document")
    end = create(form | {"bank_statement": str(tmp_path / "statement.docx")}).step()
    assert (end.state, exchange.state()["requests"]) == ("failed", [])
    assert "'statement.docx' has a type that the exchange does not take" in end.words


def test_every_fault_is_named_at_once(exchange: SandboxControl, form: dict[str, str]) -> None:
    Path(form["id_document"]).write_bytes(b"MZ")
    Path(form["bank_statement"]).write_bytes(JPEG[:-2])
    wrong = {"email_address": "taro", "phone": "none", "proof_address": "nowhere.pdf"}
    end = create(form | wrong).step()
    assert (end.state, exchange.state()["requests"]) == ("failed", [])
    for words in (
        "The onboarding form was not sent:",
        "email is no e-mail address",
        "phone must be",
        "id_document: the file 'passport.pdf' is no PDF inside",
        "proof_address: there is no file 'nowhere.pdf'",
        "bank_statement: the file 'statement.jpg' is cut off",
    ):
        assert words in end.words


def test_an_empty_document_is_not_sent(exchange: SandboxControl, form: dict[str, str]) -> None:
    Path(form["id_document"]).write_bytes(b"")
    end = create(form).step()
    assert (end.state, exchange.state()["requests"]) == ("failed", [])
    assert "'passport.pdf' is empty" in end.words


@pytest.mark.parametrize(("size", "state"), [(1_000_000, "success"), (1_000_001, "failed")])
def test_a_document_may_have_the_connections_size_and_no_more(
    exchange: SandboxControl, form: dict[str, str], monkeypatch: pytest.MonkeyPatch, size: int, state: str
) -> None:
    set_connection(monkeypatch, max_document_mb=1)
    Path(form["proof_address"]).write_bytes(PNG[:-12].ljust(size - 12, b"x") + PNG[-12:])
    end = create(form).step()
    assert end.state == state
    assert len(exchange.state()["requests"]) == (state == "success")
    assert state == "success" or "more than the 1 MB that the connection's field 'Largest document' allows" in end.words


def test_the_record_is_in_doubt_for_as_long_as_the_documents_may_be_on_their_way(
    exchange: SandboxControl, form: dict[str, str]
) -> None:
    Path(form["proof_address"]).write_bytes(PNG[:-12].ljust(1_000_000 - 12, b"x") + PNG[-12:])
    exchange.fault("drop_after", CREATE)
    task = create(form)
    assert task.step().state == "failed"
    payment = task.payment()
    assert payment is not None
    assert payment.in_doubt_until is not None
    # 10 s for each of 16 slices of a document of this size, and 120 s for the response.
    in_doubt = payment.in_doubt_until - datetime.now(UTC)
    assert in_doubt.total_seconds() > 16 * 10 + 120


def test_a_weak_password_is_neither_sent_nor_told(
    exchange: SandboxControl, form: dict[str, str], monkeypatch: pytest.MonkeyPatch, airflow_log: io.StringIO
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_USER_PASSWORD", "weak-password")
    end = create(form).step()
    assert (end.state, exchange.state()["requests"]) == ("failed", [])
    assert "must have at least 8 characters" in end.words
    assert "weak-password" not in airflow_log.getvalue()


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_documents_may_be_anywhere_that_airflow_can_read(
    exchange: SandboxControl, form: dict[str, str], scheme: str
) -> None:
    from airflow.sdk import ObjectStoragePath
    from airflow.sdk.io import attach
    from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]  # has no types

    # Stands for a store of which Airflow has the provider, such as s3.
    attach("memory", fs=MemoryFileSystem())
    for field in ("id_document", "proof_address", "bank_statement"):
        path = ObjectStoragePath(f"{scheme}://{form[field]}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Path(form[field]).read_bytes())
        form[field] = str(path)
    assert create(form).step().state == "success"
    (user,) = exchange.state()["users"]
    document = user["documents"]["id_document"]
    assert (document["filename"], document["size"]) == ("passport.pdf", len(PDF))


def test_a_password_is_made_and_stored_encrypted(exchange: SandboxControl, form: dict[str, str]) -> None:
    variable = f"password_{uuid.uuid4().hex}"
    task = create(form | {"password": variable}, generate=True)
    assert task.step().state == "success"
    password = stored_variable(variable)
    check_password(password)
    assert len(password) >= 20
    stored = in_database(variable)
    assert stored is not None
    assert password not in str(stored[0])
    assert form["email_address"] not in stored[1]


def in_database(variable: str) -> tuple[Any, str] | None:
    """What stands in the database: value and description."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session

    with create_session() as session:
        row = session.query(Variable._val, Variable.description).filter_by(key=variable).one_or_none()
        return (row[0], str(row[1])) if row is not None else None


def test_a_password_that_is_there_is_kept(exchange: SandboxControl, form: dict[str, str]) -> None:
    variable = f"password_{uuid.uuid4().hex}"
    exchange.fault("status", CREATE, status=429, body="API rate limit exceeded. Please retry after 1s")
    task = create(form | {"password": variable}, generate=True)
    assert task.step().state == "up_for_retry"
    password = stored_variable(variable)
    assert task.step().state == "success"
    assert stored_variable(variable) == password


def test_no_password_is_made_for_a_form_that_is_wrong(exchange: SandboxControl, form: dict[str, str]) -> None:
    variable = f"password_{uuid.uuid4().hex}"
    create(form | {"password": variable, "id_document": "nowhere.pdf"}, generate=True).step()
    assert in_database(variable) is None


def test_a_request_limit_that_is_used_up_passes_by_itself(exchange: SandboxControl, form: dict[str, str]) -> None:
    exchange.fault("status", CREATE, status=429, body="API rate limit exceeded. Please retry after 1s")
    task = create(form)
    assert task.step().state == "up_for_retry"
    assert task.step().state == "success"
    assert len(exchange.state()["users"]) == 1


@pytest.mark.parametrize(("fault", "users"), [("drop_before", 0), ("drop_after", 1), ("garbage", 1)])
def test_after_a_lost_answer_nothing_is_sent_again(
    exchange: SandboxControl, form: dict[str, str], fault: str, users: int
) -> None:
    exchange.fault(fault, CREATE)
    task = create(form)
    TOLD.clear()
    end = task.step()
    assert end.state == "failed"
    (told,) = TOLD
    assert "outcome" in told
    assert form["email_address"] not in told
    assert "--kind user --id ID --why WHY" in end.words
    assert form["email_address"] not in end.words
    for _ in range(2):
        task.clear()
        end = task.step()
        assert end.state == "failed"
        assert "outcome is unknown" in end.words
    state = exchange.state()
    assert (len(state["users"]), len(state["requests"])) == (users, 1)


def test_people_are_told_once_of_a_user_in_doubt_of_whom_the_task_could_not_tell(
    exchange: SandboxControl, form: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_it(*_: object, **__: object) -> NoReturn:
        raise ZeroDivisionError

    task = create(form)
    TOLD.clear()
    with monkeypatch.context() as ended:
        ended.setattr(QuoineClient, "create_onboarding_user", end_it)
        assert task.step().state == "up_for_retry"
    assert (task.stands(), TOLD) == (Step.UNKNOWN, [])
    task.end_in_flight_time()
    for _ in range(2):
        assert OneTask("notify_unknown_outcomes").step().state == "success"
    payment = task.payment()
    assert payment is not None
    (told,) = (words for words in TOLD if payment.order.reference in words)
    assert form["email_address"] not in told
    assert "--kind user --id ID --why WHY" in " ".join(told.split())
    undo_edits()


def test_a_user_whom_a_person_found_is_the_result(exchange: SandboxControl, form: dict[str, str]) -> None:
    exchange.fault("drop_after", CREATE)
    task = create(form)
    task.step()
    (user,) = exchange.state()["users"]
    task.cli("exists", "--id", str(user["user_id"]))
    task.clear()
    assert task.step().state == "success"
    assert task.xcom() == str(user["user_id"])
    assert len(exchange.state()["requests"]) == 1


def test_a_user_whom_a_person_did_not_find_is_created(exchange: SandboxControl, form: dict[str, str]) -> None:
    exchange.fault("drop_before", CREATE)
    task = create(form)
    task.step()
    task.end_in_flight_time()
    task.cli("absent")
    task.clear()
    assert task.step().state == "success"
    assert len(exchange.state()["users"]) == 1


def test_a_taken_email_after_doubt_is_probably_ours(exchange: SandboxControl, form: dict[str, str]) -> None:
    exchange.fault("drop_after", CREATE)
    task = create(form)
    task.step()
    task.end_in_flight_time()
    # The person looked at the wrong place.
    task.cli("absent")
    task.clear()
    end = task.step()
    assert end.state == "failed"
    assert "probably ours" in end.words
    assert "--kind user --id ID --why WHY" in end.words
    assert len(exchange.state()["users"]) == 1


def test_a_taken_email_without_doubt_is_a_plain_refusal(exchange: SandboxControl, form: dict[str, str]) -> None:
    document = Document(name="document.pdf", content=b"%PDF-")
    person = {name: form[name] for name in ("first_name", "last_name", "phone")}
    with QuoineHook().get_conn() as client:
        client.create_onboarding_user(
            user=OnboardingUser(email=form["email_address"], country="JP", **person),
            password=PASSWORD,
            id_document=document,
            proof_address=document,
            bank_statement=document,
        )
    task = create(form)
    # The second time nothing is in doubt either: the first try was refused.
    for _ in range(2):
        end = task.step()
        assert end.state == "failed"
        assert "Email has already been taken" in end.words
        assert "probably" not in end.words
        task.clear()
    assert len(exchange.state()["users"]) == 1


def test_a_second_run_for_the_same_email_finds_the_user(exchange: SandboxControl, form: dict[str, str]) -> None:
    first = create(form)
    assert first.step().state == "success"
    first.delete_run()
    again = create(form | {"email_address": f" {form['email_address'].upper()} ", "first_name": "Jiro"})
    assert again.step().state == "success"
    assert len(exchange.state()["requests"]) == 1
    (user,) = exchange.state()["users"]
    assert again.xcom() == str(user["user_id"])


def test_no_email_is_in_the_ledger(exchange: SandboxControl, form: dict[str, str]) -> None:
    create(form).step()
    files = list((Path(os.environ["AIRFLOW_HOME"]) / "quoine").glob("ledger.db*"))
    assert files
    assert [path.name for path in files if form["email_address"].encode() in path.read_bytes()] == []


def test_no_secret_and_no_document_is_in_the_rendered_fields(exchange: SandboxControl, form: dict[str, str]) -> None:
    task = create(form)
    task.step()
    assert PASSWORD not in str(task.rendered())
    assert "trailer" not in str(task.rendered())
