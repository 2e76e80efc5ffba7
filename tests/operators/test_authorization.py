"""The operator that asks a person for the code: its questions, its requests, and the traces of the code."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pendulum
import pytest
import urllib3.util.connection

from airflow_provider_quoine.exchange import addresses
from airflow_provider_quoine.exchange.amounts import Amount
from airflow_provider_quoine.exchange.models import UserCredentials
from airflow_provider_quoine.hooks import quoine
from airflow_provider_quoine.hooks.quoine import read_secret_variable
from airflow_provider_quoine.operators.authorization import QuoineAuthorizeWithdrawalOperator
from airflow_provider_quoine.payments.policy import WithdrawalPolicy
from airflow_provider_quoine.payments.schema import Step
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.airflow_version import (
    CLEAR_DISCARDS_TASK_STATE,
    QUESTION_IS_REPLACED,
    TRIES_OF_QUESTIONS,
    TRIES_OF_TASKS,
)
from tests.support.leaks import cells, contents, find
from tests.support.one_task import ADDRESS, End, OneTask, ledger_of_tests, set_connection

pytestmark = pytest.mark.usefixtures("airflow_database")

POST, CODE = "POST /btc_withdrawals/", "GET /users/:user_id/auth_code"
NOBODY = "http://127.0.0.1:1"


def authorize(payer: str, way: str = "", **order: Any) -> OneTask:
    return OneTask(f"authorize{way}", **{"user_id": payer, "amount": "0.5", "address": ADDRESS} | order)


def mails(exchange: SandboxControl) -> int:
    return len(exchange.auth_codes())


def test_the_person_sees_amount_address_and_connection_before_the_code_is_typed(
    exchange: SandboxControl, payer: str
) -> None:
    task = authorize(payer)
    assert task.step().state == "awaiting_input"
    question = task.question()
    for told in (task.reference, "0.5 BTC", ADDRESS, "quoine_default", f"user `{payer}`", "Email token was sent"):
        assert told in question["body"]
    assert question["subject"] == "Withdraw 0.5 BTC?"
    # Nothing answers by itself.
    assert question["defaults"] is None
    assert exchange.state()["withdrawals"] == []


@pytest.mark.parametrize(
    ("order", "policy"),
    [
        ({"amount": "0.500000001"}, {}),
        ({"address": ADDRESS[:-1] + "5"}, {}),
        ({}, {"withdrawal_addresses": ""}),
        ({}, {"withdrawal_max": "0.4"}),
        ({}, {"bitcoin_network": "test"}),
    ],
)
def test_what_breaks_a_rule_is_refused_before_a_code_is_asked_for(
    exchange: SandboxControl,
    payer: str,
    monkeypatch: pytest.MonkeyPatch,
    order: dict[str, str],
    policy: dict[str, str],
) -> None:
    set_connection(monkeypatch, **policy)
    assert authorize(payer, **order).step().state == "failed"
    assert mails(exchange) == 0


def test_a_rule_that_is_made_while_the_person_thinks_counts(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = authorize(payer)
    task.step()
    set_connection(monkeypatch, withdrawal_max="0.4")
    assert task.answer("Send", exchange.latest_code(payer)).state == "failed"
    assert exchange.state()["withdrawals"] == []


def test_amount_and_address_are_read_once_and_checked_once_before_the_question_and_once_after_the_answer(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return call(*args, **kwargs)

        return count

    monkeypatch.setattr(Amount, "__new__", counted("amount", Amount.__new__))
    monkeypatch.setattr(addresses, "_decode_segwit", counted("address", addresses._decode_segwit))
    monkeypatch.setattr(WithdrawalPolicy, "check", counted("policy", WithdrawalPolicy.check))
    once = {"amount": 1, "address": 1, "policy": 1}

    task = authorize(payer)
    assert task.step().state == "awaiting_input"
    assert calls == once
    calls.clear()
    assert task.answer("Send", exchange.latest_code(payer)).state == "success"
    assert calls == once


def test_the_key_is_read_once_for_the_payment_and_once_more_with_the_policy(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []

    def read(name: str) -> str:
        reads.append(name)
        return read_secret_variable(name)

    monkeypatch.setattr(quoine, "read_secret_variable", read)
    task = authorize(payer)
    task.step()
    # With the policy that the approvals are counted by.
    assert reads == ["user_key", "user_key"]
    reads.clear()
    assert task.answer("Send", exchange.latest_code(payer)).state == "success"
    # With the policy in the transaction that allows the sending.
    assert reads == ["user_key", "user_key"]


@pytest.mark.parametrize("amount", ["0.50", " 0.5 "])
def test_an_amount_that_is_only_written_in_another_way_is_the_same_order(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch, amount: str
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_PAYOUT", "0.5")
    task = OneTask("authorize_by_variable", user_id=payer, address=ADDRESS)
    task.step()
    monkeypatch.setenv("AIRFLOW_VAR_PAYOUT", amount)
    assert task.answer("Send", exchange.latest_code(payer)).state == "success"
    payment = task.payment()
    assert payment is not None
    assert payment.order.details["amount"] == "0.5"


def test_an_amount_that_changes_while_the_person_thinks_is_not_sent(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_PAYOUT", "0.5")
    task = OneTask("authorize_by_variable", user_id=payer, address=ADDRESS)
    task.step()
    monkeypatch.setenv("AIRFLOW_VAR_PAYOUT", "5")
    end = task.answer("Send", exchange.latest_code(payer))
    assert end.state == "failed"
    # The ledger keeps what a reference stands for, and stops first.
    assert "stands for a payment with amount 0.5; this one has amount 5" in str(end)
    assert exchange.state()["withdrawals"] == []


@pytest.mark.parametrize("given", [None, {}, {"error": "x"}, {"chosen_options": ["Send"], "params_input": {}}])
def test_an_event_that_is_no_answer_fails_in_words_and_sends_nothing(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch, given: Any
) -> None:
    task = authorize(payer)
    task.step()
    complete = QuoineAuthorizeWithdrawalOperator.execute_complete
    monkeypatch.setattr(
        QuoineAuthorizeWithdrawalOperator,
        "execute_complete",
        lambda self, context, event: complete(self, context, given),
    )
    end = task.answer("Send", exchange.latest_code(payer))
    assert end.state == "failed"
    assert "without a person's answer" in end.words
    assert "Nothing was sent" in end.words
    assert exchange.state()["withdrawals"] == []


@pytest.fixture
def two_connections(monkeypatch: pytest.MonkeyPatch, exchange: SandboxControl) -> None:
    """Another connection to the same exchange, and a Variable that names the first one."""
    monkeypatch.setenv("AIRFLOW_CONN_QUOINE_OTHER", os.environ["AIRFLOW_CONN_QUOINE_DEFAULT"])
    monkeypatch.setenv("AIRFLOW_VAR_CONNECTION", "quoine_default")


@pytest.mark.usefixtures("two_connections")
def test_an_answer_counts_for_the_connection_that_the_person_was_asked_about(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = OneTask("authorize_over_variable", user_id=payer, amount="0.5", address=ADDRESS)
    task.step()
    monkeypatch.setenv("AIRFLOW_VAR_CONNECTION", "quoine_other")
    end = task.answer("Send", exchange.latest_code(payer))
    assert (end.state, exchange.state()["withdrawals"]) == ("failed", [])
    assert f"A person was asked about payment: `{task.reference}`" in end.words
    assert "connection: `quoine_other`" in end.words


@pytest.mark.usefixtures("two_connections")
def test_an_old_question_is_not_shown_for_something_else_even_if_airflow_forgot_the_task(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = OneTask("authorize_over_variable", user_id=payer, amount="0.5", address=ADDRESS)
    task.step()
    monkeypatch.setenv("AIRFLOW_VAR_CONNECTION", "quoine_other")
    task.wipe()
    task.clear()
    end = task.step()
    # Where the old text would stay on the page, the task stops.
    asks = end.state == "awaiting_input" and "connection: `quoine_other`" in task.question()["body"]
    assert asks is QUESTION_IS_REPLACED
    assert asks or (end.state == "failed" and "Start a new run" in end.words)


def traces(code: str) -> set[str]:
    """The columns of Airflow's tables that have a code."""
    return {place for _, place in find({"code": code}, cells(Path(os.environ["AIRFLOW_HOME"]) / "airflow.db"))}


def test_a_code_that_no_try_could_take_is_wiped_by_the_next_one_and_by_a_command(
    exchange: SandboxControl, payer: str
) -> None:
    """The task is marked failed after the answer, and a person has taken the payment."""
    task = authorize(payer)
    task.step()
    code = exchange.latest_code(payer)
    task.type_in("Send", code)
    with task.instance() as instance:
        instance.state = "failed"
    assert "hitl_detail.params_input" in traces(code)
    task.clear()
    assert task.step().state == "awaiting_input"
    # Airflow keeps it with the task's earlier tries.
    assert traces(code) == {f"{TRIES_OF_TASKS}.next_kwargs", f"{TRIES_OF_QUESTIONS}.params_input"}
    task.cli("show")
    assert traces(code) == set()


def test_a_code_that_waits_for_its_task_is_left_there(exchange: SandboxControl, payer: str) -> None:
    task = authorize(payer)
    task.step()
    task.type_in("Send", exchange.latest_code(payer))
    task.cli("show")
    assert task.step().state == "success"


def test_what_a_person_was_asked_and_who_answered_is_in_the_ledger(exchange: SandboxControl, payer: str) -> None:
    task = authorize(payer)
    task.step()
    task.answer("Send", exchange.latest_code(payer))
    payment = task.payment()
    assert payment is not None
    asked, answered = [
        event for event in ledger_of_tests().history(payment.order) if event.event in ("asked", "answered")
    ]
    for told in (task.reference, "0.5 BTC", ADDRESS, f"user `{payer}`", "quoine_default", f"account `{payer}`"):
        assert told in asked.data["about"]
    assert answered.data == {"by": "Anonymous", "chose": "Send", "run_started_by": ""}


def test_durations_may_be_pendulums(airflow_database: None) -> None:
    # A real supervisor refuses a subclass of timedelta; the one in this process takes it.
    task = QuoineAuthorizeWithdrawalOperator(
        task_id="task",
        payment_reference="invoice-1",
        user_id="25",
        amount="0.5",
        address=ADDRESS,
        response_timeout=pendulum.duration(hours=9),
        completion_timeout=pendulum.duration(days=2),
    )
    assert (type(task.response_timeout), task.response_timeout) == (timedelta, timedelta(hours=9))
    assert (type(task.completion_timeout), task.completion_timeout) == (timedelta, timedelta(days=2))


def test_who_answered_is_in_the_log(exchange: SandboxControl, payer: str, airflow_log: io.StringIO) -> None:
    task = authorize(payer)
    task.step()
    assert task.answer("Send", exchange.latest_code(payer)).state == "success"
    who = task.question()["responded_by_user"]
    assert who is None
    assert "Anonymous chose Send" in airflow_log.getvalue()


def test_the_code_is_in_no_table_no_file_and_no_log(
    exchange: SandboxControl, payer: str, airflow_log: io.StringIO
) -> None:
    task = authorize(payer)
    task.step()
    code = exchange.latest_code(payer)
    # A wrong one first: it is a secret as well, for it may be right elsewhere.
    mistyped = str(int(code[::-1]) ^ 1).zfill(12)
    assert task.answer("Send", mistyped).state == "awaiting_input"
    assert task.answer("Send", code).state == "success"
    home = Path(os.environ["AIRFLOW_HOME"])
    typed = {"code": code, "mistyped code": mistyped}
    assert find(typed, cells(home / "airflow.db")) == set()
    assert find(typed, contents(home)) == set()
    assert find(typed, [("log", airflow_log.getvalue().encode())]) == set()


def test_a_code_that_was_typed_beside_cancel_is_wiped_as_well(exchange: SandboxControl, payer: str) -> None:
    task = authorize(payer)
    task.step()
    code = exchange.latest_code(payer)
    assert task.answer("Cancel", code).state == "skipped"
    assert find({"code": code}, cells(Path(os.environ["AIRFLOW_HOME"]) / "airflow.db")) == set()
    assert exchange.state()["withdrawals"] == []


def test_the_search_would_find_the_code_while_the_question_is_answered(exchange: SandboxControl, payer: str) -> None:
    task = authorize(payer)
    task.step()
    code = exchange.latest_code(payer)
    task.type_in("Send", code)
    home = Path(os.environ["AIRFLOW_HOME"])
    assert "hitl_detail.params_input" in {place for _, place in find({"code": code}, cells(home / "airflow.db"))}
    assert task.step().state == "success"


def no_connection(task: OneTask, code: str, monkeypatch: pytest.MonkeyPatch) -> End:
    """Answer while the exchange takes no connections."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError

    with monkeypatch.context() as patch:
        patch.setattr(urllib3.util.connection, "create_connection", refuse)
        return task.answer("Send", code)


def test_an_answer_does_not_count_at_another_exchange(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = authorize(payer)
    task.step()
    set_connection(monkeypatch, host=NOBODY)
    end = task.answer("Send", exchange.latest_code(payer))
    assert end.state == "failed"
    assert "the connection or the DAG has changed meanwhile. Nothing was sent" in end.words


def test_the_question_can_still_be_read_after_the_answer(exchange: SandboxControl, payer: str) -> None:
    task = authorize(payer)
    task.step()
    asked = task.question()
    assert task.answer("Send", exchange.latest_code(payer)).state == "success"
    shown = task.question()
    assert (shown["subject"], shown["body"]) == (asked["subject"], asked["body"])


def test_a_retry_after_a_connection_that_was_not_made_asks_again_and_mails_no_second_code(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = authorize(payer)
    task.step()
    code = exchange.latest_code(payer)
    assert no_connection(task, code, monkeypatch).state == "up_for_retry"
    assert task.step().state == "awaiting_input"
    assert mails(exchange) == 1
    assert task.answer("Send", code).state == "success"
    assert len(exchange.state()["withdrawals"]) == 1


def test_a_retry_after_the_request_limit_asks_again_and_mails_no_second_code(
    exchange: SandboxControl, payer: str
) -> None:
    exchange.fault("status", POST, status=429, body="API rate limit exceeded. Please retry after 1s")
    task = authorize(payer)
    task.step()
    code = exchange.latest_code(payer)
    assert task.answer("Send", code).state == "up_for_retry"
    assert task.step().state == "awaiting_input"
    assert mails(exchange) == 1
    assert task.answer("Send", code).state == "success"
    assert len(exchange.state()["withdrawals"]) == 1


def test_a_request_limit_at_the_code_is_retried_and_mails_one(exchange: SandboxControl, payer: str) -> None:
    exchange.fault("status", CODE, status=429, body="API rate limit exceeded. Please retry after 1s")
    task = authorize(payer)
    assert task.step().state == "up_for_retry"
    assert task.step().state == "awaiting_input"
    assert mails(exchange) == 1


def test_a_code_whose_answer_was_lost_is_asked_for_all_the_same(exchange: SandboxControl, payer: str) -> None:
    exchange.fault("drop_after", CODE)
    task = authorize(payer)
    assert task.step().state == "awaiting_input"
    assert "look whether a code has come" in task.question()["body"]
    assert task.answer("Send", exchange.latest_code(payer)).state == "success"
    assert mails(exchange) == 1


def test_a_key_that_is_refused_fails_at_once_and_asks_nobody(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_USER_KEY", UserCredentials(api_id=payer, api_secret="another").to_json())
    end = authorize(payer).step()
    assert end.state == "failed"
    assert "another" not in end.words


@pytest.mark.parametrize("words", ["Token was ignored: the user has an authenticator app", None])
def test_a_user_with_an_authenticator_app_is_told_where_the_code_is(
    exchange: SandboxControl, payer: str, words: str | None
) -> None:
    exchange.set_next_outcome("auth_code", "app")
    if words is None:
        exchange.fault("status", CODE, status=200, body='{"ignored": true}', content_type="application/json")
    task = authorize(payer)
    assert task.step().state == "awaiting_input"
    assert (words or "none was sent; read it in the app") in task.question()["body"]


def test_a_mistyped_code_may_be_typed_again_without_a_second_mail(exchange: SandboxControl, payer: str) -> None:
    task = authorize(payer)
    task.step()
    for mistyped in ("000000000000", "what code?"):
        assert task.answer("Send", mistyped).state == "awaiting_input"
    assert task.answer("Send", exchange.latest_code(payer)).state == "success"
    assert mails(exchange) == 1


def test_after_three_refused_codes_a_cleared_task_has_a_new_one_sent(exchange: SandboxControl, payer: str) -> None:
    task = authorize(payer)
    task.step()
    assert [task.answer("Send", "000000000000").state for _ in range(3)][-1] == "failed"
    task.clear()
    assert task.step().state == "awaiting_input"
    assert mails(exchange) == 2
    assert task.answer("Send", exchange.latest_code(payer)).state == "success"
    assert len(exchange.state()["withdrawals"]) == 1


def test_a_refusal_that_is_not_about_the_code_fails_and_the_next_try_has_a_new_code(
    exchange: SandboxControl, payer: str
) -> None:
    task = authorize(payer, amount="11")
    task.step()
    end = task.answer("Send", exchange.latest_code(payer))
    assert end.state == "failed"
    assert "not_enough_fund" in end.words
    assert task.stands() == Step.REFUSED
    task.clear()
    task.step()
    assert mails(exchange) == 2


@pytest.mark.parametrize(("fault", "carried_out"), [("drop_before", 0), ("drop_after", 1)])
def test_after_a_lost_answer_nobody_is_asked_again(
    exchange: SandboxControl, payer: str, fault: str, carried_out: int
) -> None:
    exchange.fault(fault, POST)
    task = authorize(payer)
    task.step()
    assert task.answer("Send", exchange.latest_code(payer)).state == "failed"
    task.clear()
    end = task.step()
    assert end.state == "failed"
    assert "outcome is unknown" in end.words
    assert (len(exchange.state()["withdrawals"]), mails(exchange)) == (carried_out, 1)


def test_a_withdrawal_that_a_person_did_not_find_is_sent_with_a_new_code(exchange: SandboxControl, payer: str) -> None:
    exchange.fault("drop_before", POST)
    task = authorize(payer)
    task.step()
    task.answer("Send", exchange.latest_code(payer))
    task.end_in_flight_time()
    task.cli("absent")
    task.clear()
    assert task.step().state == "awaiting_input"
    # Nobody knows whether the lost request used the first one up.
    assert mails(exchange) == 2
    assert task.answer("Send", exchange.latest_code(payer)).state == "success"
    assert len(exchange.state()["withdrawals"]) == 1


def test_a_dry_run_asks_the_person_and_sends_nothing(exchange: SandboxControl, payer: str) -> None:
    task = authorize(payer, "_dry")
    assert task.step().state == "awaiting_input"
    assert task.answer("Send", exchange.latest_code(payer)).state == "success"
    assert task.xcom()["state"] == "dry_run"
    assert exchange.state()["withdrawals"] == []
    task.clear()
    task.step()
    assert mails(exchange) == (2 if CLEAR_DISCARDS_TASK_STATE else 1)


def test_it_waits_for_the_end_in_the_same_task(exchange: SandboxControl, payer: str) -> None:
    task = authorize(payer, "_waiting")
    task.step()
    assert task.answer("Send", exchange.latest_code(payer)).state == "deferred"
    assert any(task.links().values())
    assert task.trigger().state == "success"
    assert task.xcom()["state"] == "processed"
