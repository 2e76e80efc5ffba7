"""``airflow quoine payments``: the decisions that a person may record, and those that are refused."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shlex
import uuid
from datetime import timedelta

import pytest
from sqlalchemy.exc import OperationalError

from airflow_provider_quoine.exchange.models import WithdrawalOrder
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.payments.refusals import paid_twice
from airflow_provider_quoine.payments.schema import Step
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.one_task import OneTask, ledger_of_tests, payments_cli, undo_edits

pytestmark = pytest.mark.usefixtures("airflow_database")

POST = "POST /btc_withdrawals/"
ADDRESS = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
KEY = ("--conn-id", "quoine_default", "--credentials-variable", "user_key")


@pytest.fixture
def task(exchange: SandboxControl, payer: str) -> OneTask:
    """A withdrawal that waits for its code."""
    task = OneTask("authorize", user_id=payer, amount="0.5", address=ADDRESS)
    task.step()
    return task


@pytest.fixture
def lost(exchange: SandboxControl, payer: str, task: OneTask) -> OneTask:
    """A withdrawal that the exchange has, and whose answer was lost."""
    exchange.fault("drop_after", POST)
    assert task.answer("Send", exchange.latest_code(payer)).state == "failed"
    return task


def found_id(exchange: SandboxControl) -> str:
    (withdrawal,) = exchange.state()["withdrawals"]
    return str(withdrawal["id"])


def refused(task: OneTask, *command: str) -> str:
    """Return the refusal of a command; the payment must not have changed."""
    before = task.payment()
    with pytest.raises(SystemExit) as refusal:
        task.cli(*command)
    assert task.payment() == before
    return str(refusal.value)


def test_a_payment_is_shown_with_all_that_happened(lost: OneTask, capsys: pytest.CaptureFixture[str]) -> None:
    lost.cli("show")
    shown = capsys.readouterr().out
    for told in (lost.reference, "unknown", "0.5", ADDRESS, lost.run_id, "asked", "answered", "sending"):
        assert told in shown


def test_what_is_not_final_is_listed(lost: OneTask, capsys: pytest.CaptureFixture[str]) -> None:
    payments_cli("list")
    assert lost.reference in capsys.readouterr().out
    lost.end_in_flight_time()
    lost.cli("hold")
    lost.cli("exists", "--id", "77")
    capsys.readouterr()
    payments_cli("list")
    assert lost.reference not in capsys.readouterr().out
    payments_cli("list", "--all")
    assert lost.reference in capsys.readouterr().out


def test_a_payment_that_may_be_paid_twice_is_listed_and_shown_in_the_words_of_the_page(
    task: OneTask, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody records an id while the request is on its way, and then the exchange answers with another one."""
    ledger, payment = ledger_of_tests(), task.payment()
    assert payment is not None
    ledger.start_sending(payment.order, attempt="a", task="task", in_flight=timedelta(0), allow=lambda _: "policy")
    other, its_own = (str(uuid.uuid4().int >> 70) for _ in range(2))
    task.cli("exists", "--id", other)
    assert not ledger.finish(payment.order, attempt="a", step=Step.SENT, exchange_id=its_own)

    def told(*command: str) -> str:
        capsys.readouterr()
        payments_cli(*command)
        return next((line for line in capsys.readouterr().out.splitlines() if "Paid twice?" in line), "")

    for more in ((), ("--all",)):
        assert told("list", *more).endswith(f"({other})  Paid twice?")
    assert paid_twice(its_own) in told("show", task.reference)
    task.cli("exists", "--id", its_own)
    assert [told("list"), told("list", "--all"), told("show", task.reference)] == ["", "", ""]


def test_what_a_person_found_is_written_with_who_and_why(lost: OneTask, exchange: SandboxControl) -> None:
    lost.cli("exists", "--id", found_id(exchange))
    payment = lost.payment()
    assert payment is not None
    assert (payment.step, payment.exchange_id) == (Step.SENT, found_id(exchange))
    last = ledger_of_tests().history(payment.order)[-1]
    assert (last.event, last.actor, last.data["why"]) == ("exists", getpass.getuser(), "a test")
    lost.clear()
    assert lost.step().state == "success"
    assert lost.xcom()["id"] == found_id(exchange)
    assert len(exchange.state()["withdrawals"]) == 1


def test_the_id_is_compared_with_the_exchange_at_once(
    lost: OneTask, exchange: SandboxControl, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Without a connection the id is recorded as it is" in refused(lost, "exists", "--id", "4999", *KEY)
    lost.cli("exists", "--id", found_id(exchange), *KEY)
    assert "Amount and address are the same at the exchange" in capsys.readouterr().out
    payment = lost.payment()
    assert payment is not None
    assert (payment.order.conn_id, payment.order.credentials_variable) == ("quoine_default", "user_key")


def test_a_comparison_that_failed_is_told(
    lost: OneTask, exchange: SandboxControl, capsys: pytest.CaptureFixture[str]
) -> None:
    exchange.fault("status", "GET /btc_withdrawals/:id", status=503, body="down", times=4)
    lost.cli("exists", "--id", found_id(exchange), *KEY)
    assert "It could not be compared with the exchange" in capsys.readouterr().out


def test_a_key_that_cannot_be_read_compares_nothing_and_records_nothing(
    lost: OneTask, exchange: SandboxControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any id would be recorded, while the person believes that it was compared."""
    monkeypatch.setenv("AIRFLOW_VAR_OTHER", '{"no": "key"}')
    for variable in ("missing", "other"):
        key = ("--conn-id", "quoine_default", "--credentials-variable", variable)
        assert "Nothing was changed" in refused(lost, "exists", "--id", found_id(exchange), *key)


def test_a_mistyped_id_stops_the_task_and_can_be_corrected(lost: OneTask, exchange: SandboxControl) -> None:
    lost.cli("exists", "--id", "4999")
    lost.clear()
    assert lost.step().state == "failed"
    lost.cli("exists", "--id", found_id(exchange))
    lost.clear()
    assert lost.step().state == "success"
    assert len(exchange.state()["withdrawals"]) == 1
    assert "has gone on with that" in refused(lost, "exists", "--id", "4999")


def test_an_id_that_the_exchange_gave_is_never_overwritten(exchange: SandboxControl, payer: str, task: OneTask) -> None:
    task.answer("Send", exchange.latest_code(payer))
    assert "The exchange itself answered with id" in refused(task, "exists", "--id", "4999")
    assert "The exchange itself answered with id" in refused(task, "exists", "--id", found_id(exchange), *KEY)
    assert "there is no doubt to settle" in refused(task, "absent")


@pytest.mark.parametrize("identifier", ["5001/../1", "0", "x1"])
def test_what_is_no_id_is_refused(lost: OneTask, identifier: str) -> None:
    assert "is no id of the exchange" in refused(lost, "exists", "--id", identifier)


@pytest.mark.parametrize("command", ["absent", "hold"])
def test_absence_is_not_believed_while_the_request_may_be_on_its_way(lost: OneTask, command: str) -> None:
    assert "may still be on its way. Look at the exchange again in" in refused(lost, command)


def test_a_payment_that_is_held_is_paid_by_no_task(exchange: SandboxControl, payer: str, task: OneTask) -> None:
    task.cli("hold")
    end = task.answer("Send", exchange.latest_code(payer))
    assert (end.state, exchange.state()["withdrawals"]) == ("failed", [])
    assert "A person holds the payment" in end.words
    task.cli("release")
    task.clear()
    assert task.step().state == "awaiting_input"
    assert task.answer("Send", exchange.latest_code(payer)).state == "success"


def test_a_payment_that_no_task_has_begun_can_be_held(exchange: SandboxControl, payer: str) -> None:
    task = OneTask("authorize", user_id=payer, amount="0.5", address=ADDRESS)
    assert "No task has begun" in refused(task, "hold")
    task.cli("hold", *KEY, "--user-id", payer, "--amount", "0.50", "--address", ADDRESS.upper())
    end = task.step()
    assert end.state == "failed"
    assert "A person holds the payment" in end.words


def test_from_a_stop_on_nothing_is_sent(exchange: SandboxControl, payer: str, task: OneTask) -> None:
    payments_cli("stop", "--why", "a key was stolen")
    try:
        end = task.answer("Send", exchange.latest_code(payer))
    finally:
        payments_cli("resume", "--why", "it was found")
    assert (end.state, exchange.state()["withdrawals"]) == ("failed", [])
    assert "Payments are stopped: a key was stolen" in end.words


@pytest.mark.parametrize("command", [("show",), ("exists", "--id", "5001"), ("absent",), ("release",)])
def test_a_payment_that_there_is_not_is_named_as_such(airflow_database: None, command: tuple[str, ...]) -> None:
    words = [command[0], f"test-{uuid.uuid4().hex}", *command[1:], *(() if command[0] == "show" else ("--why", "x"))]
    with pytest.raises(SystemExit, match="There is no payment 'test-"):
        payments_cli(*words)


def test_the_chain_is_verified(lost: OneTask, capsys: pytest.CaptureFixture[str]) -> None:
    lost.end_in_flight_time()
    with pytest.raises(SystemExit, match="faults: the ledger was changed"):
        payments_cli("verify")
    # Other tests of this process have done the same.
    undo_edits()
    capsys.readouterr()
    payments_cli("verify")
    assert "The chain of events is whole" in capsys.readouterr().out


def test_a_payment_is_held_at_the_exchange_of_the_connection_that_is_given(
    lost: OneTask, exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another exchange's payment has the same reference, and is the only one that was begun."""
    lost.end_in_flight_time()
    other = json.loads(os.environ["AIRFLOW_CONN_QUOINE_DEFAULT"]) | {"host": "https://other.example"}
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(other))
    lost.cli("hold", "--conn-id", "other", "--amount", "0.5", "--address", ADDRESS)
    held = {payment.order.exchange: payment.step for payment in ledger_of_tests().named(lost.reference, lost.kind)}
    assert held.get("https://other.example") == Step.HELD
    assert Step.HELD not in {step for at, step in held.items() if at != "https://other.example"}


def test_no_payment_is_held_at_another_exchange_than_was_named(exchange: SandboxControl, payer: str) -> None:
    reference = f"test-{uuid.uuid4().hex}"
    order = ("--amount", "0.5", "--address", ADDRESS, "--why", "a test")
    with pytest.raises(SystemExit):
        payments_cli("hold", reference, "--exchange", "https://other.example", *KEY, *order)


@pytest.mark.parametrize("command", ["hold", "exists"])
def test_a_connection_that_there_is_not_is_named(exchange: SandboxControl, lost: OneTask, command: str) -> None:
    new = f"test-{uuid.uuid4().hex}"
    more = {"hold": (new, "--amount", "0.5", "--address", ADDRESS), "exists": (lost.reference, "--id", "20")}
    with pytest.raises(SystemExit, match="nowhere"):
        payments_cli(command, *more[command], "--conn-id", "nowhere", "--why", "a test")


def test_who_decides_is_not_what_the_environment_says(
    exchange: SandboxControl, task: OneTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "somebody-else")
    task.cli("hold")
    payment = task.payment()
    assert payment is not None
    assert ledger_of_tests().history(payment.order)[-1].actor != "somebody-else"


@pytest.mark.parametrize("why", ["", "  "])
def test_a_decision_without_a_reason_is_refused(task: OneTask, why: str) -> None:
    with pytest.raises(SystemExit):
        payments_cli("hold", task.reference, "--why", why)


def test_a_stop_is_a_stop_also_with_a_why_of_another_encoding(exchange: SandboxControl) -> None:
    # What Python makes of the bytes of "clé" that are no UTF-8.
    payments_cli("stop", "--why", "cl\udce9")
    payments_cli("resume", "--why", "a test")


def test_while_payments_are_stopped_no_code_is_sent(exchange: SandboxControl, payer: str) -> None:
    payments_cli("stop", "--why", "a key was stolen")
    try:
        OneTask("authorize", user_id=payer, amount="0.5", address=ADDRESS).step()
    finally:
        payments_cli("resume", "--why", "it was found")
    assert exchange.auth_codes() == []


def test_after_a_key_was_replaced_the_stopped_task_goes_on(
    exchange: SandboxControl, payer: str, task: OneTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the runbook: stop because a key was stolen, resume because it is replaced, clear the task."""
    payments_cli("stop", "--why", "a key was stolen")
    task.answer("Send", exchange.latest_code(payer))
    key = json.loads(os.environ["AIRFLOW_VAR_USER_KEY"])
    monkeypatch.setenv("AIRFLOW_VAR_USER_KEY", json.dumps(key | {"api_id": "another-id"}))
    payments_cli("resume", "--why", "the key is replaced")
    task.clear()
    assert f"payments release {task.reference}" in task.step().words
    task.cli("hold")
    task.cli("release")
    task.clear()
    # The exchange of the test does not know the new key.
    assert "stands for a payment with account" not in task.step().words


def test_a_command_in_a_message_can_be_pasted(exchange: SandboxControl, payer: str) -> None:
    task = OneTask(
        "authorize", user_id=payer, amount="0.5", address=ADDRESS, payment_reference=f"a; id {uuid.uuid4().hex}"
    )
    task.step()
    exchange.fault("drop_after", POST)
    task.answer("Send", exchange.latest_code(payer))
    with QuoineHook(credentials_variable="user_key").get_conn() as client:
        client.request_auth_code(user_id=payer)
        other = client.create_withdrawal(
            order=WithdrawalOrder.parse(amount="0.4", address=ADDRESS), auth_code=exchange.latest_code(payer)
        )
    task.cli("exists", "--id", other.id)
    task.clear()
    assert f"payments exists {shlex.quote(task.reference)} --id" in task.step().words


def test_a_stop_does_not_depend_on_the_wiping_of_codes(
    exchange: SandboxControl, task: OneTask, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's database is locked, or answers reads only."""

    def fail() -> int:
        raise OperationalError("UPDATE hitl_detail_history", {}, Exception("database is locked"))

    with monkeypatch.context() as patched:
        patched.setattr("airflow_provider_quoine.desk.opening.wipe_typed_codes", fail)
        with contextlib.suppress(SystemExit):
            payments_cli("stop", "--why", "a key was stolen")
    try:
        task.answer("Send", exchange.latest_code(payer))
    finally:
        payments_cli("resume", "--why", "a test")
    assert exchange.state()["withdrawals"] == []
