"""Reconciliation against the sandbox on a real socket: every planted difference is found, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from airflow_provider_quoine.exchange.budget.request_budget import RequestBudget
from airflow_provider_quoine.exchange.budget.rules import Priority
from airflow_provider_quoine.exchange.errors import QuoineConnectionError
from airflow_provider_quoine.exchange.models import UserCredentials
from airflow_provider_quoine.exchange.rest.client import QuoineClient
from airflow_provider_quoine.operators.findings import table
from airflow_provider_quoine.payments import reconciliation
from airflow_provider_quoine.payments.reconciliation import FindingKind, Reconciliation, Report
from airflow_provider_quoine.payments.records import Order
from airflow_provider_quoine.payments.refusals import paid_twice
from airflow_provider_quoine.payments.schema import PAYMENTS, Kind, Note, Step
from airflow_provider_quoine.payments.transaction import is_for
from tests.payments.processes import open_ledger, payment
from tests.support.reconciled import ADDRESS, LOOK_UP, World

ANOTHER_ADDRESS = "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"
DAYS_2, DAYS_10 = timedelta(days=2), timedelta(days=10)


def found(report: Report) -> set[tuple[str, FindingKind]]:
    """The findings of a report."""
    return {(finding.payment.order.reference, finding.kind) for finding in report.findings}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """An exchange and a ledger."""
    return World(tmp_path, monkeypatch)


def plant_50_differences(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant each kind of difference."""
    kinds = FindingKind
    for state in ("processed", "pending", "cancelled", "processing"):
        for _ in range(2):
            world.sent(state, seen=("pending",), missing=True, expect=kinds.MISSING)
    for state in ("processed", "pending"):
        for _ in range(3):
            world.sent(state, there={"amount": Decimal("99.00000001")}, expect=kinds.CHANGED)
            world.sent(state, there={"address": ANOTHER_ADDRESS}, expect=kinds.CHANGED)
    for state in ("pending", "broadcasted", "a state that nobody knows"):
        for _ in range(2):
            world.sent(state, ago=DAYS_2, expect=kinds.STUCK)
    for _ in range(2):
        world.stands(Step.HELD, ago=DAYS_2, expect=kinds.STUCK)
        world.stands(Step.UNKNOWN, ago=DAYS_2, expect=kinds.IN_DOUBT)
        world.stands(Step.SENDING, ago=DAYS_2, expect=kinds.IN_DOUBT)
        world.stands(Step.UNKNOWN, ago=DAYS_2, kind=Kind.USER, expect=kinds.IN_DOUBT)
    for before, now in (
        (("pending", "processed"), "pending"),
        (("processed",), "reverted"),
        (("broadcasted",), "processing"),
        # It was told yesterday as well.
        (("processed", "pending"), "pending"),
    ):
        for _ in range(2):
            world.sent(now, seen=before, expect=kinds.BACKWARDS)
    stranger = UserCredentials(api_id=str(world.users[0].user_id), api_secret="not-this-one" * 4)
    monkeypatch.setenv("AIRFLOW_VAR_WRONG_KEY", stranger.to_json())
    own = {"account": str(world.users[0].user_id)}
    wrong: tuple[dict[str, Any], ...] = (
        {"credentials_variable": "gone"},
        {"conn_id": "gone"},
        {"conn_id": "", "credentials_variable": ""},
        {"credentials_variable": "wrong_key", **own},
    )
    for names in wrong:
        for _ in range(2):
            world.sent("pending", **names, expect=kinds.NOT_LOOKED_UP)


def plant_what_is_right(world: World, payments: int) -> None:
    """Plant payments of all sorts with which nothing is wrong."""
    sorts: list[Callable[[], Order]] = [
        lambda: world.sent("processed", seen=("pending", "processed")),
        lambda: world.sent("processed", seen=("pending",)),
        lambda: world.sent("cancelled", seen=("processing", "cancelled"), ago=DAYS_2),
        lambda: world.sent("pending"),
        lambda: world.sent("processing", seen=("pending",)),
        lambda: world.sent("awaiting_confirmation", seen=("filed",)),
        lambda: world.sent("a state that nobody knows", seen=("processing",)),
        # Final for so long that it is not looked up any more.
        lambda: world.sent("pending", seen=("processed",), ago=DAYS_10),
        lambda: world.stands(Step.PREPARED, ago=DAYS_10),
        lambda: world.stands(Step.REFUSED, ago=DAYS_10),
        lambda: world.stands(Step.UNKNOWN),
        lambda: world.stands(Step.SENT, kind=Kind.USER, ago=DAYS_10),
    ]
    for number in range(payments):
        sorts[number % len(sorts)]()


@pytest.mark.long
def test_of_1000_payments_the_50_planted_differences_are_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with world:
        plant_what_is_right(world, 475)
        plant_50_differences(world, monkeypatch)
        plant_what_is_right(world, 475)
    assert (len(world.expected), len(world.ledger.all())) == (50, 1000)
    with world.sandbox:
        report = world.reconcile()
        assert found(report) == world.expected
        assert report.counts.total() == 50
        # Nobody has mended anything, so the next morning finds the same, and looks each up once.
        asked = world.lookups()
        assert found(world.reconcile()) == world.expected
        assert len(asked) == len(set(asked))
        assert sorted(world.lookups()[len(asked) :]) == sorted(asked)
    assert world.ledger.faults() == []


def test_a_state_that_is_new_is_written_once(world: World) -> None:
    with world:
        order = world.sent("processing", seen=("pending",))
    with world.sandbox:
        world.reconcile()
        world.reconcile()
        world.sandbox.control.set_withdrawal(5001, "processed")
        world.reconcile()
    payment = world.ledger.find(order)
    assert payment is not None
    assert payment.state == "processed"
    told = [event.data["state"] for event in world.ledger.history(order) if event.event == Note.SEEN]
    assert told == ["pending", "processing", "processed"]
    assert world.ledger.faults() == []


def answer(world: World, id_: int, state: str) -> None:
    """Have the exchange answer the next look-up with a state of its own."""
    body = json.dumps({"id": id_, "amount": "0.001", "address": ADDRESS, "state": state})
    world.sandbox.control.fault("status", LOOK_UP, status=200, body=body, content_type="application/json")


@pytest.mark.parametrize(
    "state",
    [
        "\ud800",
        "pending\ud83d",
        "pend\0ing",
        "pending\n2026-11-27 INFO nothing wrong\x1b[2J",
        "waits for hanako@example.com",
        "x" * 50_000,
    ],
)
def test_a_state_that_is_no_word_ends_no_run_and_is_told_nowhere(world: World, state: str) -> None:
    with world:
        odd = world.sent("pending", ago=DAYS_2, seen=("pending",))
        gone = world.sent("pending", missing=True)
    with world.sandbox:
        answer(world, 5001, state)
        report = world.reconcile()
        assert found(report) == {(odd.reference, FindingKind.STUCK), (gone.reference, FindingKind.MISSING)}
        answer(world, 5001, "pending")
        lines = list(table(world.reconcile().findings))
    assert all(line.isprintable() for line in lines)
    told = [finding.as_dict()["state"] for finding in report.findings]
    assert sorted(told) == ["", "unreadable"]
    assert world.ledger.faults() == []


def test_states_under_an_id_that_was_corrected_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with World(tmp_path, monkeypatch, users=1) as world:
        order = world.stands(Step.UNKNOWN, amount=Decimal("0.5"))
        # The exchange has it under this id.
        other = world.sent("pending", amount=Decimal("0.5"))
        world.change(other, exchange_id="5999")
    world.ledger.exists(order, exchange_id="77", who="ann", why="mistyped")
    with world.ledger.transaction() as at:
        at.append(order, Note.SEEN, actor="task", state="processed")
    world.ledger.exists(order, exchange_id="5001", who="ann", why="corrected")
    with world.sandbox:
        assert {finding.payment.order.reference for finding in world.reconcile().findings} == {other.reference}


def test_states_under_an_id_that_was_taken_back_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person records a wrong id, reconciliation sees it, the person says absent, and the payment is sent."""
    with World(tmp_path, monkeypatch, users=1) as world:
        order = world.stands(Step.UNKNOWN, amount=Decimal("0.5"))
        other = world.sent("processed")
        mine = world.sent("pending", amount=Decimal("0.5"))
        world.change(other, exchange_id="5998")
        world.change(mine, exchange_id="5999")
        world.change(order, in_doubt_until="2026-01-01T00:00:00.000000+00:00")
    world.ledger.exists(order, exchange_id="5001", who="ann", why="mistyped")
    with world.sandbox:
        assert (order.reference, FindingKind.CHANGED) in found(world.reconcile())
        assert world.ledger.absent(order, who="ann", why="it was another one")
        world.ledger.start_sending(order, attempt="b", task="task", in_flight=timedelta(0), allow=lambda _: "policy")
        world.ledger.finish(order, attempt="b", step=Step.SENT, exchange_id="5002", state="pending")
        assert (order.reference, FindingKind.BACKWARDS) not in found(world.reconcile())


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("settled", ["exists", "hold"])
def test_a_payment_that_may_be_paid_twice_is_found_until_the_right_id_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled: str, kind: Kind
) -> None:
    """A person settles a payment whose request is on its way, and then the exchange answers with another id."""
    with World(tmp_path, monkeypatch, users=1) as world:
        order = world.stands(Step.SENDING, kind=kind)
        # The exchange has the order as 5001.
        world.change(world.sent("processed", amount=order.amount), exchange_id="5999")
    if settled == "exists":
        world.ledger.exists(order, exchange_id="5998", who="ann", why="the wrong line")
    else:
        world.ledger.hold(order, who="ann", why="to be paid at the bank")
    world.ledger.finish(order, attempt="a", step=Step.SENT, exchange_id="5001")
    with world.ledger.transaction() as at:
        # Final for so long that it would not be looked up any more.
        at.see(order, exchange_id="5998", state="processed", actor="task")
        long_ago = update(PAYMENTS).where(is_for(order)).values(changed_at="2026-01-01T00:00:00.000000+00:00")
        at.connection.execute(long_ago)
    with world.sandbox:
        for _ in range(2):
            report = world.reconcile()
            (told,) = (each for each in report.findings if each.kind == FindingKind.PAID_TWICE)
            assert (told, told.payment.order, told.what) == (report.findings[0], order, paid_twice("5001"))
        world.ledger.exists(order, exchange_id="5001", who="ann", why="the right line")
        assert FindingKind.PAID_TWICE not in {kind for _, kind in found(world.reconcile())}


def test_two_payments_under_one_id_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exchange took the second for a repetition of the first and answered with its id: one was paid."""
    with World(tmp_path, monkeypatch, users=1) as world:
        one = world.sent("processed", amount=Decimal("0.5"))
        two = world.stands(Step.SENT, amount=Decimal("0.5"), exchange_id="5001")
    with world.sandbox:
        report = world.reconcile()
    assert found(report) == {(order.reference, FindingKind.CHANGED) for order in (one, two)}
    assert report.findings[0].what == "the ledger has 'invoice-2' under this id too"


def test_a_clock_that_was_ahead_hides_no_payment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciliation, "AT_ONCE", 1)
    with world:
        gone = world.sent("pending", missing=True)
        world.change(gone, looked_up_at="2099-01-01T00:00:00.000000+00:00")
        world.change(world.sent("pending"), looked_up_at="2026-01-01T00:00:00.000000+00:00")
    with world.sandbox:
        assert found(world.reconcile()) == {(gone.reference, FindingKind.MISSING)}
        assert world.lookups() == ["5001", "5002"]


def test_what_a_run_at_the_same_time_has_looked_up_is_judged_by_both(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world:
        order = world.sent("pending", missing=True)
    reports: list[Report] = []
    next_ = Reconciliation._next

    def next_after_another(self: Reconciliation, due: Any) -> Any:
        monkeypatch.setattr(Reconciliation, "_next", next_)
        reports.append(world.reconcile())
        return next_(self, due)

    monkeypatch.setattr(Reconciliation, "_next", next_after_another)
    with world.sandbox:
        reports.append(world.reconcile())
    assert [found(report) for report in reports] == 2 * [{(order.reference, FindingKind.MISSING)}]


def test_what_is_settled_during_the_run_is_judged_as_it_is_then(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with world:
        order = world.stands(Step.UNKNOWN, ago=DAYS_2)
    next_ = Reconciliation._next

    def next_after_a_person(self: Reconciliation, due: Any) -> Any:
        world.ledger.absent(order, who="ann", why="not there")
        return next_(self, due)

    monkeypatch.setattr(Reconciliation, "_next", next_after_a_person)
    with world.sandbox:
        assert found(world.reconcile()) == set()


def test_the_worst_findings_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciliation, "MOST_KEPT", 5)
    with world:
        for _ in range(6):
            world.sent("pending", conn_id="gone")
        gone = world.sent("pending", missing=True)
    with world.sandbox:
        report = world.reconcile()
    assert report.findings[0].payment.order.reference == gone.reference
    assert (len(report.findings), report.counts) == (5, {"not_looked_up": 6, "missing": 1})


@pytest.mark.parametrize("host", ["https://[::1", "https://exchange.example:port", "https://exchange.example:99999"])
def test_a_connection_that_cannot_be_read_does_not_end_the_run(
    world: World, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    broken = json.dumps({"conn_type": "quoine", "host": host, "login": "1", "password": "x"})
    monkeypatch.setenv("AIRFLOW_CONN_A_BROKEN", broken)
    with world:
        lost = world.sent("pending", conn_id="a_broken")
        gone = world.sent("pending", missing=True)
    with world.sandbox:
        assert found(world.reconcile()) == {
            (lost.reference, FindingKind.NOT_LOOKED_UP),
            (gone.reference, FindingKind.MISSING),
        }


@pytest.mark.parametrize("name", ["old_name", ""])
def test_a_name_that_has_changed_can_be_corrected(world: World, name: str) -> None:
    """The exchange itself has answered with the id. A payment of a ledger of version 1 has no name at all."""
    with world:
        order = world.sent("pending", conn_id=name)
    with world.sandbox:
        assert found(world.reconcile()) == {(order.reference, FindingKind.NOT_LOOKED_UP)}
        renamed = replace(order, conn_id="quoine_default")
        world.ledger.exists(renamed, exchange_id="5001", who="ann", why="the connection has another name")
        assert found(world.reconcile()) == set()
    history = world.ledger.history(order)
    assert [event.event for event in history[-2:]] == [Note.RENAMED, Note.SEEN]
    assert history[-2].data["before"]["conn_id"] == name
    assert world.ledger.faults() == []


def test_every_final_payment_can_be_looked_up(world: World) -> None:
    with world:
        world.sent("processed", seen=("processed",), ago=timedelta(days=400))
    with world.sandbox:
        report = Reconciliation(
            ledger=world.ledger, final_for=timedelta.max, stuck_after=timedelta(days=1), actor="task"
        ).run()
    assert report.looked_up == 1


def test_payments_without_an_answer_do_not_starve_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exchange hangs up for the ids of the five that come first, and their connection is given up each morning."""
    with World(tmp_path, monkeypatch, users=1) as world:
        for _ in range(6):
            world.sent("pending")
        gone = world.sent("pending", missing=True)
    look_up = QuoineClient.get_withdrawal

    def hang_up(client: QuoineClient, *, withdrawal_id: str) -> Any:
        if withdrawal_id in {"5001", "5002", "5003", "5004", "5005"}:
            raise QuoineConnectionError("the exchange hangs up")
        return look_up(client, withdrawal_id=withdrawal_id)

    monkeypatch.setattr(QuoineClient, "get_withdrawal", hang_up)
    with world.sandbox:
        assert found(world.reconcile()) == {(f"invoice-{one}", FindingKind.NOT_LOOKED_UP) for one in range(1, 8)}
        assert (gone.reference, FindingKind.MISSING) in found(world.reconcile())


@pytest.mark.parametrize(
    ("fault", "more"),
    [
        ("status", {"status": 429, "body": "API rate limit exceeded. Please retry after 0.01s"}),
        ("status", {"status": 503, "body": "down"}),
        ("drop_before", {}),
    ],
)
def test_a_failure_that_passes_is_no_finding(world: World, fault: str, more: dict[str, Any]) -> None:
    with world:
        world.sent("processed")
    with world.sandbox:
        world.sandbox.control.fault(fault, LOOK_UP, **more)
        report = world.reconcile()
    assert (report.findings, report.looked_up) == ([], 1)


@pytest.mark.parametrize(
    ("fault", "more"),
    [
        ("status", {"status": 404, "body": "<html>Not found</html>", "content_type": "text/html"}),
        ("status", {"status": 403, "body": '{"message": "no"}', "content_type": "application/json"}),
        ("status", {"status": 500, "body": "down"}),
        ("garbage", {}),
    ],
)
def test_what_cannot_be_looked_up_is_said_to_be_that_and_not_missing(
    world: World, fault: str, more: dict[str, Any]
) -> None:
    with world:
        world.sent("processed")
    with world.sandbox:
        world.sandbox.control.fault(fault, LOOK_UP, times=9, **more)
        report = world.reconcile()
    assert [finding.kind for finding in report.findings] == [FindingKind.NOT_LOOKED_UP]
    assert report.silent == {}


@pytest.mark.parametrize("users", [1, pytest.param(12, marks=pytest.mark.long)])
def test_an_exchange_that_does_not_answer_is_not_asked_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users: int
) -> None:
    monkeypatch.setattr("airflow_provider_quoine.exchange.rest.retries.FIRST_BACKOFF", 0.0)
    monkeypatch.setattr(reconciliation, "AT_ONCE", 10)
    with World(tmp_path, monkeypatch, users=users) as world:
        for _ in range(12):
            world.sent("processed")
    with world.sandbox:
        world.sandbox.control.fault("drop_before", LOOK_UP, times=10_000)
        report = world.reconcile()
        asked = len(world.lookups())
    assert report.counts == {"not_looked_up": 12}
    assert list(report.silent) == ["quoine_default"]
    assert asked == 4 * reconciliation.SILENT_AFTER


def test_those_that_were_looked_up_longest_ago_come_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciliation, "AT_ONCE", 1)
    with world:
        for day in (3, 1, 2):
            world.change(world.sent("pending"), looked_up_at=f"2026-01-0{day}T00:00:00.000000+00:00")
        world.sent("pending")
    with world.sandbox:
        world.reconcile()
        assert world.lookups() == ["5004", "5002", "5003", "5001"]


def test_every_look_up_waits_behind_everything_urgent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    priorities: list[Priority] = []
    acquire = RequestBudget.acquire

    def acquire_and_tell(budget: RequestBudget, *, priority: Priority, **more: Any) -> Any:
        priorities.append(priority)
        return acquire(budget, priority=priority, **more)

    monkeypatch.setattr(RequestBudget, "acquire", acquire_and_tell)
    with world:
        world.sent("processed")
    with world.sandbox:
        world.reconcile()
    assert priorities == [Priority.POLLING]


def test_either_database_is_read_and_written(where: str) -> None:
    ledger = open_ledger(where)
    for number, (step, id_) in enumerate({Step.UNKNOWN: None, Step.SENT: "5001", Step.REFUSED: None}.items()):
        order = payment(number)
        ledger.prepare(order, actor="task")
        ledger.start_sending(order, attempt="a", task="task", in_flight=timedelta(0), allow=lambda _: "policy")
        ledger.finish(order, attempt="a", step=step, exchange_id=id_, state="pending" if id_ else "")
    report = reconciliation.Reconciliation(
        ledger=ledger, final_for=timedelta(0), stuck_after=timedelta(0), actor="task"
    ).run()
    # Nobody has told the ledger by which connection they were sent.
    assert found(report) == {("invoice-0", FindingKind.IN_DOUBT), ("invoice-1", FindingKind.NOT_LOOKED_UP)}
    head, first, last = ledger.span(since=datetime(2026, 1, 1, tzinfo=UTC), until=datetime(2100, 1, 1, tzinfo=UTC))
    events = list(ledger.events(first, last))
    assert (first, last, head.number, len(events)) == (1, 9, 9, 9)
    assert ledger.hashes([9, 10]) == {9: events[-1]["hash"]} == {9: head.hash}
