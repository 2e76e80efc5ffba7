"""The operator that has a person approve a withdrawal, on a real Airflow database, with several users."""

from __future__ import annotations

import os
from typing import Any

import pytest

from airflow_provider_quoine.operators.approval import QuoineApproveWithdrawalOperator
from airflow_provider_quoine.payments.schema import Step
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.one_task import ADDRESS, OneTask, ledger_of_tests, set_connection

pytestmark = pytest.mark.usefixtures("airflow_database")


@pytest.fixture
def two_needed(exchange: SandboxControl, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that wants two approvals."""
    set_connection(monkeypatch, withdrawal_approvals=2)


def task(dag_id: str, payer: str, reference: str, *, started_by: str = "alice", amount: str = "0.5") -> OneTask:
    order = {"payment_reference": reference, "amount": amount, "address": ADDRESS}
    return OneTask(dag_id, started_by=started_by, **order | ({} if dag_id == "withdraw" else {"user_id": payer}))


def approved_by(reference: str, payer: str, *people: str) -> None:
    """Have people approve a payment."""
    for person in people:
        asking = task("approve", payer, reference)
        assert asking.step().state == "awaiting_input"
        assert asking.answer("Approve", person=person).state == "success"


def test_without_approvals_in_the_connection_nobody_is_asked(payer: str) -> None:
    assert task("approve", payer, "free").step().state == "success"


@pytest.mark.usefixtures("two_needed")
def test_the_question_names_exactly_what_is_sent_and_who_cannot_approve(payer: str) -> None:
    asking = task("approve", payer, "asked")
    assert asking.step().state == "awaiting_input"
    body = asking.question()["body"]
    for told in (
        "asked",
        "0.5 BTC",
        ADDRESS,
        f"user `{payer}`",
        "quoine_default",
        "2 approvals",
        "`alice` started the run",
    ):
        assert told in body
    assert asking.question()["defaults"] is None


@pytest.mark.usefixtures("two_needed")
def test_no_code_is_requested_before_the_approvals_are_there(exchange: SandboxControl, payer: str) -> None:
    for people in ((), ("bob",)):
        approved_by("early", payer, *people)
        end = task("authorize", payer, "early").step()
        assert end.state == "failed"
        assert "needs 2 approvals" in end.words
    assert exchange.auth_codes() == []


@pytest.mark.usefixtures("two_needed")
def test_two_people_approve_and_it_is_paid_and_the_ledger_says_who_and_under_which_policy(
    exchange: SandboxControl, payer: str
) -> None:
    approved_by("both", payer, "bob", "carol")
    assert task("approve", payer, "both").step().state == "success"
    paying = task("authorize", payer, "both")
    assert paying.step().state == "awaiting_input"
    assert paying.answer("Send", exchange.latest_code(payer)).state == "success"
    assert len(exchange.state()["withdrawals"]) == 1
    payment = paying.payment()
    assert payment is not None
    given = [one for one in ledger_of_tests().history(payment.order) if one.event == "approved"]
    assert [one.actor for one in given] == ["bob", "carol"]
    assert {one.data["policy"] for one in given} == {payment.policy}


@pytest.mark.usefixtures("two_needed")
@pytest.mark.parametrize("person", ["alice", "Alice", "bob"])
def test_who_started_the_run_or_has_approved_is_asked_again_and_does_not_count(payer: str, person: str) -> None:
    reference = f"again-{person}"
    approved_by(reference, payer, "bob")
    asking = task("approve", payer, reference)
    asking.step()
    assert asking.answer("Approve", person=person).state == "awaiting_input"
    assert asking.answer("Approve", person="carol").state == "success"
    assert task("authorize", payer, reference).step().state == "awaiting_input"


@pytest.mark.usefixtures("two_needed")
def test_who_approved_cannot_be_the_one_who_starts_the_run_that_pays(payer: str) -> None:
    approved_by("swapped", payer, "bob", "carol")
    end = task("authorize", payer, "swapped", started_by="bob").step()
    assert end.state == "failed"
    assert "has 1 (by carol)" in end.words


@pytest.mark.usefixtures("two_needed")
def test_who_has_asked_for_the_payment_in_another_run_cannot_approve_it(payer: str) -> None:
    """Bob's run was refused, because approvals were missing. Then Alice asks for the same payment."""
    assert task("authorize", payer, "asked-before", started_by="bob").step().state == "failed"
    asking = task("approve", payer, "asked-before")
    asking.step()
    for told in ("`alice` started the run and", "`bob` started another run for this payment and"):
        assert f"{told} cannot approve." in asking.question()["body"]
    assert asking.answer("Approve", person="BOB").state == "awaiting_input"
    assert "approved" not in asking.events()
    assert asking.answer("Approve", person="carol").state == "success"


@pytest.mark.usefixtures("two_needed")
@pytest.mark.parametrize("refused", ["held", "another amount"])
def test_who_has_asked_for_the_payment_in_vain_cannot_approve_it_either(payer: str, refused: str) -> None:
    reference = f"in-vain-{refused}"
    asking = task("approve", payer, reference)
    asking.step()
    if refused == "held":
        asking.cli("hold")
    amount = "0.5" if refused == "held" else "0.4"
    assert task("approve", payer, reference, started_by="bob", amount=amount).step().state == "failed"
    if refused == "held":
        asking.cli("release")
    assert asking.answer("Approve", person="bob").state == "awaiting_input"


@pytest.mark.usefixtures("two_needed")
def test_who_starts_another_run_after_having_approved_is_named_in_the_run_that_pays(payer: str) -> None:
    approved_by("asked-later", payer, "bob", "carol")
    task("approve", payer, "asked-later", started_by="bob").step()
    end = task("authorize", payer, "asked-later").step()
    assert end.state == "failed"
    assert "has 1 (by carol)" in end.words
    assert "The approval of bob does not count: bob started another run for this payment." in end.words
    approved_by("asked-later", payer, "dave")
    assert task("authorize", payer, "asked-later").step().state == "awaiting_input"


@pytest.mark.usefixtures("two_needed")
def test_a_policy_that_changes_needs_new_approvals_also_while_the_code_is_awaited(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    approved_by("changed", payer, "bob", "carol")
    paying = task("authorize", payer, "changed")
    assert paying.step().state == "awaiting_input"
    set_connection(monkeypatch, withdrawal_max="0.7")
    end = paying.answer("Send", exchange.latest_code(payer))
    assert (end.state, exchange.state()["withdrawals"]) == ("failed", [])
    assert "as they are now" in end.words
    approved_by("changed", payer, "bob", "carol")
    again = task("authorize", payer, "changed")
    assert again.step().state == "awaiting_input"
    assert again.answer("Send", exchange.latest_code(payer)).state == "success"


@pytest.mark.usefixtures("two_needed")
def test_a_rejection_skips_what_comes_after_and_undoes_the_approvals_before_it(payer: str) -> None:
    approved_by("rejected", payer, "bob")
    asking = task("approve", payer, "rejected")
    asking.step()
    assert asking.answer("Reject", person="carol").state == "skipped"
    approved_by("rejected", payer, "dave")
    assert "has 1 (by dave)" in task("authorize", payer, "rejected").step().words


@pytest.mark.usefixtures("two_needed")
def test_an_answer_counts_for_the_connection_that_the_person_was_asked_about(
    payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = task("approve", payer, "elsewhere")
    asking.step()
    monkeypatch.setenv("AIRFLOW_CONN_QUOINE_OTHER", os.environ["AIRFLOW_CONN_QUOINE_DEFAULT"])
    monkeypatch.setenv("AIRFLOW_VAR_CONNECTION", "quoine_other")
    end = asking.answer("Approve", person="bob")
    assert end.state == "failed"
    assert "A person was asked about" in end.words
    assert "quoine_other" in end.words
    assert "approved" not in asking.events()


@pytest.mark.usefixtures("two_needed")
def test_the_question_goes_to_the_users_who_are_assigned(payer: str) -> None:
    asking = task("approve_by_carol", payer, "assigned")
    asking.step()
    assert asking.question()["assigned_users"] == [{"id": "carol", "name": "carol"}]
    assert asking.answer("Approve", person="carol").state == "success"


@pytest.mark.usefixtures("two_needed")
def test_the_operator_that_takes_the_code_from_a_variable_obeys_too(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_USER_CODE", "123456")
    end = task("withdraw", payer, "by-variable").step()
    assert (end.state, exchange.state()["withdrawals"]) == ("failed", [])
    assert "needs 2 approvals" in end.words


@pytest.mark.usefixtures("two_needed")
def test_two_people_have_to_say_that_an_approved_payment_does_not_exist(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    approved_by("lost", payer, "bob", "carol")
    paying = task("authorize", payer, "lost")
    paying.step()
    exchange.fault("drop_before", "POST /btc_withdrawals/")
    assert paying.answer("Send", exchange.latest_code(payer)).state == "failed"
    paying.end_in_flight_time()
    for _ in range(2):
        paying.cli("absent")
        assert "a second person" in capsys.readouterr().out
        assert paying.stands() == Step.UNKNOWN
    monkeypatch.setenv("SUDO_USER", "somebody-else")
    paying.cli("absent")
    assert paying.stands() == Step.PREPARED


@pytest.mark.usefixtures("two_needed")
@pytest.mark.parametrize("given", [None, {}])
def test_an_event_that_is_no_answer_approves_nothing(
    payer: str, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any] | None
) -> None:
    complete = QuoineApproveWithdrawalOperator.execute_complete
    monkeypatch.setattr(
        QuoineApproveWithdrawalOperator,
        "execute_complete",
        lambda self, context, event: complete(self, context, given),  # type: ignore[arg-type]  # as Airflow would
    )
    asking = task("approve", payer, f"no-answer-{given}")
    asking.step()
    end = asking.answer("Approve", person="bob")
    assert end.state == "failed"
    assert "without a person's answer" in end.words
    assert "approved" not in asking.events()
