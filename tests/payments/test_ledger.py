"""The ledger's steps, alone and by many at once."""

from __future__ import annotations

import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from airflow_provider_quoine.payments.database import open_file
from airflow_provider_quoine.payments.ledger import TELLS_WITHIN, Ledger
from airflow_provider_quoine.payments.records import Head, Order
from airflow_provider_quoine.payments.refusals import LedgerUnusableError, PaymentRefusedError
from airflow_provider_quoine.payments.schema import Kind, Note, Step
from airflow_provider_quoine.payments.transaction import Transaction
from tests.payments.memory import Memory
from tests.payments.processes import Processes, become_sender, open_engine, open_ledger

ORDER = Order(
    exchange="https://exchange",
    kind=Kind.WITHDRAWAL,
    reference="invoice-1",
    account="25",
    user_id="26",
    address="1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj",
    amount=Decimal("0.5"),
)


def allow(_: Transaction) -> str:
    """Allow everything."""
    return "policy"


def send(ledger: Ledger, order: Order, attempt: str, *, in_flight: timedelta = timedelta(0)) -> None:
    """Become the sender."""
    ledger.start_sending(order, attempt=attempt, task="dag.task", in_flight=in_flight, allow=allow)


def step(ledger: Ledger) -> str:
    """Where the one payment stands."""
    found = ledger.find(ORDER)
    assert found is not None
    return found.step


def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    ledger = Ledger(open_file(tmp_path / "quoine" / "ledger.db"), pin=Memory())
    ledger.prepare(ORDER, actor="task")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "quoine").iterdir()}
    assert set(modes.values()) == {0o600}, modes


def test_a_payment_goes_its_way(ledger: Ledger) -> None:
    assert ledger.prepare(ORDER, actor="task").step == Step.PREPARED
    send(ledger, ORDER, "a")
    assert ledger.finish(ORDER, attempt="a", step=Step.SENT, exchange_id="20", state="pending")
    found = ledger.prepare(ORDER, actor="task")
    assert (found.step, found.exchange_id, found.state) == (Step.SENT, "20", "pending")
    with pytest.raises(PaymentRefusedError, match="was sent already: it is 20"):
        send(ledger, ORDER, "b")
    assert ledger.faults() == []


def test_an_id_that_another_payment_has_leaves_doubt(ledger: Ledger) -> None:
    """The exchange took the second for a repetition of the first and answered with its id: one was paid."""
    for order, attempt in ((replace(ORDER, reference="invoice-0"), "a"), (ORDER, "b")):
        ledger.prepare(order, actor="task")
        send(ledger, order, attempt)
        wrote = ledger.finish(order, attempt=attempt, step=Step.SENT, exchange_id="20", state="pending")
        assert wrote is (attempt == "a")
    found = ledger.find(ORDER)
    assert found is not None
    assert (found.step, found.exchange_id, found.state) == (Step.UNKNOWN, None, "")
    assert found.reason == "the exchange answered with id 20, which is payment 'invoice-0'"
    assert ledger.faults() == []


def test_what_a_task_has_seen_is_written_once_and_only_under_its_id(ledger: Ledger) -> None:
    ledger.see(ORDER, exchange_id="20", state="processed", actor="task")
    ledger.prepare(ORDER, actor="task")
    ledger.see(ORDER, exchange_id="20", state="processed", actor="task")
    send(ledger, ORDER, "a")
    ledger.finish(ORDER, attempt="a", step=Step.SENT, exchange_id="20", state="pending")
    ledger.see(ORDER, exchange_id="21", state="processed", actor="task")
    assert [event.event for event in ledger.history(ORDER)] == ["prepared", "sending", "sent"]
    for _ in range(2):
        ledger.see(ORDER, exchange_id="20", state="processed", actor="task")
    assert [event.event for event in ledger.history(ORDER)] == ["prepared", "sending", "sent", "seen"]
    assert ledger.history(ORDER)[-1].data == {"state": "processed", "before": "pending"}
    assert ledger.faults() == []


def test_what_a_database_does_not_take_leaves_no_faults(ledger: Ledger) -> None:
    ledger.prepare(ORDER, actor="task")
    send(ledger, ORDER, "a")
    ledger.finish(ORDER, attempt="a", step=Step.SENT, exchange_id="20", state="pend\0ing\ud800")
    assert ledger.faults() == []


@pytest.mark.parametrize(
    "other",
    [
        {"amount": Decimal("0.6")},
        {"address": "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"},
        {"user_id": "27"},
        {"account": "9"},
    ],
)
def test_another_payment_under_the_same_reference_is_refused(ledger: Ledger, other: dict[str, object]) -> None:
    ledger.prepare(ORDER, actor="task")
    with pytest.raises(PaymentRefusedError, match=r"'invoice-1' stands for a payment with .+ Nothing was sent"):
        ledger.prepare(replace(ORDER, **other), actor="task")  # type: ignore[arg-type]  # one of its fields


def test_the_names_by_which_it_is_looked_up_may_change(ledger: Ledger) -> None:
    def names() -> tuple[str, str]:
        found = ledger.find(ORDER)
        assert found is not None
        return found.order.conn_id, found.order.credentials_variable

    ledger.prepare(replace(ORDER, conn_id="first", credentials_variable="key"), actor="task")
    assert names() == ("first", "key")
    ledger.prepare(ORDER, actor="task")
    assert names() == ("first", "key")
    ledger.prepare(replace(ORDER, conn_id="second"), actor="task")
    assert names() == ("second", "")
    send(ledger, ORDER, "a")
    ledger.exists(replace(ORDER, conn_id="third"), exchange_id="77", who="ann", why="found it")
    assert names() == ("third", "")
    assert ledger.faults() == []


def test_the_same_amount_written_otherwise_is_the_same(ledger: Ledger) -> None:
    ledger.prepare(ORDER, actor="task")
    assert ledger.prepare(replace(ORDER, amount=Decimal("0.50")), actor="task").step == Step.PREPARED


def test_of_64_attempts_of_4_processes_one_sends(where: str, processes: Processes) -> None:
    assert len(processes.run(become_sender, where)) == 1


def test_a_result_that_comes_after_a_person_has_settled_changes_nothing(ledger: Ledger) -> None:
    ledger.prepare(ORDER, actor="task")
    send(ledger, ORDER, "a")
    ledger.exists(ORDER, exchange_id="77", who="ann", why="found it")
    assert not ledger.finish(ORDER, attempt="a", step=Step.REFUSED, reason="no money")
    found = ledger.find(ORDER)
    assert found is not None
    assert (found.step, found.exchange_id) == (Step.SENT, "77")
    ledger.exists(ORDER, exchange_id="78", who="ann", why="mistyped")
    assert ledger.faults() == []


@pytest.mark.parametrize("settle", ["absent", "hold"])
def test_nothing_is_settled_while_the_request_may_be_under_way(ledger: Ledger, settle: str) -> None:
    ledger.prepare(ORDER, actor="task")
    send(ledger, ORDER, "a", in_flight=timedelta(minutes=5))
    with pytest.raises(PaymentRefusedError, match=r"may still be on its way. Look at the exchange again in \d+ s"):
        getattr(ledger, settle)(ORDER, who="ann", why="not there")
    assert step(ledger) == Step.SENDING


def test_a_held_payment_is_sent_by_nobody(ledger: Ledger) -> None:
    ledger.hold(ORDER, who="ann", why="paid at the bank")
    with pytest.raises(PaymentRefusedError, match="A person holds the payment 'invoice-1': paid at the bank"):
        ledger.prepare(ORDER, actor="task")
    with pytest.raises(PaymentRefusedError, match="A person holds"):
        send(ledger, ORDER, "a")
    ledger.release(ORDER, who="ann", why="not paid after all")
    send(ledger, ORDER, "a")


def test_from_an_unknown_step_nothing_is_sent(ledger: Ledger) -> None:
    ledger.prepare(ORDER, actor="task")
    with ledger.transaction() as at:
        at.change(ORDER, if_step=frozenset({Step.PREPARED}), step="reversed")
    with pytest.raises(PaymentRefusedError, match="is reversed"):
        send(ledger, ORDER, "a")


def test_from_a_stop_on_nothing_is_sent(ledger: Ledger) -> None:
    ledger.prepare(ORDER, actor="task")
    ledger.stop(who="ann", why="a key was stolen")
    with pytest.raises(PaymentRefusedError, match="Payments are stopped: a key was stolen"):
        send(ledger, ORDER, "a")
    ledger.resume(who="ann", why="the key is new")
    send(ledger, ORDER, "a")


def unknown(ledger: Ledger) -> None:
    """Lose the answer of the one payment."""
    ledger.prepare(ORDER, actor="task")
    send(ledger, ORDER, "a")
    ledger.finish(ORDER, attempt="a", step=Step.UNKNOWN, reason="lost")


@pytest.mark.parametrize("times", [1, 2, 3])
def test_to_hold_and_release_does_not_end_a_doubt(ledger: Ledger, times: int) -> None:
    unknown(ledger)
    for _ in range(times):
        ledger.hold(ORDER, who="ann", why="nobody sends it while I look")
        ledger.release(ORDER, who="ann", why="not paid elsewhere")
    with pytest.raises(PaymentRefusedError, match="its outcome is unknown"):
        send(ledger, ORDER, "b")


def test_a_word_that_it_exists_is_taken_back_after_a_release_too(ledger: Ledger) -> None:
    unknown(ledger)
    ledger.hold(ORDER, who="ann", why="nobody sends it while I look")
    ledger.release(ORDER, who="ann", why="not paid elsewhere")
    ledger.exists(ORDER, exchange_id="20", who="ann", why="mistaken for another")
    assert ledger.absent(ORDER, who="ann", why="not there")
    send(ledger, ORDER, "b")


def test_what_people_write_cannot_steer_a_console(ledger: Ledger) -> None:
    ledger.prepare(ORDER, actor="task")
    ledger.hold(ORDER, who="ann\x1b[8m", why="not\x1b[2J\r\nthis\u202e")
    assert ledger.history(ORDER)[-1].actor == "ann?[8m"
    assert ledger.history(ORDER)[-1].data["why"] == "not?[2J \nthis?"


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE quoine_payments SET step = 'prepared'",
        "UPDATE quoine_payments SET satoshis = 1",
        "UPDATE quoine_payments SET exchange_id = '21'",
        "UPDATE quoine_payments SET reserved_at = '2000-01-01T00:00:00.000000+00:00'",
        "DELETE FROM quoine_payments",
        "UPDATE quoine_ledger SET stopped_at = NULL",
    ],
)
def test_an_edited_row_of_a_payment_or_of_the_ledger_is_named(ledger: Ledger, where: str, edit: str) -> None:
    ledger.prepare(ORDER, actor="task")
    send(ledger, ORDER, "a")
    ledger.finish(ORDER, attempt="a", step=Step.SENT, exchange_id="20")
    ledger.stop(who="ann", why="a key was stolen")
    assert ledger.faults() == []
    with open_engine(where).begin() as connection:
        connection.exec_driver_sql(edit)
    assert ledger.faults()


def test_an_end_that_was_removed_with_the_head_put_back_is_named(ledger: Ledger, where: str) -> None:
    unknown(ledger)
    ledger.absent(ORDER, who="ann", why="not there")
    with open_engine(where).begin() as connection:
        connection.exec_driver_sql("DELETE FROM quoine_payment_events WHERE number > 2")
        connection.exec_driver_sql(
            "UPDATE quoine_ledger SET head = 2, head_hash = (SELECT hash FROM quoine_payment_events WHERE number = 2)"
        )
    # Airflow remembers a later event.
    assert ledger.faults()


@pytest.mark.parametrize("edit", ["number = 'x'", "actor = x'00ff'", "actor = CAST(x'c328' AS TEXT)"])
def test_an_event_that_cannot_be_read_is_named(tmp_path: Path, edit: str) -> None:
    where = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = open_ledger(where)
    unknown(ledger)
    with open_engine(where).begin() as connection:
        connection.exec_driver_sql(f"UPDATE quoine_payment_events SET {edit} WHERE number = 2")
    assert any("2" in fault for fault in ledger.faults())


def test_of_two_ledgers_used_first_at_the_same_time_one_pays(tmp_path: Path) -> None:
    memory = Memory()
    one, other = (Ledger(open_file(tmp_path / name / "ledger.db"), pin=memory) for name in ("a", "b"))
    for ledger in (one, other):
        ledger.prepare(ORDER, actor="task")

    def meanwhile(_: Transaction) -> str:
        send(other, ORDER, "b")
        return "policy"

    # Airflow remembered none when the first one began.
    with pytest.raises(LedgerUnusableError):
        one.start_sending(ORDER, attempt="a", task="dag.task", in_flight=timedelta(0), allow=meanwhile)


def test_an_id_of_another_payment_is_refused(ledger: Ledger) -> None:
    """Payouts of the same amount to the same address look alike: only the id tells them apart."""
    other = replace(ORDER, reference="invoice-2")
    ledger.prepare(other, actor="task")
    send(ledger, other, "b")
    ledger.finish(other, attempt="b", step=Step.SENT, exchange_id="20")
    unknown(ledger)
    with pytest.raises(PaymentRefusedError, match="invoice-2"):
        ledger.exists(ORDER, exchange_id="20", who="ann", why="found a withdrawal of 0.5 BTC to that address")


def test_a_look_while_others_write_is_not_taken_for_an_older_state(ledger: Ledger) -> None:
    """Between a look's first row and Airflow's memory, another process sends and has Airflow remember it."""
    ledger.prepare(ORDER, actor="task")
    engine, pin = ledger._engine, Memory()
    others = Ledger(engine, pin=pin)

    class Slow(Memory):
        def read(self) -> Head | None:
            if others.find(ORDER) is not None and step(others) == Step.PREPARED:
                send(others, ORDER, "a")
            return pin.read()

    assert Ledger(engine, pin=Slow()).check() == ""
    assert step(ledger) == Step.SENDING


def test_a_doubt_is_untold_once_its_task_has_had_a_while_to_tell(tmp_path: Path) -> None:
    began, in_flight = datetime(2026, 11, 27, tzinfo=UTC), timedelta(seconds=30)
    now = [began]
    ledger = Ledger(open_file(tmp_path / "ledger.db"), pin=Memory(), clock=lambda _: now[0])
    ledger.prepare(ORDER, actor="task")
    send(ledger, ORDER, "a", in_flight=in_flight)
    for after, untold in ((timedelta(0), 0), (TELLS_WITHIN - timedelta(microseconds=1), 0), (TELLS_WITHIN, 1)):
        now[0] = began + in_flight + after
        assert len(ledger.untold_doubts()) == untold
    ledger.note(ORDER, Note.DOUBT_TOLD, actor="task")
    # Its attempt comes back, and says the same.
    ledger.finish(ORDER, attempt="a", step=Step.UNKNOWN, reason="its answer was lost")
    assert ledger.untold_doubts() == []
