"""Every example DAG, run whole against the sandbox; those that ask a person are run up to the question."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.dags.conftest import stored_variable

RunDag = Callable[..., tuple[str, dict[str, str], dict[str, Any]]]


@pytest.fixture
def person(tmp_path: Path) -> dict[str, str]:
    """A filled-in onboarding form."""
    documents = {}
    for field, name in {
        "id_document": "passport.pdf",
        "proof_address": "bill.png",
        "bank_statement": "statement.jpg",
    }.items():
        path = tmp_path / name
        path.write_bytes(b"a document")
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


def test_onboard_user(run_dag: RunDag, exchange: SandboxControl, person: dict[str, str]) -> None:
    state, tasks, results = run_dag("quoine_onboard_user", person)
    assert (state, tasks) == ("success", {"create_user": "success", "wait_for_approval": "success"})
    (user,) = exchange.state()["users"]
    assert user["email"] == person["email_address"]
    assert str(results["create_user"]) == str(user["user_id"])
    assert results["wait_for_approval"] == "APPROVED"
    assert "api_secret" in stored_variable(f"quoine_user_{user['user_id']}_api_secret")


def test_declined_user_fails_and_is_not_asked_for_again(
    run_dag: RunDag, exchange: SandboxControl, person: dict[str, str]
) -> None:
    exchange.outcome("user", "DECLINED")
    state, tasks, _ = run_dag("quoine_onboard_user", person)
    assert (state, tasks) == ("failed", {"create_user": "success", "wait_for_approval": "failed"})


def test_order_book_snapshot(run_dag: RunDag, exchange: SandboxControl) -> None:
    state, _, results = run_dag("quoine_order_book_snapshot", {"pair": "ethbtc"})
    assert state == "success"
    book = results["snapshot"]
    assert book["bids"]
    assert book["asks"]


def test_chain_parks_for_a_person_with_the_code_sent_and_nothing_withdrawn(
    run_dag: RunDag, exchange: SandboxControl, person: dict[str, str]
) -> None:
    form = {**person, "amount": "0.5", "withdrawal_address": "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj", "pair": "btcjpy"}
    _, tasks, results = run_dag("quoine_onboard_and_withdraw", form)
    assert tasks["authorize_withdrawal"] == "awaiting_input"
    assert {name: tasks[name] for name in ("create_user", "wait_for_approval", "snapshot")} == {
        "create_user": "success",
        "wait_for_approval": "success",
        "snapshot": "success",
    }
    assert exchange.latest_code(results["create_user"])
    assert exchange.state()["withdrawals"] == []
