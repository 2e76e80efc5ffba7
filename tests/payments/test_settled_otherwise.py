"""What people and attempts do to one payment in an order that nobody planned."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from airflow_provider_quoine.payments.approvals import Approvals, Person
from airflow_provider_quoine.payments.database import open_file
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.records import Order
from airflow_provider_quoine.payments.refusals import LedgerUnusableError, PaymentRefusedError, check_reference
from airflow_provider_quoine.payments.schema import Step
from tests.payments.memory import Memory
from tests.payments.test_ledger import ORDER, send, step

OTHER = replace(ORDER, amount=Decimal("0.1"))
POLICY: Any = SimpleNamespace(approvals=2, fingerprint="policy")


def approvals(ledger: Ledger, order: Order, *, started_by: str = "alice") -> Approvals:
    return Approvals(
        ledger=ledger,
        order=order,
        connection="quoine_default",
        policy=lambda: cast("Any", POLICY),
        started_by=started_by,
        task="task",
    )


def approve(ledger: Ledger, order: Order, *names: str) -> None:
    for name in names:
        assert approvals(ledger, order).approve(Person(user_id=name, name=name)) == ""


def in_doubt(ledger: Ledger, *, approved: bool = True) -> None:
    """Make a payment that two people approved, whose outcome is unknown."""
    ledger.prepare(ORDER, actor="task")
    if approved:
        approve(ledger, ORDER, "bob", "carol")
    send(ledger, ORDER, "a", in_flight=timedelta(seconds=-1))
    assert ledger.finish(ORDER, attempt="a", step=Step.UNKNOWN, reason="lost")


def with_other_details(ledger: Ledger) -> None:
    """Hold and release a payment, and begin it with another amount."""
    ledger.hold(ORDER, who="ann", why="mistyped")
    ledger.release(ORDER, who="ann", why="mistyped")
    ledger.prepare(OTHER, actor="a later run")


def test_an_attempt_that_has_waited_does_not_send_the_details_of_before(ledger: Ledger) -> None:
    """A task waits for its slot, or is frozen; the payment is held, released and begun with another amount."""
    ledger.prepare(ORDER, actor="task")
    with_other_details(ledger)
    with pytest.raises(PaymentRefusedError):
        send(ledger, ORDER, "the attempt of before")


def test_approvals_of_other_details_do_not_let_the_details_of_before_be_sent(ledger: Ledger) -> None:
    ledger.prepare(ORDER, actor="task")
    with_other_details(ledger)
    approve(ledger, OTHER, "bob", "carol")
    with ledger.transaction() as at, pytest.raises(PaymentRefusedError):
        approvals(ledger, ORDER).check_in(at, cast("Any", POLICY))


def test_an_answer_to_a_question_about_the_details_of_before_does_not_count(ledger: Ledger) -> None:
    """It is written after the payment has got other details, by a task that has looked at it before."""
    ledger.prepare(ORDER, actor="task")
    with_other_details(ledger)
    with suppress(PaymentRefusedError):
        approvals(ledger, ORDER).approve(Person(user_id="bob", name="bob"))
    assert approvals(ledger, OTHER).missing() == 2


@pytest.mark.parametrize("lost", ["a rejection", "that an approver has asked for it"])
def test_a_backup_that_does_not_know_why_approvals_do_not_count_is_refused(tmp_path: Path, lost: str) -> None:
    engine = open_file(tmp_path / "ledger.db")
    ledger = Ledger(engine, pin=Memory())
    ledger.prepare(ORDER, actor="task")
    approve(ledger, ORDER, "bob", "carol")
    with closing(sqlite3.connect(":memory:")) as backup, closing(sqlite3.connect(tmp_path / "ledger.db")) as file:
        file.backup(backup)
        if lost == "a rejection":
            approvals(ledger, ORDER).reject(Person(user_id="dave", name="dave"))
        else:
            approvals(ledger, ORDER, started_by="bob").note_run()
        assert approvals(ledger, ORDER).missing() > 0
        backup.backup(file)
    with pytest.raises(LedgerUnusableError):
        approvals(ledger, ORDER).check()


def test_who_says_absent_and_then_exists_is_not_the_first_of_two(ledger: Ledger) -> None:
    in_doubt(ledger)
    assert not ledger.absent(ORDER, who="ann", why="not there")
    ledger.exists(ORDER, exchange_id="5001", who="ann", why="there it is")
    assert not ledger.absent(ORDER, who="bob", why="not there")
    assert step(ledger) != Step.PREPARED


def test_a_late_answer_needs_two_people_again(ledger: Ledger) -> None:
    ledger.prepare(ORDER, actor="task")
    approve(ledger, ORDER, "bob", "carol")
    send(ledger, ORDER, "a", in_flight=timedelta(seconds=-1))
    assert not ledger.absent(ORDER, who="ann", why="not there")
    assert ledger.absent(ORDER, who="bob", why="not there")
    assert not ledger.finish(ORDER, attempt="a", step=Step.SENT, exchange_id="5001")
    assert step(ledger) == Step.UNKNOWN
    assert not ledger.absent(ORDER, who="bob", why="still not there")


def test_who_says_absent_again_and_again_has_said_it_once(ledger: Ledger) -> None:
    in_doubt(ledger)
    for _ in range(3):
        assert not ledger.absent(ORDER, who="ann", why="not there")
    assert len(ledger.history(ORDER).said_absent) == 1
    assert ledger.absent(ORDER, who="bob", why="not there")


def test_an_id_recorded_while_it_was_sent_is_corrected_after_the_exchanges_answer(ledger: Ledger) -> None:
    """A person takes another withdrawal for it; then the exchange answers with its own id. It may be paid twice."""
    ledger.prepare(ORDER, actor="task")
    send(ledger, ORDER, "a", in_flight=timedelta(seconds=-1))
    ledger.exists(ORDER, exchange_id="5001", who="ann", why="the wrong line")
    assert not ledger.finish(ORDER, attempt="a", step=Step.SENT, exchange_id="5002")
    assert ledger.late_ids() == {ORDER: "5002"}
    assert [payment.order for payment in ledger.unfinished()] == [ORDER]
    goes_on: tuple[Callable[[], object], ...] = (
        lambda: ledger.prepare(ORDER, actor="task"),
        lambda: ledger.look(ORDER),
        lambda: ledger.confirm(ORDER, exchange_id="5001", task="task"),
    )
    # The withdrawal 5001 may have the same amount and address, so the task itself would see no difference.
    for go_on in goes_on:
        with pytest.raises(PaymentRefusedError, match="It may be paid twice: the exchange has answered with id 5002"):
            go_on()
    for way in (ledger.absent, ledger.release, ledger.hold):
        with pytest.raises(PaymentRefusedError):
            way(ORDER, who="ann", why="whatever")
    ledger.exists(ORDER, exchange_id="5002", who="ann", why="the right line")
    found = ledger.find(ORDER)
    assert found is not None
    assert (found.step, found.exchange_id, ledger.late_ids()) == (Step.SENT, "5002", {})
    assert ledger.prepare(ORDER, actor="task").exchange_id == "5002"
    assert ledger.faults() == []


@pytest.mark.parametrize("way", ["exists", "absent", "hold"])
def test_an_id_recorded_while_it_was_sent_is_corrected_after_the_answer_was_lost(ledger: Ledger, way: str) -> None:
    """A person takes another withdrawal for it; then its own answer is lost, so the exchange has said no id."""
    ledger.prepare(ORDER, actor="task")
    send(ledger, ORDER, "a", in_flight=timedelta(seconds=-1))
    ledger.exists(ORDER, exchange_id="5001", who="ann", why="the wrong line")
    assert not ledger.finish(ORDER, attempt="a", step=Step.UNKNOWN, reason="lost")
    assert not ledger.history(ORDER).is_compared
    if way == "exists":
        ledger.exists(ORDER, exchange_id="5002", who="ann", why="the right line")
    else:
        getattr(ledger, way)(ORDER, who="ann", why="it is not there")
    found = ledger.find(ORDER)
    assert found is not None
    assert (found.step, found.exchange_id) == {
        "exists": (Step.SENT, "5002"),
        "absent": (Step.PREPARED, None),
        "hold": (Step.HELD, None),
    }[way]
    assert ledger.faults() == []


def test_an_id_that_the_exchange_has_answered_late_is_never_overwritten(ledger: Ledger) -> None:
    ledger.prepare(ORDER, actor="task")
    send(ledger, ORDER, "a")
    ledger.exists(ORDER, exchange_id="5001", who="ann", why="the right line")
    assert not ledger.finish(ORDER, attempt="a", step=Step.SENT, exchange_id="5001")
    with pytest.raises(PaymentRefusedError, match="The exchange itself answered with id 5001"):
        ledger.exists(ORDER, exchange_id="5002", who="ann", why="the line below")


@pytest.mark.parametrize("second", ["ann as airflow", "ann as root"])
def test_one_person_is_not_two_by_another_account(ledger: Ledger, second: str) -> None:
    in_doubt(ledger)
    assert not ledger.absent(ORDER, who="ann", why="not there")
    assert not ledger.absent(ORDER, who=second, why="not there")


@pytest.mark.parametrize("begun", ["held", "held in doubt"])
def test_a_wrong_exists_of_a_held_payment_can_be_taken_back(ledger: Ledger, begun: str) -> None:
    """The wrong reference was typed: nothing was paid, and no task has gone on."""
    if begun == "held in doubt":
        in_doubt(ledger, approved=False)
    ledger.hold(ORDER, who="ann", why="to be paid at the bank")
    ledger.exists(ORDER, exchange_id="5001", who="ann", why="the wrong line")
    ways = (ledger.absent, ledger.release, ledger.hold)
    refused = 0
    for way in ways:
        try:
            way(ORDER, who="ann", why="it was another payment")
        except PaymentRefusedError:
            refused += 1
    assert refused < len(ways)


def test_a_task_does_not_go_on_with_an_id_that_is_corrected_meanwhile(ledger: Ledger) -> None:
    """It has looked up 5001 at the exchange; a person corrects the id before it says that it goes on."""
    in_doubt(ledger, approved=False)
    ledger.exists(ORDER, exchange_id="5001", who="ann", why="seen")
    found = ledger.prepare(ORDER, actor="task")
    ledger.exists(ORDER, exchange_id="5002", who="ann", why="the line below")
    with pytest.raises(PaymentRefusedError, match="decided otherwise"):
        ledger.confirm(ORDER, exchange_id=str(found.exchange_id), task="task")
    confirmed = [event.data["exchange_id"] for event in ledger.history(ORDER) if event.event == "confirmed"]
    assert confirmed == []


@pytest.mark.parametrize("name", ["\uff21lice", "alice ", "ali\u00adce", "ALICE"])
def test_the_starter_under_a_name_that_a_directory_takes_for_the_same_does_not_count(ledger: Ledger, name: str) -> None:
    """LDAP compares names in normal form KC, without soft hyphens and outer blanks (RFC 4518); FAB keeps them."""
    ledger.prepare(ORDER, actor="task")
    assert approvals(ledger, ORDER, started_by="alice").approve(Person(user_id="7", name=name))
    assert approvals(ledger, ORDER).missing() == 2


def test_one_person_in_two_normal_forms_is_one(ledger: Ledger) -> None:
    ledger.prepare(ORDER, actor="task")
    approve(ledger, ORDER, "jos\u00e9")
    assert approvals(ledger, ORDER).approve(Person(user_id="8", name="jose\u0301"))


def test_a_state_with_a_nul_is_no_fault(ledger: Ledger) -> None:
    ledger.prepare(ORDER, actor="task")
    send(ledger, ORDER, "a")
    ledger.finish(ORDER, attempt="a", step=Step.SENT, exchange_id="20", state="pend\0ing")
    assert ledger.faults() == []


def test_a_dry_run_sees_a_released_payment_as_sending_would(ledger: Ledger) -> None:
    """The refusal's advice is to hold and to release, which has been done."""
    ledger.prepare(ORDER, actor="task")
    ledger.hold(ORDER, who="ann", why="mistyped")
    ledger.release(ORDER, who="ann", why="mistyped")
    ledger.look(OTHER)


def test_a_cap_counts_what_is_sent(ledger: Ledger) -> None:
    """The attempt of before sends 0.5, and the ledger has 0.1."""
    ledger.prepare(ORDER, actor="task")
    with_other_details(ledger)
    try:
        send(ledger, ORDER, "the attempt of before")
    except PaymentRefusedError:
        return
    with ledger.transaction() as at:
        _, amount = at.reserved(account=ORDER.account, since=at.now - timedelta(hours=1))
    assert amount == ORDER.amount


@pytest.mark.parametrize(
    ("one", "other"),
    [("inv-1", "inv-1\u3164"), ("inv-1", "in\u1160v-1"), ("inv-1", "inv-1\uffa0"), ("inv 1", "inv  1")],
)
def test_references_that_look_the_same_are_one_or_refused(one: str, other: str) -> None:
    """Hangul's fillers are letters without a sign; the question and the browser join blanks."""
    with suppress(PaymentRefusedError):
        assert check_reference(other) == one


@pytest.mark.parametrize(
    ("who", "user_id"),
    [
        ("ann as user 7 of Airflow", "7"),
        ("Ann as user 8 of Airflow", "8"),
        ("\u200b\uff21\uff2e\uff2e as root", ""),
        ("bob as user 7 of Airflow", "7"),
    ],
    ids=["by page", "in other letters", "by another account", "renamed"],
)
def test_one_person_is_not_two_by_another_way_or_name(ledger: Ledger, who: str, user_id: str) -> None:
    """A person says so by command and on the page, or changes the name in between."""
    in_doubt(ledger)
    assert not ledger.absent(ORDER, who="ann", why="not there")
    assert not ledger.absent(ORDER, who="ann as user 7 of Airflow", why="not there", user_id="7")
    assert not ledger.absent(ORDER, who=who, why="not there", user_id=user_id)
    assert step(ledger) == Step.UNKNOWN
    assert ledger.absent(ORDER, who="carol as user 9 of Airflow", why="not there", user_id="9")
    assert ledger.faults() == []
