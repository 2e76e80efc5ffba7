"""One try at a payment: what the ledger says after every answer, freeze and decision of a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from airflow_provider_quoine.exchange.errors import (
    QuoineAnswerLostError,
    QuoineConnectionError,
    QuoineError,
    QuoineRateLimitedError,
    QuoineRefusedError,
)
from airflow_provider_quoine.payments.attempt import Attempt, QuoineTooLateError
from airflow_provider_quoine.payments.database import open_file
from airflow_provider_quoine.payments.ledger import SEND_WITHIN, Ledger
from airflow_provider_quoine.payments.records import Head, Order, Payment
from airflow_provider_quoine.payments.refusals import LedgerUnusableError, PaymentInDoubtError, PaymentRefusedError
from airflow_provider_quoine.payments.schema import Kind, Step
from tests.payments.memory import Memory

ORDER = Order(
    exchange="https://exchange",
    kind=Kind.WITHDRAWAL,
    reference="invoice-1",
    account="25",
    address="1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj",
    amount=Decimal("0.5"),
)


@dataclass
class World:
    """A ledger, a clock, and an exchange that counts what came."""

    ledger: Ledger
    memory: Memory
    order: Order = ORDER
    now: float = 0.0
    posts: int = 0
    answer: str = "20"
    failure: Exception | None = None
    before_answer: list[Callable[[], None]] = field(default_factory=list)

    def attempt(self) -> Attempt:
        return Attempt(ledger=self.ledger, order=self.order, task="dag / run / task", clock=lambda: self.now)

    def post(self, in_time: Callable[[], None]) -> str:
        in_time()
        self.posts += 1
        for happens in self.before_answer:
            happens()
        if self.failure is not None:
            raise self.failure
        return self.answer

    def send(self, attempt: Attempt) -> str:
        return attempt.send(
            self.post, identify=str, in_flight=timedelta(seconds=60), allow=lambda _: "the policy's hash"
        )

    @property
    def payment(self) -> Payment:
        found = self.ledger.find(self.order)
        assert found is not None
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An empty ledger in a file."""
    memory = Memory()
    return World(ledger=Ledger(open_file(tmp_path / "ledger.db"), pin=memory), memory=memory)


def response(kind: type[QuoineRefusedError], status: int, **more: Any) -> QuoineRefusedError:
    return kind(f"HTTP {status}", status=status, message="Email hanako@example.com is taken", body="", **more)


FAILURES = [
    (QuoineConnectionError("refused"), Step.PREPARED, False, QuoineConnectionError),
    (response(QuoineRateLimitedError, 429, retry_after=1), Step.PREPARED, False, QuoineRateLimitedError),
    (response(QuoineRefusedError, 422), Step.REFUSED, True, QuoineRefusedError),
    (QuoineAnswerLostError("reset"), Step.UNKNOWN, True, PaymentInDoubtError),
    (KeyboardInterrupt(), Step.UNKNOWN, True, KeyboardInterrupt),
]


@pytest.mark.parametrize(("failure", "step", "has_sent", "raised"), FAILURES, ids=lambda value: str(value)[:24])
def test_a_failure_leaves_the_payment_where_it_surely_stands(
    world: World, failure: Exception, step: Step, has_sent: bool, raised: type[BaseException]
) -> None:
    world.failure = failure
    attempt = world.attempt()
    attempt.begin()
    with pytest.raises(raised):
        world.send(attempt)
    assert (world.payment.step, attempt.has_sent) == (step, has_sent)
    assert world.payment.reason
    if step == Step.UNKNOWN:
        with pytest.raises(PaymentRefusedError, match="payments exists invoice-1 --id ID --why WHY"):
            world.attempt().begin()


# A worker that is frozen and wakes up after a person has settled the matter.


def test_an_attempt_that_wakes_up_after_its_beginning_pays_nothing_that_a_person_has_paid(world: World) -> None:
    frozen = world.attempt()
    frozen.begin()
    world.ledger.hold(ORDER, who="ann", why="paid at the bank")
    world.now += 3600
    with pytest.raises(PaymentRefusedError, match="A person holds"):
        world.send(frozen)
    world.ledger.exists(ORDER, exchange_id="77", who="ann", why="paid")
    with pytest.raises(PaymentRefusedError, match="it is 77"):
        world.send(frozen)
    assert (world.posts, world.payment.exchange_id) == (0, "77")


def test_an_attempt_that_wakes_up_before_the_first_byte_sends_nothing(world: World) -> None:
    frozen = world.attempt()
    frozen.begin()

    def wake_up_late(in_time: Callable[[], None]) -> str:
        world.now += SEND_WITHIN.total_seconds() + 1
        return world.post(in_time)

    with pytest.raises(QuoineTooLateError):
        frozen.send(wake_up_late, identify=str, in_flight=timedelta(0), allow=lambda _: "")
    assert (world.posts, world.payment.step, frozen.has_sent) == (0, Step.PREPARED, False)


@pytest.mark.parametrize("failure", [QuoineAnswerLostError("reset"), response(QuoineRefusedError, 422), None])
def test_an_attempt_that_wakes_up_with_its_answer_changes_nothing_that_a_person_has_settled(
    world: World, failure: QuoineError | None
) -> None:
    world.before_answer = [lambda: world.ledger.exists(ORDER, exchange_id="77", who="ann", why="found")]
    world.failure = failure
    frozen = world.attempt()
    frozen.begin()
    with pytest.raises((QuoineError, PaymentInDoubtError)) as told:
        world.send(frozen)
    assert (world.payment.step, world.payment.exchange_id) == (Step.SENT, "77")
    assert failure is not None or "its id is 20, but a person has settled it meanwhile" in str(told.value)


def test_an_answer_with_the_id_of_another_payment_is_in_doubt(world: World) -> None:
    other = replace(ORDER, reference="another")
    world.ledger.hold(other, who="ann", why="by hand")
    world.ledger.exists(other, exchange_id="20", who="ann", why="paid")
    attempt = world.attempt()
    attempt.begin()
    with pytest.raises(PaymentInDoubtError, match=r"id is 20, but .+ which is payment 'another'.+ paid twice"):
        world.send(attempt)
    assert world.payment.step == Step.UNKNOWN


def test_a_person_who_found_the_same_id_first_is_no_contradiction(world: World) -> None:
    world.before_answer = [lambda: world.ledger.exists(ORDER, exchange_id="20", who="ann", why="found")]
    attempt = world.attempt()
    attempt.begin()
    assert world.send(attempt) == "20"


# A ledger or an Airflow that fails in the middle.


def test_an_id_that_cannot_be_written_down_is_told(world: World) -> None:
    def forget() -> None:
        world.memory.head = Head(identity="another", number=1, hash="")

    world.before_answer = [forget]
    attempt = world.attempt()
    attempt.begin()
    with pytest.raises(PaymentInDoubtError, match="its id is 20, but this could not be written"):
        world.send(attempt)
    assert world.payment.step == Step.SENDING


def test_nothing_is_sent_where_airflow_cannot_remember_the_ledger(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Head) -> None:
        raise ConnectionError("Airflow's API does not answer")

    attempt = world.attempt()
    attempt.begin()
    monkeypatch.setattr(world.memory, "write", fail)
    with pytest.raises(ConnectionError):
        world.send(attempt)
    assert (world.posts, world.payment.step) == (0, Step.PREPARED)


def test_nothing_is_begun_in_a_ledger_that_airflow_does_not_know(world: World) -> None:
    world.memory.head = Head(identity="another", number=1, hash="")
    with pytest.raises(LedgerUnusableError, match="is not the one that this Airflow's payments are in"):
        world.attempt().begin()


def test_of_a_users_refusal_no_personal_data_stands_in_the_ledger(world: World) -> None:
    world.order = Order(exchange="https://exchange", kind=Kind.USER, reference="a hash", account="7")
    world.failure = response(QuoineRefusedError, 422)
    attempt = world.attempt()
    attempt.begin()
    with pytest.raises(QuoineRefusedError):
        world.send(attempt)
    assert world.payment.reason == "QuoineRefusedError 422"
    assert "hanako" not in str(world.ledger.history(world.order))


# A person who decides between "sending" and the first byte.


@pytest.mark.long
def test_nothing_leaves_once_a_stop_has_returned(world: World) -> None:
    attempt = world.attempt()
    attempt.begin()

    def connect_slowly(in_time: Callable[[], None]) -> str:
        world.ledger.stop(who="ann", why="a key was stolen")
        return world.post(in_time)

    with pytest.raises((PaymentRefusedError, QuoineError)):
        attempt.send(connect_slowly, identify=str, in_flight=timedelta(seconds=60), allow=lambda _: "policy")
    assert world.posts == 0


def test_an_attempt_whose_doubt_a_person_has_ended_does_not_send(tmp_path: Path) -> None:
    """The database's clock is put on, or a virtual machine was stopped: the boot-time clock does not tell."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    memory = Memory()
    world = World(ledger=Ledger(open_file(tmp_path / "l.db"), pin=memory, clock=lambda _: now), memory=memory)
    first = world.attempt()
    first.begin()

    def while_another_pays(in_time: Callable[[], None]) -> str:
        nonlocal now
        now += timedelta(hours=1)
        world.ledger.absent(ORDER, who="ann", why="not at the exchange")
        second = world.attempt()
        second.begin()
        world.send(second)
        return world.post(in_time)

    with pytest.raises((PaymentRefusedError, PaymentInDoubtError, QuoineError)):
        first.send(while_another_pays, identify=str, in_flight=timedelta(seconds=60), allow=lambda _: "policy")
    assert world.posts == 1


def test_an_id_that_came_late_keeps_the_payment_from_being_sent_again(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    memory = Memory()
    world = World(ledger=Ledger(open_file(tmp_path / "l.db"), pin=memory, clock=lambda _: now), memory=memory)

    def decide() -> None:
        nonlocal now
        now += timedelta(hours=1)
        world.ledger.absent(ORDER, who="ann", why="the exchange's page is behind")

    world.before_answer = [decide]
    frozen = world.attempt()
    frozen.begin()
    with pytest.raises(PaymentInDoubtError, match="its id is 20"):
        world.send(frozen)
    world.before_answer = []
    # The ledger has an event late_sent with id 20.
    with pytest.raises(PaymentRefusedError):
        world.attempt().begin()


def test_words_that_are_no_unicode_do_not_keep_a_refusal_from_being_written(world: World) -> None:
    # As JSON writes it: {"message": "\ud800"}.
    world.failure = QuoineRefusedError("HTTP 422: \ud800", status=422, message="\ud800", body="")
    attempt = world.attempt()
    attempt.begin()
    with pytest.raises(QuoineRefusedError):
        world.send(attempt)
    assert world.payment.step == Step.REFUSED


def test_of_a_withdrawals_refusal_no_personal_data_stands_in_the_ledger(world: World) -> None:
    world.failure = QuoineRefusedError(
        "HTTP 422: hanako@example.com has not enough", status=422, message="hanako@example.com has not enough", body=""
    )
    attempt = world.attempt()
    attempt.begin()
    with pytest.raises(QuoineRefusedError):
        world.send(attempt)
    assert "hanako" not in f"{world.payment.reason} {world.ledger.history(ORDER)}"


def test_a_decision_that_airflow_could_not_remember_is_not_told_as_not_made(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Head) -> None:
        raise OperationalError("UPDATE variable", {}, Exception("Airflow's database is locked"))

    world.ledger.hold(ORDER, who="ann", why="paid at the bank")
    monkeypatch.setattr(world.memory, "write", fail)
    with pytest.raises((LedgerUnusableError, OperationalError)) as told:
        world.ledger.release(ORDER, who="ann", why="not paid")
    # It was committed, and the words blame the ledger's database, which works.
    assert world.payment.step == Step.PREPARED
    assert "The ledger of payments in" not in str(told.value)
