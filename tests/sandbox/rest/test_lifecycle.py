"""Lifecycles: by the clock, by hand, and with outcomes set in advance."""

from __future__ import annotations

import pytest

from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.rest.exchange import Exchange
from airflow_provider_quoine.sandbox.rest.lifecycle import Lifecycle
from airflow_provider_quoine.sandbox.rest.users import Document
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.support.clock import ManualClock
from tests.support.partner import DOCUMENTS, FIELDS, Partner

PATH = ("pending", "processing", "broadcasted", "processed")


@pytest.mark.parametrize(
    ("seconds", "state"),
    [
        (0, "pending"),
        (9.99, "pending"),
        (10, "processing"),
        (29.9, "broadcasted"),
        (30, "processed"),
        (999, "processed"),
    ],
)
def test_a_step_is_due_exactly_one_pace_after_the_last(seconds: float, state: str) -> None:
    lifecycle = Lifecycle(path=PATH, since=1000.0)
    lifecycle.advance_due(now=1000.0 + seconds, pace=10)
    assert lifecycle.state == state


def test_reading_the_state_often_changes_nothing() -> None:
    lifecycle = Lifecycle(path=PATH, since=0.0)
    for tenth in range(196):
        lifecycle.advance_due(now=tenth / 10, pace=10)
    assert (lifecycle.state, lifecycle.since) == ("processing", 10.0)


def test_without_a_pace_nothing_advances_by_itself() -> None:
    lifecycle = Lifecycle(path=PATH, since=0.0)
    lifecycle.advance_due(now=1e9, pace=None)
    assert lifecycle.state == "pending"
    lifecycle.advance(now=1e9)
    assert lifecycle.state == "processing"


def test_no_state_follows_a_final_one() -> None:
    lifecycle = Lifecycle(path=PATH, since=0.0)
    lifecycle.set_state("processed", now=0.0)
    with pytest.raises(Refusal, match="No state follows processed"):
        lifecycle.advance(now=1.0)


def test_a_state_off_the_path_stays() -> None:
    lifecycle = Lifecycle(path=PATH, since=0.0)
    lifecycle.set_state("to_be_reviewed", now=0.0)
    lifecycle.advance_due(now=1e9, pace=1)
    assert lifecycle.state == "to_be_reviewed"


def test_a_new_pace_applies_from_now_on(clock: ManualClock) -> None:
    exchange = Exchange(SandboxSettings(pace=10, clock=clock))
    documents = {name: Document.of(*document) for name, document in DOCUMENTS.items()}
    user = exchange.create_user(fields=FIELDS, documents=documents)
    clock.seconds += 10
    exchange.set_pace(1000)
    clock.seconds += 500
    exchange.advance_due()
    assert user.lifecycle.state == "DOCUMENTS_SUBMITTED"


def test_a_user_passes_through_all_statuses(clock: ManualClock) -> None:
    exchange = Exchange(SandboxSettings(pace=5, clock=clock))
    documents = {name: Document.of(*document) for name, document in DOCUMENTS.items()}
    user = exchange.create_user(fields=FIELDS, documents=documents)
    seen = []
    for _ in range(3):
        exchange.advance_due()
        seen.append(user.status()["status"])
        clock.seconds += 5
    assert seen == ["PENDING", "DOCUMENTS_SUBMITTED", "APPROVED"]


def test_the_key_comes_with_approved_only(by_hand: Partner) -> None:
    user_id = by_hand.onboard().json()["user_id"]
    assert by_hand.status(user_id).json() == {"status": "PENDING"}
    by_hand.control.approve(user_id)
    response = by_hand.status(user_id).json()
    assert (response["status"], response["api_id"]) == ("APPROVED", str(user_id))
    assert len(response["api_secret"]) > 40
    by_hand.control.decline(user_id)
    assert by_hand.status(user_id).json() == {"status": "DECLINED"}


def test_a_key_is_valid_only_while_its_user_is_approved(by_hand: Partner) -> None:
    user = by_hand.approved_user()
    by_hand.control.set_user(user.api_id, "banned")
    response = by_hand.call("GET", f"/users/{user.api_id}/auth_code", user)
    assert (response.status_code, response.text) == (401, "API Authentication failed")


def test_an_email_can_set_the_outcome_declined() -> None:
    with SandboxServer(SandboxSettings(pace=0)) as sandbox:
        partner = Partner(sandbox)
        user_id = partner.onboard(email="someone+declined@example.com").json()["user_id"]
        assert partner.status(user_id).json() == {"status": "DECLINED"}


def test_outcomes_are_used_in_the_order_in_which_they_were_set() -> None:
    with SandboxServer(SandboxSettings(pace=0)) as sandbox:
        partner = Partner(sandbox)
        user = partner.approved_user()
        sandbox.control.set_next_outcome("withdrawal", "cancelled")
        sandbox.control.set_next_outcome("withdrawal", "reverted")
        ends = []
        for _ in range(3):
            made = partner.withdraw(user, partner.code(user)).json()
            ends.append(partner.withdrawal(user, made["id"]).json()["state"])
        assert ends == ["cancelled", "reverted", "processed"]


def test_a_refused_request_uses_no_outcome_up() -> None:
    with SandboxServer(SandboxSettings(pace=0)) as sandbox:
        partner = Partner(sandbox)
        sandbox.control.set_next_outcome("user", "DECLINED")
        assert partner.onboard(country="Japan").status_code == 422
        user_id = partner.onboard().json()["user_id"]
        assert partner.status(user_id).json() == {"status": "DECLINED"}


def test_a_withdrawal_is_advanced_by_hand(by_hand: Partner) -> None:
    user = by_hand.approved_user()
    made = by_hand.withdraw(user, by_hand.code(user)).json()
    states = [made["state"], *(by_hand.control.advance_withdrawal(made["id"]) for _ in range(3))]
    assert states == list(PATH)
    with pytest.raises(RuntimeError, match="409"):
        by_hand.control.advance_withdrawal(made["id"])
    by_hand.control.set_withdrawal(made["id"], "awaiting_confirmation")
    assert by_hand.withdrawal(user, made["id"]).json()["state"] == "awaiting_confirmation"


def test_the_pace_can_be_changed_while_the_sandbox_runs(by_hand: Partner) -> None:
    user = by_hand.approved_user()
    made = by_hand.withdraw(user, by_hand.code(user)).json()
    by_hand.control.set_pace(0)
    assert by_hand.withdrawal(user, made["id"]).json()["state"] == "processed"
    by_hand.control.set_pace(None)
    made = by_hand.withdraw(user, by_hand.code(user)).json()
    assert by_hand.withdrawal(user, made["id"]).json()["state"] == "pending"
