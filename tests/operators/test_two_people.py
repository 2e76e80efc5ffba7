"""Fewer people than the connection wants, or not about what is sent: nothing is sent."""

from __future__ import annotations

import os
import pwd
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_quoine.exchange.rest.client import QuoineClient
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.payments import withdrawals
from airflow_provider_quoine.payments.approvals import Approvals, Person
from airflow_provider_quoine.payments.configuration import open_ledger
from airflow_provider_quoine.payments.policy import WithdrawalPolicy
from airflow_provider_quoine.payments.schema import Kind, Step
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.operators.test_approval import approved_by, task
from tests.support.one_task import ADDRESS, OneTask, api, ledger_of_tests, payments_cli, set_connection

pytestmark = pytest.mark.usefixtures("airflow_database")

POST = "POST /btc_withdrawals/"


@pytest.fixture
def two_needed(exchange: SandboxControl, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that wants two approvals."""
    # Its auth manager makes the tokens of several users.
    assert api()
    set_connection(monkeypatch, withdrawal_approvals=2)


def paid(exchange: SandboxControl) -> list[str]:
    return [str(each["amount"]) for each in exchange.state()["withdrawals"]]


@pytest.mark.usefixtures("two_needed")
def test_what_is_sent_is_what_the_payment_is_by_then(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the task waits for its slot, the payment gets another amount, which people approve."""
    approved_by("waits", payer, "bob", "carol")
    paying = task("authorize", payer, "waits")
    paying.step()
    take_slot = QuoineClient.take_slot

    def meanwhile(self: QuoineClient, *given: Any, **more: Any) -> Any:
        monkeypatch.setattr(QuoineClient, "take_slot", take_slot)
        ledger = open_ledger()
        (found,) = ledger.named("waits", Kind.WITHDRAWAL)
        other, hook = replace(found.order, amount=Decimal("0.1")), QuoineHook(credentials_variable="user_key")
        ledger.hold(found.order, who="ann", why="the amount is wrong")
        ledger.release(found.order, who="ann", why="the amount is wrong")
        ledger.prepare(other, actor="a second run")
        approvals = Approvals(
            ledger=ledger,
            order=other,
            connection="quoine_default",
            policy=lambda: WithdrawalPolicy.of(hook.settings, account=hook.account),
            started_by="alice",
            task="a second run",
        )
        for name in ("bob", "carol"):
            assert approvals.approve(Person(user_id=name, name=name)) == ""
        return take_slot(self, *given, **more)

    code = exchange.latest_code(payer)
    monkeypatch.setattr(QuoineClient, "take_slot", meanwhile)
    end = paying.answer("Send", code)
    assert (end.state, paid(exchange)) == ("failed", [])


@pytest.mark.usefixtures("two_needed")
def test_who_starts_a_run_again_by_a_backfill_has_started_it(payer: str) -> None:
    """Airflow gives the run of the schedule the backfill's parameters, and does not say whose backfill it is."""
    from airflow.models import DagRun
    from airflow.models.backfill import Backfill, _handle_clear_run
    from airflow.sdk import timezone
    from airflow.utils.session import create_session

    run = task("approve", payer, "of-the-schedule", started_by="", amount="0.1")
    at = timezone.utcnow()
    with create_session() as session:
        found = session.query(DagRun).filter_by(dag_id=run.dag_id, run_id=run.run_id).one()
        found.logical_date = at
        whose = {"dag_id": run.dag_id, "from_date": at, "to_date": at, "triggering_user_name": "alice"}
        backfill = Backfill(**whose)
        session.add(backfill)
        session.flush()
        _handle_clear_run(
            session=session,
            dag=run.dag,  # type: ignore[arg-type]  # the serialized DAG, as Airflow has it
            dr=found,
            info=SimpleNamespace(logical_date=at, partition_key=None),  # type: ignore[arg-type]  # all that it reads
            backfill_id=backfill.id,
            sort_ordinal=1,
            dag_run_conf={"payment_reference": "alices", "amount": "0.5", "address": ADDRESS, "user_id": payer},
        )
    run.reference = "alices"
    end = run.step()
    if end.state == "awaiting_input":
        run.answer("Approve", person="alice")
    assert "approved" not in run.events()


@pytest.mark.usefixtures("two_needed")
def test_nobody_approves_in_a_run_of_somebody_who_had_not_logged_in(payer: str) -> None:
    """Airflow's FAB auth manager can let people in who have not logged in; all of them are called Anonymous."""
    run = task("approve", payer, "nobodys", started_by="Anonymous")
    end = run.step()
    assert end.state == "failed"
    assert "does not say who started this run" in end.words


@pytest.mark.usefixtures("two_needed")
def test_a_rejection_while_payments_are_stopped_is_not_lost(exchange: SandboxControl, payer: str) -> None:
    asking = task("approve", payer, "stopped")
    asking.step()
    approved_by("stopped", payer, "bob", "dave")
    payments_cli("stop", "--why", "a key was stolen")
    asking.answer("Reject", person="carol")
    payments_cli("resume", "--why", "the key is replaced")
    asking.clear()
    asking.step()
    assert task("authorize", payer, "stopped").step().state == "failed"
    assert exchange.auth_codes() == []


@pytest.mark.usefixtures("two_needed")
def test_a_rejection_while_the_payment_is_held_is_not_lost(exchange: SandboxControl, payer: str) -> None:
    asking = task("approve", payer, "rejected-held")
    asking.step()
    approved_by("rejected-held", payer, "bob", "dave")
    asking.cli("hold")
    asking.answer("Reject", person="carol")
    asking.cli("release")
    assert task("authorize", payer, "rejected-held").step().state == "failed"
    assert exchange.auth_codes() == []


@pytest.mark.usefixtures("two_needed")
@pytest.mark.parametrize(
    "name", ["mallory\n- amount: **0.1 BTC**\n", "mallory [The invoice](https://evil.example)", "# Already approved"]
)
def test_the_name_of_the_starter_changes_nothing_on_the_page(payer: str, name: str) -> None:
    asking = task("approve", payer, f"named-{len(name)}", started_by=name)
    asking.step()
    body = asking.question()["body"]
    assert body.count("\n- amount") == 1
    assert f"{name.strip()} started" not in body


@pytest.mark.usefixtures("two_needed")
def test_who_gives_the_command_with_sudo_and_without_is_one_person(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    approved_by("sudo", payer, "bob", "carol")
    paying = task("authorize", payer, "sudo")
    paying.step()
    exchange.fault("drop_before", POST)
    assert paying.answer("Send", exchange.latest_code(payer)).state == "failed"
    paying.end_in_flight_time()
    monkeypatch.delenv("SUDO_USER", raising=False)
    paying.cli("absent")
    monkeypatch.setenv("SUDO_USER", pwd.getpwuid(os.getuid()).pw_name)
    paying.cli("absent")
    assert paying.stands() == Step.UNKNOWN


def test_a_wrong_exists_is_not_taken_back_under_a_task_that_goes_on(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The person takes it back while the task looks the withdrawal up."""
    paying = OneTask("authorize", user_id=payer, amount="0.5", address=ADDRESS)
    paying.step()
    exchange.fault("drop_after", POST)
    assert paying.answer("Send", exchange.latest_code(payer)).state == "failed"
    paying.end_in_flight_time()
    paying.cli("exists", "--id", str(exchange.state()["withdrawals"][0]["id"]))
    found, look_up = paying.payment(), withdrawals.look_up
    assert found is not None

    def meanwhile(hook: QuoineHook, withdrawal_id: str) -> Any:
        monkeypatch.setattr(withdrawals, "look_up", look_up)
        seen = look_up(hook, withdrawal_id)
        assert open_ledger().absent(found.order, who="ann", why="the wrong line")
        return seen

    monkeypatch.setattr(withdrawals, "look_up", meanwhile)
    paying.clear()
    end = paying.step()
    assert (end.state, paying.stands()) != ("success", Step.PREPARED)


def test_a_question_counts_for_the_exchange_that_it_was_asked_for(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection leads elsewhere when the answer comes."""
    paying = OneTask("authorize", user_id=payer, amount="0.5", address=ADDRESS)
    paying.step()
    url = QuoineHook().settings.base_url
    set_connection(monkeypatch, host=url.replace("127.0.0.1", "localhost"))
    assert paying.answer("Send", exchange.latest_code(payer)).state == "failed"
    assert paid(exchange) == []


@pytest.mark.usefixtures("two_needed")
def test_the_same_person_in_two_open_questions_counts_once(exchange: SandboxControl, payer: str) -> None:
    both = [task("approve", payer, "both-open") for _ in range(2)]
    for asking in both:
        asking.step()
    for asking in both:
        asking.type_in("Approve", "", person="bob")
    assert [asking.step().state for asking in both] == ["success", "awaiting_input"]
    assert "has 1 (by bob)" in task("authorize", payer, "both-open").step().words
    assert not [fault for fault in ledger_of_tests().faults() if "both-open" in fault]


@pytest.mark.usefixtures("two_needed")
def test_a_rejection_after_it_was_sent_sends_nothing_more(exchange: SandboxControl, payer: str) -> None:
    asking = task("approve", payer, "late-reject")
    asking.step()
    approved_by("late-reject", payer, "bob", "dave")
    paying = task("authorize", payer, "late-reject")
    paying.step()
    assert paying.answer("Send", exchange.latest_code(payer)).state == "success"
    asking.answer("Reject", person="carol")
    assert len(paid(exchange)) == 1
