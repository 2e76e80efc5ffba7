"""What a person chose, and what became of it, stays on Airflow's page; the code stays nowhere."""

from __future__ import annotations

import json
import secrets
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.sdk import BaseNotifier

from airflow_provider_quoine import api_server
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.leaks import cells, find
from tests.support.notifier import TOLD, Telling
from tests.support.one_task import ADDRESS, OneTask, api, database, paid, set_connection

pytestmark = pytest.mark.usefixtures("airflow_database")

WITHDRAW = "POST /btc_withdrawals/"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have tasks of this process reach its API server."""

    def post(url: str, token: str, sealed: str, *, timeout: float) -> dict[str, Any]:
        headers = {"X-Quoine-Token": token, "Content-Type": "text/plain"}
        answer = api().post(urlsplit(url).path, headers=headers, content=sealed)
        answer.raise_for_status()
        return dict(answer.json())

    monkeypatch.setattr(api_server, "_post", post)


@pytest.fixture
def told() -> list[str]:
    """What notifiers are told."""
    TOLD.clear()
    return TOLD


def asked(exchange: SandboxControl, payer: str, way: str = "") -> OneTask:
    """A task that has asked for a code."""
    exchange.set_pace(None)
    task = OneTask(f"authorize{way}", user_id=payer, amount="0.5", address=ADDRESS)
    assert task.step().state == "awaiting_input"
    return task


@pytest.mark.parametrize("way", ["", "_waiting"])
def test_a_paid_withdrawal_says_who_sent_it_and_its_id_and_the_code_is_nowhere(
    server: None, exchange: SandboxControl, payer: str, way: str
) -> None:
    task = asked(exchange, payer, way)
    code = exchange.latest_code(payer)
    assert task.answer("Send", code).state in {"success", "deferred"}
    (withdrawal,) = paid(exchange)
    shown = task.question()
    assert (shown["response_received"], shown["chosen_options"]) == (True, ["Send"])
    name = shown["responded_by_user"]["name"]
    assert name
    assert shown["params_input"] == {"Answered by": name, "What became of it": f"sent as withdrawal {withdrawal}"}
    assert task.xcom("quoine_answer") == {"chosen": "Send", "by": name, "outcome": f"sent as withdrawal {withdrawal}"}
    assert find({"code": code}, cells(database())) == set()


def test_a_question_that_is_shown_as_answered_takes_no_second_answer(
    server: None, exchange: SandboxControl, payer: str
) -> None:
    task = asked(exchange, payer, "_waiting")
    task.answer("Send", exchange.latest_code(payer))
    with pytest.raises(AssertionError, match="already"):
        task.type_in("Send", "123456")


def test_a_withdrawal_that_was_cancelled_says_so(server: None, exchange: SandboxControl, payer: str) -> None:
    task = asked(exchange, payer)
    assert task.answer("Cancel", exchange.latest_code(payer)).state == "skipped"
    shown = task.question()
    assert shown["chosen_options"] == ["Cancel"]
    assert shown["params_input"]["What became of it"] == "nothing was sent"


def test_an_unknown_outcome_says_so_and_its_notifiers_are_told(
    server: None, exchange: SandboxControl, payer: str, told: list[str]
) -> None:
    task = asked(exchange, payer, "_telling")
    exchange.fault("drop_after", WITHDRAW)
    assert task.answer("Send", exchange.latest_code(payer)).state == "failed"
    assert task.question()["params_input"]["What became of it"] == "unknown: the exchange may have carried it out"
    assert [words.splitlines()[0] for words in told] == [
        "Withdraw 0.5 BTC?",
        "The outcome of this payment is unknown.",
    ]


def test_the_next_question_says_that_the_last_code_was_refused(
    server: None, exchange: SandboxControl, payer: str, told: list[str]
) -> None:
    task = asked(exchange, payer, "_telling")
    first = task.question()
    assert "reload the page if it stays grey" in first["body"]
    wrong = f"{secrets.randbelow(10**12):012}"
    assert task.answer("Send", wrong).state == "awaiting_input"
    second = task.question()
    assert not second["response_received"]
    assert second["body"].startswith("**The last code was refused, and nothing was sent.**")
    assert "Token is invalid" in second["body"]
    about = [line for line in first["body"].splitlines() if line.startswith("- ")]
    assert [line for line in second["body"].splitlines() if line.startswith("- ")] == about
    assert len(told) == 2
    assert task.answer("Send", exchange.latest_code(payer)).state == "success"
    assert len(paid(exchange)) == 1
    assert find({"code": wrong}, cells(database())) == set()


@pytest.mark.parametrize(("person", "run"), [("alice", "the run"), ("Carol", "another run for this payment")])
def test_the_next_question_says_why_an_approval_does_not_count(
    server: None, exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch, person: str, run: str
) -> None:
    set_connection(monkeypatch, withdrawal_approvals=1)
    task = OneTask("approve", started_by="alice", user_id=payer, amount="0.5", address=ADDRESS)
    order = {"payment_reference": task.reference, "user_id": payer, "amount": "0.5", "address": ADDRESS}
    assert OneTask("approve", started_by="carol", **order).step().state == "awaiting_input"
    assert task.step().state == "awaiting_input"
    first = task.question()["body"]
    assert "reload the page if it stays grey" in first
    assert task.answer("Approve", person=person).state == "awaiting_input"
    second = task.question()["body"]
    assert second.startswith(f"**The last approval does not count.** `{person} started {run}, so somebody else has to")
    assert second.endswith(first)
    assert task.answer("Approve", person="bob").state == "success"


def test_the_words_after_the_last_code_have_no_long_line(server: None, exchange: SandboxControl, payer: str) -> None:
    task = asked(exchange, payer)
    ends = [task.answer("Send", f"0000000{number}") for number in range(3)]
    assert [end.state for end in ends] == ["awaiting_input", "awaiting_input", "failed"]
    assert "UTC: `" in task.question()["body"], "a time that a person reads"


def test_a_later_try_does_not_say_so_any_more(server: None, exchange: SandboxControl, payer: str) -> None:
    task = asked(exchange, payer)
    task.answer("Send", "00000000")
    assert task.question()["body"].startswith("**The last code was refused")
    task.clear()
    assert task.step().state == "awaiting_input"
    assert task.question()["body"].startswith("You are asked")


def test_without_the_api_server_the_withdrawal_is_sent_all_the_same(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_server, "_bases", list)
    task = asked(exchange, payer)
    assert task.answer("Send", "00000000").state == "awaiting_input"
    assert task.answer("Send", exchange.latest_code(payer)).state == "success"
    assert task.xcom("quoine_answer")["outcome"] == f"sent as withdrawal {paid(exchange)[0]}"


def test_a_notifier_that_fails_stops_nothing(
    server: None, exchange: SandboxControl, payer: str, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: BaseNotifier, context: Any) -> None:
        raise OSError("no mail server")

    monkeypatch.setattr(Telling, "notify", fail)
    task = asked(exchange, payer, "_telling")
    assert task.answer("Send", exchange.latest_code(payer)).state == "success"


def test_nobody_else_may_change_a_question(exchange: SandboxControl, payer: str) -> None:
    task = asked(exchange, payer)
    url, before = f"{api_server.PREFIX}{api_server.QUESTION}", task.question()["body"]
    forged = json.dumps({"task_instance": "x", "body": "Pay me", "answer": None})
    for token in ("", "nothing"):
        answered = api().post(url, headers={"X-Quoine-Token": token, "Content-Type": "text/plain"}, content=forged)
        assert answered.status_code == 403
    assert task.question()["body"] == before
