"""Every example DAG, run whole against the sandbox; those that ask a person are run up to the question."""

from __future__ import annotations

import gzip
import json
import shutil
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quoine.applications.application import Application
from airflow_provider_quoine.applications.application import new_reference as new_application
from airflow_provider_quoine.applications.configuration import open_store
from airflow_provider_quoine.assets import WITHDRAWALS
from airflow_provider_quoine.exchange.models import DOCUMENT_FIELDS, Document, OnboardingUser
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.airflow_fixtures import FOLDERS, parse, stored_variable
from tests.support.asset_events import asset_events
from tests.support.documents import JPEG, PDF, PNG
from tests.support.person import Answer, person

pytestmark = pytest.mark.usefixtures("airflow_database")

#: Test vector of BIP 173.
ADDRESS = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
RunDag = Callable[..., tuple[str, dict[str, str], dict[str, Any]]]


@pytest.fixture
def form(tmp_path: Path) -> dict[str, str]:
    """A filled-in onboarding form."""
    documents = {}
    for field, name, content in (
        ("id_document", "passport.pdf", PDF),
        ("proof_address", "bill.png", PNG),
        ("bank_statement", "statement.jpg", JPEG),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        documents[field] = str(path)
    return {
        "first_name": "Taro",
        "last_name": "Yamada",
        "first_furi_name": "タロウ",
        "email_address": f"taro-{uuid.uuid4().hex[:8]}@example.com",
        "phone": "090-1790-1357",
        "country": "JP",
        **documents,
    }


@pytest.mark.parametrize("example", sorted(FOLDERS["examples"].glob("quoine_*.py")), ids=lambda path: path.stem)
def test_an_example_that_is_copied_alone_is_a_dag(example: Path, tmp_path: Path) -> None:
    from airflow.dag_processing.dagbag import BundleDagBag

    shutil.copy(example, tmp_path)
    bag = BundleDagBag(str(tmp_path), bundle_path=tmp_path, bundle_name="copied")
    assert (bag.import_errors, list(bag.dags)) == ({}, [example.stem])


def test_onboard_user(run_dag: RunDag, exchange: SandboxControl, form: dict[str, str]) -> None:
    state, tasks, results = run_dag("quoine_onboard_user", form)
    assert (state, tasks) == ("success", {"create_user": "success", "wait_for_approval": "success"})
    (user,) = exchange.state()["users"]
    assert user["email"] == form["email_address"]
    assert str(results["create_user"]) == str(user["user_id"])
    assert results["wait_for_approval"] == "APPROVED"
    assert "api_secret" in stored_variable(f"quoine_user_{user['user_id']}_api_secret")


def test_onboard_applicant(
    run_dag: RunDag, exchange: SandboxControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__QUOINE__APPLICATIONS_PATH", str(tmp_path / "applications"))
    documents = {field: Document(name=f"{field}.pdf", content=PDF) for field in DOCUMENT_FIELDS}
    person = OnboardingUser(first_name="Taro", last_name="Yamada", email="a@example.com", phone="0901790", country="JP")
    reference = new_application(datetime.now(UTC))
    open_store().add(reference, Application(user=person, documents=documents), {})
    state, tasks, results = run_dag("quoine_onboard_applicant", {"application": reference})
    assert (state, tasks) == ("success", {"create_user": "success", "wait_for_approval": "success"})
    (user,) = exchange.state()["users"]
    assert (user["email"], str(user["user_id"])) == ("a@example.com", str(results["create_user"]))
    assert [path.suffix for path in sorted((tmp_path / "applications").iterdir())] == [".received", ".user"]


def test_declined_user_fails_and_is_not_asked_for_again(
    run_dag: RunDag, exchange: SandboxControl, form: dict[str, str]
) -> None:
    exchange.set_next_outcome("user", "DECLINED")
    state, tasks, _ = run_dag("quoine_onboard_user", form)
    assert (state, tasks) == ("failed", {"create_user": "success", "wait_for_approval": "failed"})


def test_order_book_snapshot(run_dag: RunDag, exchange: SandboxControl) -> None:
    state, _, results = run_dag("quoine_order_book_snapshot", {"pair": "ethbtc"})
    assert state == "success"
    book = results["snapshot"]
    assert book["bids"]
    assert book["asks"]


def test_capture_order_books(run_dag: RunDag, exchange: SandboxControl, tmp_path: Path) -> None:
    conf = {"pairs": ["btcjpy", "ethbtc"], "path": str(tmp_path), "minutes": 0.15, "interval": 0.2}
    state, _, _ = run_dag("quoine_capture_order_books", conf)
    assert state == "success"
    files = sorted(tmp_path.glob("quoine_capture_order_books/*/capture/*/*.jsonl.gz"))
    assert [path.name.rpartition("_2")[0] for path in files] == ["order_book_btcjpy", "order_book_ethbtc"]
    for path in files:
        rows = gzip.decompress(path.read_bytes()).splitlines()
        assert len(rows) == json.loads((path.parent / f"_{path.name}.json").read_text())["rows"] > 0
    # One connection for both.
    assert exchange.state()["stream"]["connections_max"] <= 2


def new_reference() -> str:
    """A payment reference of its own."""
    return f"test-{uuid.uuid4().hex}"


def order_of(onboarded: dict[str, Any]) -> dict[str, str]:
    """A filled-in withdrawal form for the user of a run."""
    return {
        "payment_reference": new_reference(),
        "user_id": str(onboarded["create_user"]),
        "amount": "0.5",
        "address": ADDRESS,
    }


def code_of(exchange: SandboxControl) -> Answer:
    """Type the newest code."""
    return lambda question: ("Send", {"one_time_token": exchange.auth_codes()[-1]["code"]})


def test_chain(run_dag: RunDag, exchange: SandboxControl, form: dict[str, str]) -> None:
    payout = {"payment_reference": new_reference(), "amount": "0.25", "withdrawal_address": ADDRESS, "pair": "btcjpy"}
    with person(code_of(exchange)) as asked:
        state, tasks, results = run_dag("quoine_onboard_and_withdraw", form | payout)
    assert (state, set(tasks.values())) == ("success", {"success"})
    assert results["wait_for_withdrawal"] | {"id": ""} == {
        "id": "",
        "amount": "0.25",
        "address": ADDRESS,
        "state": "processed",
    }
    (question,) = asked
    assert "0.25 BTC" in question["body"]
    assert ADDRESS in question["body"]
    assert len(exchange.state()["withdrawals"]) == 1


def test_withdraw_bitcoin(run_dag: RunDag, exchange: SandboxControl, form: dict[str, str]) -> None:
    _, _, results = run_dag("quoine_onboard_user", form)
    order = {"user_id": str(results["create_user"]), "amount": "0.5", "address": ADDRESS} | {
        "payment_reference": new_reference()
    }
    with person(code_of(exchange)):
        state, _, results = run_dag("quoine_withdraw_bitcoin", order)
    assert state == "success"
    assert results["wait_for_withdrawal"]["state"] == "processed"
    (withdrawal,) = exchange.state()["withdrawals"]
    assert withdrawal["amount"] == "0.5"
    told = [extra for extra in asset_events(WITHDRAWALS) if extra["reference"] == order["payment_reference"]]
    assert [(extra["id"], extra["state"]) for extra in told] == [(str(withdrawal["id"]), "processed")]


def test_a_day_is_paid_once_however_often_its_dag_runs(
    run_dag: RunDag, exchange: SandboxControl, form: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, results = run_dag("quoine_onboard_user", form)
    payout = order_of(results)
    monkeypatch.setenv("AIRFLOW_VAR_QUOINE_DAILY_PAYOUT", json.dumps(payout))
    # The first look at the exchange is up to a minute later, else.
    monkeypatch.setattr(parse("examples")["quoine_daily_payout"].get_task("pay_out"), "poke_interval", 1.0)
    with person(code_of(exchange)) as asked:
        first = run_dag("quoine_daily_payout", {})
        again = run_dag("quoine_daily_payout", {})
    assert (first[0], again[0]) == ("success", "success")
    assert first[2]["pay_out"]["id"] == again[2]["pay_out"]["id"]
    assert (len(asked), len(exchange.state()["withdrawals"])) == (1, 1)


def test_person_who_cancels_sends_nothing(run_dag: RunDag, exchange: SandboxControl, form: dict[str, str]) -> None:
    _, _, results = run_dag("quoine_onboard_user", form)
    order = {"user_id": str(results["create_user"]), "amount": "0.5", "address": ADDRESS} | {
        "payment_reference": new_reference()
    }
    with person(lambda question: ("Cancel", {"one_time_token": ""})):
        _, tasks, _ = run_dag("quoine_withdraw_bitcoin", order)
    assert tasks == dict.fromkeys(("approve_1", "approve_2"), "success") | dict.fromkeys(
        ("authorize_withdrawal", "wait_for_withdrawal"), "skipped"
    )
    assert exchange.state()["withdrawals"] == []


def test_wrong_codes_are_asked_for_again_a_bounded_number_of_times(
    run_dag: RunDag, exchange: SandboxControl, form: dict[str, str]
) -> None:
    _, _, results = run_dag("quoine_onboard_user", form)
    order = {"user_id": str(results["create_user"]), "amount": "0.5", "address": ADDRESS} | {
        "payment_reference": new_reference()
    }
    with person(lambda question: ("Send", {"one_time_token": "000000000"})) as asked:
        _, tasks, _ = run_dag("quoine_withdraw_bitcoin", order)
    assert tasks["authorize_withdrawal"] == "failed"
    assert len(asked) == 3
    assert len(exchange.auth_codes()) == 1
    assert exchange.state()["withdrawals"] == []


def test_second_code_may_be_right(run_dag: RunDag, exchange: SandboxControl, form: dict[str, str]) -> None:
    _, _, results = run_dag("quoine_onboard_user", form)
    order = {"user_id": str(results["create_user"]), "amount": "0.5", "address": ADDRESS} | {
        "payment_reference": new_reference()
    }
    codes = iter(["000000000", "not a code"])

    def mistyped_at_first(question: dict[str, Any]) -> tuple[str, dict[str, str]]:
        return "Send", {"one_time_token": next(codes, None) or exchange.auth_codes()[-1]["code"]}

    with person(mistyped_at_first):
        state, _, _ = run_dag("quoine_withdraw_bitcoin", order)
    assert state == "success"
    assert len(exchange.auth_codes()) == 1
    assert len(exchange.state()["withdrawals"]) == 1
