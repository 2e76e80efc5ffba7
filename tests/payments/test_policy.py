"""The rules for withdrawals: allow-list, bounds, caps, network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection as AirflowConnection

from airflow_provider_quoine.exchange.addresses import Network
from airflow_provider_quoine.exchange.amounts import Amount
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.models import WithdrawalOrder
from airflow_provider_quoine.hooks.connection import ConnectionSettings
from airflow_provider_quoine.payments.database import open_file
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.policy import Cap, WithdrawalPolicy, start_of_day
from airflow_provider_quoine.payments.records import Order
from airflow_provider_quoine.payments.schema import Kind, Step
from tests.payments.memory import Memory

SEGWIT = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
LEGACY = "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"
TEST_NETWORK = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"

OPEN = Cap(amount=None, number=None)
#: The bounds that a connection must state, and a form that states them.
STATED = {
    "withdrawal_max": "unlimited",
    "withdrawal_max_24h": "2",
    "withdrawal_count_24h": "10",
    "withdrawal_max_day": "1.5",
    "withdrawal_count_day": "unlimited",
}


def policy(*addresses: str, largest: str | None = None, smallest: str | None = None) -> WithdrawalPolicy:
    return WithdrawalPolicy(
        conn_id="payouts",
        account="25",
        addresses=frozenset(addresses),
        largest=Amount(largest) if largest else None,
        smallest=Amount(smallest) if smallest else None,
        in_24_hours=OPEN,
        per_day=OPEN,
        timezone="UTC",
        network=Network.MAIN,
        approvals=0,
    )


def read(**extra: str) -> WithdrawalPolicy:
    """The policy of a connection with these extra fields."""
    connection = AirflowConnection(conn_id="payouts", conn_type="quoine", extra=json.dumps(extra))
    return WithdrawalPolicy.of(ConnectionSettings.from_connection(connection), account="25")


@pytest.mark.parametrize("rules", [policy(SEGWIT), policy(LEGACY, SEGWIT.upper()), policy("*")])
def test_listed_address_passes_in_either_case(rules: WithdrawalPolicy) -> None:
    rules.check(WithdrawalOrder.parse(amount="0.5", address=SEGWIT))
    rules.check(WithdrawalOrder.parse(amount="0.5", address=SEGWIT.upper()))


@pytest.mark.parametrize(
    ("rules", "amount", "address", "words"),
    [
        (policy(), "0.5", SEGWIT, "empty, which allows none"),
        (policy(LEGACY), "0.5", SEGWIT, "not on the list"),
        (policy(LEGACY.lower(), SEGWIT), "0.5", SEGWIT, "no address, so nothing is sent"),
        (policy("*"), "0.5", TEST_NETWORK, "network"),
        (policy("*", largest="0.5"), "0.50000001", SEGWIT, "Largest withdrawal"),
        (policy("*", smallest="0.5"), "0.49999999", SEGWIT, "Smallest withdrawal"),
    ],
)
def test_refusal_names_the_rule(rules: WithdrawalPolicy, amount: str, address: str, words: str) -> None:
    order = WithdrawalOrder.parse(amount=amount, address=address)
    with pytest.raises(QuoineInputError, match=words):
        rules.check(order)


def test_bounds_themselves_pass() -> None:
    rules = policy("*", largest="0.5", smallest="0.5")
    rules.check(WithdrawalOrder.parse(amount="0.50", address=SEGWIT))


# The fields of the connection


def test_the_fields_become_bounds() -> None:
    rules = read(**STATED, withdrawal_timezone="Asia/Tokyo")
    assert (rules.largest, rules.smallest) == (None, None)
    assert rules.in_24_hours == Cap(amount=Amount("2"), number=10)
    assert rules.per_day == Cap(amount=Amount("1.5"), number=None)
    assert rules.timezone == "Asia/Tokyo"


@pytest.mark.parametrize(
    ("missing", "label"),
    [
        ("withdrawal_max", "Largest withdrawal (BTC)"),
        ("withdrawal_max_24h", "Most in 24 hours (BTC)"),
        ("withdrawal_count_24h", "Withdrawals in 24 hours"),
        ("withdrawal_max_day", "Most per day (BTC)"),
        ("withdrawal_count_day", "Withdrawals per day"),
    ],
)
@pytest.mark.parametrize("left", [None, "", " "])
def test_an_empty_bound_allows_nothing(missing: str, label: str, left: str | None) -> None:
    fields: dict[str, Any] = {**STATED, missing: left}
    with pytest.raises(QuoineInputError) as caught:
        read(**fields)
    assert f"has no bound in '{label}'. An empty bound allows nothing" in str(caught.value)
    assert "Write a number such as 10 there, or unlimited." in str(caught.value)


def test_all_empty_bounds_are_named_at_once() -> None:
    with pytest.raises(QuoineInputError, match=r"'Largest withdrawal.*'Most in 24 hours.*'Withdrawals per day'"):
        read()


@pytest.mark.parametrize(
    ("field", "wrong", "words"),
    [
        ("withdrawal_max", "0x2", r"'Largest withdrawal \(BTC\)': '0x2' is no amount"),
        ("withdrawal_max_24h", "Unlimited", r"'Most in 24 hours \(BTC\)': 'Unlimited' is no amount"),
        ("withdrawal_max_day", "1e3", r"'Most per day \(BTC\)': '1e3' is no amount"),
        ("withdrawal_min", "-1", r"'Smallest withdrawal \(BTC\)': '-1' is no amount"),
        ("withdrawal_count_24h", "1.5", r"'Withdrawals in 24 hours': '1.5' is no number of withdrawals"),
        ("withdrawal_count_day", "٣", r"'Withdrawals per day': '٣' is no number of withdrawals"),
        ("withdrawal_timezone", "Moon", r"'Moon' in its field 'Time zone of the day', which is no time zone"),
    ],
)
def test_a_wrong_field_is_named_with_what_to_write(field: str, wrong: str, words: str) -> None:
    with pytest.raises(QuoineInputError, match=words) as caught:
        read(**{**STATED, field: wrong})
    assert "Nothing was sent." in str(caught.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"addresses": frozenset({LEGACY})},
        {"largest": Amount("1")},
        {"smallest": Amount("1")},
        {"in_24_hours": Cap(amount=Amount("1"), number=None)},
        {"in_24_hours": Cap(amount=None, number=1)},
        {"per_day": Cap(amount=Amount("1"), number=None)},
        {"per_day": Cap(amount=None, number=1)},
        {"timezone": "Asia/Tokyo"},
        {"network": Network.TEST},
    ],
)
def test_each_rule_is_in_the_fingerprint(changed: dict[str, Any]) -> None:
    assert replace(policy("*"), **changed).fingerprint != policy("*").fingerprint


# The caps


class Desk:
    """Pays by a policy at times that a test gives."""

    def __init__(self, folder: Path, rules: WithdrawalPolicy) -> None:
        self.rules = rules
        self.now = datetime.fromisoformat("2026-07-01T12:00:00+00:00")
        self.ledger = Ledger(open_file(folder / "ledger.db"), pin=Memory(), clock=lambda _: self.now)
        self._number = 0

    def send(self, amount: str, *, at: str | None = None, account: str = "25", step: Step = Step.SENT) -> None:
        """
        Pay an amount.

        :param at: ISO 8601.
        :param step: what becomes of it.
        """
        if at:
            self.now = datetime.fromisoformat(at)
        self._number += 1
        wanted = WithdrawalOrder.parse(amount=amount, address=SEGWIT)
        order = Order(
            exchange="https://exchange",
            kind=Kind.WITHDRAWAL,
            reference=f"invoice-{self._number}",
            account=account,
            amount=wanted.amount,
        )
        rules = replace(self.rules, account=account)
        self.ledger.prepare(order, actor="task")
        self.ledger.start_sending(
            order, attempt="a", task="task", in_flight=timedelta(0), allow=lambda at: rules.allow(wanted, at)
        )
        if step != Step.SENDING:
            self.ledger.finish(order, attempt="a", step=step)


MakeDesk = Callable[..., Desk]


@pytest.fixture
def desk(tmp_path: Path) -> MakeDesk:
    """Make a desk with caps of its own."""

    def make(**rules: Any) -> Desk:
        return Desk(tmp_path, replace(policy("*"), **rules))

    return make


def test_the_sum_is_capped_to_the_smallest_unit(desk: MakeDesk) -> None:
    payer = desk(in_24_hours=Cap(amount=Amount("1"), number=None))
    payer.send("0.7")
    with pytest.raises(QuoineInputError, match=r"exceed the 1 BTC .+ in 24 hours \(field 'Most in 24 hours") as caught:
        payer.send("0.30000001")
    assert "so far it is 0.7 BTC in 1 withdrawals. Nothing was sent." in str(caught.value)
    payer.send("0.3")


def test_the_number_is_capped(desk: MakeDesk) -> None:
    payer = desk(per_day=Cap(amount=None, number=2))
    payer.send("0.1")
    payer.send("0.1")
    with pytest.raises(QuoineInputError, match=r"2 withdrawals .+ per day in UTC \(field 'Withdrawals per day'"):
        payer.send("0.1")


def test_a_number_of_0_allows_nothing(desk: MakeDesk) -> None:
    with pytest.raises(QuoineInputError, match="exceed the 0 withdrawals"):
        desk(per_day=Cap(amount=None, number=0)).send("0.1")


def test_another_account_has_a_cap_of_its_own(desk: MakeDesk) -> None:
    payer = desk(in_24_hours=Cap(amount=Amount("1"), number=1))
    payer.send("1")
    payer.send("1", account="26")


@pytest.mark.parametrize(
    ("step", "counts"),
    [(Step.SENDING, True), (Step.UNKNOWN, True), (Step.SENT, True), (Step.REFUSED, False), (Step.PREPARED, False)],
)
def test_what_was_refused_or_not_sent_does_not_count(desk: MakeDesk, step: Step, counts: bool) -> None:
    payer = desk(in_24_hours=Cap(amount=Amount("1"), number=1))
    payer.send("1", step=step)
    if counts:
        with pytest.raises(QuoineInputError):
            payer.send("1")
    else:
        payer.send("1")


def test_the_24_hours_roll(desk: MakeDesk) -> None:
    payer = desk(in_24_hours=Cap(amount=Amount("1"), number=None))
    payer.send("0.5", at="2026-07-01T23:59:59+00:00")
    payer.send("0.5", at="2026-07-02T12:00:00+00:00")
    with pytest.raises(QuoineInputError):
        payer.send("0.5", at="2026-07-02T23:59:59+00:00")
    payer.send("0.5", at="2026-07-02T23:59:59.000001+00:00")
    with pytest.raises(QuoineInputError):
        payer.send("0.5", at="2026-07-03T11:59:59+00:00")


@pytest.mark.parametrize(
    ("timezone", "last", "first"),
    [
        ("UTC", "2026-07-01T23:59:59.999999+00:00", "2026-07-02T00:00:00+00:00"),
        ("Asia/Tokyo", "2026-07-01T14:59:59.999999+00:00", "2026-07-01T15:00:00+00:00"),
        # Days of 23 and of 25 hours.
        ("Europe/Berlin", "2026-03-29T21:59:59.999999+00:00", "2026-03-29T22:00:00+00:00"),
        ("Europe/Berlin", "2026-10-25T22:59:59.999999+00:00", "2026-10-25T23:00:00+00:00"),
    ],
)
def test_a_day_begins_at_midnight_in_the_zone(desk: MakeDesk, timezone: str, last: str, first: str) -> None:
    payer = desk(per_day=Cap(amount=Amount("1"), number=None), timezone=timezone)
    payer.send("1", at=last)
    payer.send("0.4", at=first)
    with pytest.raises(QuoineInputError, match="Most per day"):
        payer.send("0.7", at=(datetime.fromisoformat(first) + timedelta(hours=12)).isoformat())


@pytest.mark.parametrize(
    ("timezone", "moment", "start"),
    [
        ("Europe/Berlin", "2026-03-29T12:00:00+00:00", "2026-03-28T23:00:00+00:00"),
        ("Europe/Berlin", "2026-10-25T23:30:00+01:00", "2026-10-24T22:00:00+00:00"),
        # Midnight comes twice: the clock is put back from 01:00 to 00:00.
        ("Atlantic/Azores", "2026-10-25T00:30:00+00:00", "2026-10-25T00:00:00+00:00"),
        ("Atlantic/Azores", "2026-10-25T01:30:00+00:00", "2026-10-25T00:00:00+00:00"),
        # There is no midnight: the clock is put forward from 00:00 to 01:00.
        ("Africa/Cairo", "2026-04-24T12:00:00+00:00", "2026-04-23T22:00:00+00:00"),
        # The last hour of the day comes twice.
        ("America/Sao_Paulo", "2018-02-18T02:30:00+00:00", "2018-02-17T02:00:00+00:00"),
    ],
)
def test_the_day_where_the_clock_is_put_on_or_back(timezone: str, moment: str, start: str) -> None:
    assert start_of_day(datetime.fromisoformat(moment), timezone) == datetime.fromisoformat(start)


def test_a_payment_in_doubt_that_a_person_holds_still_counts(tmp_path: Path) -> None:
    payer = Desk(tmp_path, replace(policy("*"), in_24_hours=Cap(amount=Amount("1"), number=None)))
    payer.send("1", step=Step.UNKNOWN)
    (doubt,) = payer.ledger.all()
    payer.ledger.hold(doubt.order, who="ann", why="nobody sends it while I look")
    with pytest.raises(QuoineInputError, match="exceed the 1 BTC"):
        payer.send("1")
    # It is there: with the second one, 2 BTC were paid within seconds.
    payer.ledger.exists(doubt.order, exchange_id="20", who="ann", why="found it")


def test_what_is_paid_by_hand_counts_when_it_is_paid(tmp_path: Path) -> None:
    payer = Desk(tmp_path, replace(policy("*"), in_24_hours=Cap(amount=Amount("1"), number=None)))
    payer.send("1", step=Step.REFUSED, at="2026-07-01T12:00:00+00:00")
    (refused,) = payer.ledger.all()
    payer.now += timedelta(hours=30)
    payer.ledger.hold(refused.order, who="ann", why="paid at the bank's page")
    payer.ledger.exists(refused.order, exchange_id="20", who="ann", why="paid a minute ago")
    with pytest.raises(QuoineInputError, match="exceed the 1 BTC"):
        payer.send("1", at="2026-07-02T18:00:01+00:00")


@pytest.mark.parametrize("zone", ["Asia", "a" * 5000])
def test_a_time_zone_that_is_a_folder_or_too_long_is_named(zone: str) -> None:
    with pytest.raises(QuoineInputError, match="Time zone of the day"):
        read(**STATED, withdrawal_timezone=zone)
