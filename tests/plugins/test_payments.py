"""The pages of payments, for real users of Airflow's, over the ledger and the tables of a real Airflow."""

from __future__ import annotations

import html
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.base_auth_manager import BaseAuthManager
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

from airflow_provider_quoine.desk import overview, settling
from airflow_provider_quoine.desk.tasks import Task
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.records import Event, History, Order, Payment
from airflow_provider_quoine.payments.schema import Kind, Step
from airflow_provider_quoine.payments.users import user_reference
from airflow_provider_quoine.payments.withdrawals import WithdrawalPayment
from airflow_provider_quoine.plugins.payments import payment_path
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.plugins.browser import Person
from tests.support.one_task import ADDRESS, OneTask, ledger_of_tests, payments_cli, set_connection, undo_edits

pytestmark = pytest.mark.usefixtures("airflow_database")

POST = "POST /btc_withdrawals/"
HOSTILE = (
    "a/../../b",
    "1..",
    "100%25 of x?y=1&z#top",
    "z<script>alert(1)</script>",
    """q"'`><b onclick=x>""",
    "x+y%2Fz%00",
    "\u8acb\u6c42\u66f8-\u5341 {{ 7*7 }} {% raw %}",
    "a" * 200,
)


@pytest.fixture(autouse=True)
def all_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests leave unknown outcomes in the ledger of this process, and the page shows the oldest only."""
    monkeypatch.setattr(overview, "MOST_WAITING", 10_000)


@pytest.fixture
def task(exchange: SandboxControl, payer: str) -> OneTask:
    """A withdrawal that waits for its code."""
    task = OneTask("authorize", user_id=payer, amount="0.5", address=ADDRESS, started_by="dora")
    task.step()
    return task


@pytest.fixture
def lost(exchange: SandboxControl, payer: str, task: OneTask) -> Iterator[OneTask]:
    """A withdrawal that the exchange has, and whose answer was lost a while ago."""
    exchange.fault("drop_after", POST)
    assert task.answer("Send", exchange.latest_code(payer)).state == "failed"
    task.end_in_flight_time()
    yield task
    undo_edits()


def new_order(ledger: Ledger, reference: str) -> Order:
    """Begin a payment without a task."""
    order = Order(
        exchange="https://exchange.example/v1",
        kind=Kind.WITHDRAWAL,
        reference=reference,
        account=f"account-{uuid.uuid4().hex}",
        address=ADDRESS,
    )
    ledger.prepare(order, actor="somebody")
    return order


def words_of(page: Any) -> str:
    """The text of a page, as a person reads it."""
    without_tags = re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<head>.*?</head>", "", page.text))
    return re.sub(r"\s+", " ", html.unescape(without_tags))


def waiting(person: str) -> str:
    """What waits for a person."""
    page = Person(person).get("/payments")
    assert page.status_code == 200
    return words_of(page).partition("What waits for you")[2].partition(" Caps ")[0]


def decide(person: str, decision: str, payment: Payment | None, **fields: str) -> Any:
    """Open a payment's page and send one of its forms."""
    assert payment is not None
    order = payment.order
    named = {"reference": order.reference, "kind": str(order.kind), "exchange": order.exchange}
    return Person(person).send(payment_path(order), f"/payments/{decision}", **{"why": "seen", **named, **fields})


def test_a_payment_is_shown_with_all_that_happened(lost: OneTask) -> None:
    payment = lost.payment()
    assert payment is not None
    page = Person("viewer").get(payment_path(payment.order))
    words = words_of(page)
    for told in (lost.reference, "unknown", "0.5 BTC", ADDRESS, lost.run_id, "dora", "typed the code and chose Send"):
        assert told in words
    # The time in which the request may be under way was ended by the test, which is an edit.
    assert "in_doubt_until was edited" in words
    undo_edits()
    assert "The chain is whole for this payment" in words_of(Person("viewer").get(payment_path(payment.order)))
    assert "<form" not in page.text


def test_the_list_names_who_asked_and_who_typed_the_code(lost: OneTask) -> None:
    page = Person("viewer").get("/payments", params={"reference": lost.reference})
    words = words_of(page).partition("All payments")[2]
    for told in ("1 payment, the newest first", lost.reference, "unknown", "0.5", ADDRESS, "dora", "Anonymous"):
        assert told in words
    named = Task.named(str(lost.payment() and lost.payment().task))  # type: ignore[union-attr]
    assert named is not None
    assert f'data-airflow href="{named.run_path}"' in page.text


def test_who_asked_is_known_after_the_run_was_deleted(lost: OneTask) -> None:
    """As Airflow's clean-up of old runs does."""
    payment = lost.payment()
    assert payment is not None
    lost.delete_run()
    assert "Asked by dora" in words_of(Person("viewer").get(payment_path(payment.order)))
    assert "dora" in words_of(Person("viewer").get("/payments", params={"reference": lost.reference}))


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({"step": "prepared"}, True),
        ({"step": "sent"}, False),
        ({"kind": "user"}, False),
        ({"first": "2026-01-01"}, True),
        ({"last": "2026-01-01"}, False),
        ({"first": "2026-01-01", "last": "9999-12-31"}, None),
        ({"first": "yesterday"}, None),
        ({"page": "2"}, False),
        ({"page": "0"}, None),
        ({"page": "x"}, None),
        ({"step": "'; DROP TABLE quoine_payments; --"}, False),
        ({"step": "\x00"}, False),
    ],
)
def test_the_list_is_filtered(params: dict[str, str], found: bool | None) -> None:
    ledger = ledger_of_tests()
    order = new_order(ledger, f"Filtered-{uuid.uuid4().hex}")
    answer = Person("viewer").get("/payments", params={"reference": order.reference.upper(), **params})
    assert answer.status_code == (422 if found is None else 200)
    if found is not None:
        assert (payment_path(order).replace("&", "&amp;") in answer.text) is found


def test_a_new_user_is_found_by_an_e_mail_address_that_is_in_no_log() -> None:
    ledger, email = ledger_of_tests(), f"{uuid.uuid4().hex}@example.com"
    user = replace(new_order(ledger, uuid.uuid4().hex), kind=Kind.USER, reference=user_reference(ledger, email))
    ledger.prepare(user, actor="somebody")
    found = Person("viewer").send("/payments", "/payments/filter", reference=f" {email.upper()}", step="prepared")
    location = found.headers["location"]
    assert (found.status_code, "example" in location.casefold()) == (303, False)
    listed = Person("viewer").get(location.removeprefix("/quoine")).text
    assert "1 payment, the newest first" in listed
    assert payment_path(user).replace("&", "&amp;") in listed


@pytest.mark.parametrize("reference", HOSTILE)
def test_any_reference_has_a_page_and_changes_nothing_on_it(reference: str) -> None:
    ledger = ledger_of_tests()
    order = new_order(ledger, reference)
    listed = Person("admin").get("/payments", params={"reference": reference})
    # Payments of other tests may be on the page too.
    assert html.escape(payment_path(order)) in listed.text
    page = Person("admin").get(payment_path(order))
    assert page.status_code == 200
    assert reference in html.unescape(page.text)
    assert "<script>alert" not in listed.text + page.text
    assert "<b onclick" not in listed.text + page.text
    held = decide("admin", "hold", ledger.find(order), why=f"{reference}<img src=x>")
    assert held.status_code == 303
    shown = Person("admin").get(held.headers["location"].removeprefix("/quoine"))
    assert "<img" not in shown.text
    found = ledger.find(order)
    assert found is not None
    assert found.step == Step.HELD
    assert decide("admin", "release", found).status_code == 303


def test_what_is_decided_on_the_page_the_command_line_shows(
    lost: OneTask, exchange: SandboxControl, capsys: pytest.CaptureFixture[str]
) -> None:
    (withdrawal,) = exchange.state()["withdrawals"]
    assert decide("op", "hold", lost.payment()).status_code == 303
    assert lost.stands() == Step.HELD
    assert decide("op", "release", lost.payment()).status_code == 303
    assert lost.stands() == Step.UNKNOWN
    told = decide("op", "exists", lost.payment(), exchange_id=str(withdrawal["id"]), conn_id="quoine_default")
    assert told.status_code == 303
    assert (lost.stands(), lost.events()[-3:]) == (Step.SENT, ["held", "released", "exists"])
    capsys.readouterr()
    lost.cli("show")
    shown = capsys.readouterr().out
    assert shown.count("by op as user op of Airflow's page") == 3
    lost.clear()
    assert lost.step().state == "success"
    assert len(exchange.state()["withdrawals"]) == 1
    assert "has gone on with that" in words_of(decide("op", "exists", lost.payment(), exchange_id="4999"))


def test_an_id_is_compared_with_the_exchange_and_what_was_typed_is_kept(
    lost: OneTask, exchange: SandboxControl
) -> None:
    key = {"conn_id": "quoine_default", "credentials_variable": "user_key"}
    refused = decide("admin", "exists", lost.payment(), exchange_id="4999", why="my words", **key)
    assert (refused.status_code, lost.stands()) == (409, Step.UNKNOWN)
    assert "Without a connection the id is recorded as it is" in words_of(refused)
    assert 'value="my words"' in refused.text
    assert 'value="4999"' in refused.text
    assert decide("admin", "exists", lost.payment(), exchange_id="4999").status_code == 303
    assert lost.stands() == Step.SENT
    (withdrawal,) = exchange.state()["withdrawals"]
    compared, not_compared = "Amount and address are the same at the exchange", "was not compared with the exchange"
    payment = lost.payment()
    assert payment is not None
    path = payment_path(payment.order)
    words = words_of(Person("viewer").get(path))
    assert f"A person has recorded 4999. It {not_compared}" in words
    assert compared not in words
    assert decide("admin", "exists", payment, exchange_id=str(withdrawal["id"]), **key).status_code == 303
    words = words_of(Person("viewer").get(path))
    assert compared in words
    assert "A person has recorded" not in words
    assert "Its task goes on once somebody clears it: " in words
    lost.clear()
    assert lost.step().state == "success"
    assert "once somebody clears it" not in words_of(Person("viewer").get(path))


def test_an_answer_with_another_id_than_a_person_has_recorded_is_told(
    exchange: SandboxControl, payer: str, task: OneTask
) -> None:
    """Somebody records another withdrawal while the request is on its way: the payment may be there twice."""
    ledger = ledger_of_tests()
    payment = task.payment()
    assert payment is not None
    ledger.start_sending(
        payment.order, attempt="a", task=payment.task, in_flight=timedelta(0), allow=lambda _: "policy"
    )
    other, its_own = uuid.uuid4().int >> 70, uuid.uuid4().int >> 70
    assert decide("op", "exists", payment, exchange_id=str(other)).status_code == 303
    assert not ledger.finish(payment.order, attempt="a", step=Step.SENT, exchange_id=str(its_own))
    assert f"Paid twice? {task.reference}" in waiting("op")
    page = words_of(Person("viewer").get(payment_path(payment.order)))
    assert f"It may be paid twice: the exchange has answered with id {its_own} after a person had settled it" in page
    # The person who typed the code is told the same on Airflow's page.
    sent = WithdrawalPayment(
        hook=QuoineHook(credentials_variable="user_key"),
        reference=task.reference,
        user_id=payer,
        amount="0.5",
        address=ADDRESS,
        task="task",
    )
    assert (
        sent.outcome() == f"it may be paid twice: as withdrawal {its_own}, and as {other}, which a person has recorded"
    )
    assert decide("op", "exists", payment, exchange_id=str(its_own)).status_code == 303
    assert f"Paid twice? {task.reference}" not in waiting("op")
    assert "paid twice" not in words_of(Person("viewer").get(payment_path(payment.order)))


def test_a_held_payment_that_the_exchange_has_taken_waits_for_a_person(task: OneTask) -> None:
    """Whoever holds it is about to pay it by hand, and its attempt comes back with the exchange's answer."""
    ledger, payment = ledger_of_tests(), task.payment()
    assert payment is not None
    ledger.start_sending(
        payment.order, attempt="a", task=payment.task, in_flight=timedelta(minutes=-1), allow=lambda _: "policy"
    )
    assert decide("op", "hold", payment).status_code == 303
    assert f"Paid twice? {task.reference}" not in waiting("op")
    late_id = str(uuid.uuid4().int >> 70)
    assert not ledger.finish(payment.order, attempt="a", step=Step.SENT, exchange_id=late_id)
    assert f"Paid twice? {task.reference}" in waiting("op")
    assert decide("op", "exists", payment, exchange_id=late_id).status_code == 303
    assert f"Paid twice? {task.reference}" not in waiting("op")


def test_a_comparison_does_not_wait_until_the_exchange_takes_requests_again(
    lost: OneTask, exchange: SandboxControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exchange has answered 429, which pauses all requests for minutes."""
    monkeypatch.setattr(settling, "PATIENCE", 0.2)
    (withdrawal,) = exchange.state()["withdrawals"]
    exchange.fault("status", "GET /btc_withdrawals/:id", status=429, body="API rate limit exceeded.")
    key = {"conn_id": "quoine_default", "credentials_variable": "user_key"}
    told = decide("op", "exists", lost.payment(), exchange_id=str(withdrawal["id"]), **key)
    assert (told.status_code, lost.stands()) == (303, Step.SENT)


@pytest.mark.parametrize(("field", "text"), [("why", " "), ("exchange_id", "5001/../1"), ("conn_id", "nowhere")])
def test_what_cannot_be_written_is_refused_in_words(lost: OneTask, field: str, text: str) -> None:
    refused = decide("admin", "exists", lost.payment(), **{"exchange_id": "4999", field: text})
    assert (refused.status_code, lost.stands()) == (409, Step.UNKNOWN)
    assert {"why": "A reason is needed", "exchange_id": "is no id", "conn_id": "nowhere"}[field] in words_of(refused)


def test_a_payment_that_no_task_has_begun_is_held(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", "postgres://ann@host/payments")
    task = OneTask("authorize", user_id=payer, amount="0.5", address=ADDRESS)
    key = {"conn_id": "quoine_default", "credentials_variable": "user_key", "user_id": payer}
    form = {"reference": task.reference, "amount": "0.50", "address": ADDRESS, "why": "my words", **key}
    op = Person("op")
    for wrong, words in (
        ({"amount": "0x2"}, "0x2"),
        ({"address": "1Nowhere"}, "checksum does not fit"),
        ({"conn_id": "nowhere"}, "nowhere"),
        # It would be held for another exchange, and the task would not find it held.
        ({"conn_id": "ledger"}, "'ledger' is of type postgres, not quoine"),
        ({"why": " "}, "A reason is needed"),
    ):
        refused = op.send("/payments/unbegun", "/payments/unbegun", **form | wrong)
        assert (refused.status_code, task.payment()) == (409, None)
        assert words in words_of(refused)
        assert f'value="{task.reference}"' in refused.text
    # The ledger has a reference in one form only, however it is typed.
    held = op.send(
        "/payments/unbegun", "/payments/unbegun", **form | {"reference": task.reference.replace("-", "\uff0d")}
    )
    payment = task.payment()
    assert payment is not None
    assert (held.status_code, payment.step) == (303, Step.HELD)
    assert held.headers["location"].endswith(payment_path(payment.order))
    end = task.step()
    assert (end.state, "held" in end.words) == ("failed", True)
    assert exchange.state()["withdrawals"] == []


def test_two_people_say_that_an_approved_payment_does_not_exist(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection(monkeypatch, withdrawal_approvals=1)
    reference = f"test-{uuid.uuid4().hex}"
    order = {"payment_reference": reference, "amount": "0.5", "address": ADDRESS, "user_id": payer}
    asking = OneTask("approve", started_by="dora", **order)
    asking.step()
    assert asking.answer("Approve", person="carol").state == "success"
    paying = OneTask("authorize", started_by="dora", **order)
    paying.step()
    exchange.fault("drop_before", POST)
    paying.answer("Send", exchange.latest_code(payer))
    assert paying.stands() == Step.UNKNOWN
    paying.end_in_flight_time()
    assert f"Unknown outcome {reference}" in waiting("op")
    assert reference not in waiting("user")

    assert decide("op", "absent", paying.payment()).status_code == 303
    assert paying.stands() == Step.UNKNOWN
    assert f"Confirm: not at the exchange {reference}" in waiting("admin")
    assert f"Waits for a second person {reference}" in waiting("op")
    assert decide("op", "absent", paying.payment()).status_code == 303
    assert paying.stands() == Step.UNKNOWN

    assert decide("admin", "absent", paying.payment()).status_code == 303
    assert paying.stands() == Step.PREPARED
    assert reference not in waiting("admin")
    listed = words_of(Person("viewer").get("/payments", params={"reference": reference}))
    assert "carol" in listed.partition("All payments")[2]


def test_questions_wait_for_those_who_may_answer_them(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection(monkeypatch, withdrawal_approvals=2)
    # Where everybody is an admin without a password, Airflow lets everybody answer.
    monkeypatch.setattr(SimpleAuthManager, "is_authorized_hitl_task", BaseAuthManager.is_authorized_hitl_task)
    reference = f"test-{uuid.uuid4().hex}"
    order = {"payment_reference": reference, "amount": "0.5", "address": ADDRESS, "user_id": payer}
    asking = OneTask("approve", started_by="user", **order)
    asking.step()
    question = f"Approval Approve a withdrawal of 0.5 BTC? payment {reference}"
    assert question in waiting("op")
    assert reference not in waiting("viewer")
    # Who has started the run cannot approve.
    assert reference not in waiting("user")
    page = Person("op").get("/payments").text
    assert f"/dags/approve/runs/{asking.run_id}/tasks/task/required_actions".replace(":", "%3A").replace(
        "+", "%2B"
    ) in page.replace("&#43;", "+")
    asking.answer("Approve", person="op")
    again = OneTask("approve", started_by="user", **order)
    again.step()
    # Nor does anybody approve twice.
    assert reference not in waiting("op")
    assert question in waiting("admin")
    for_carol = OneTask("approve_by_carol", started_by="user", **order)
    for_carol.step()
    assert waiting("admin").count(reference) == 1


def test_who_has_asked_for_a_payment_in_any_run_is_not_asked_to_approve_it(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection(monkeypatch, withdrawal_approvals=2)
    reference = f"test-{uuid.uuid4().hex}"
    order = {"payment_reference": reference, "amount": "0.5", "address": ADDRESS, "user_id": payer}
    asking = OneTask("approve", started_by="user", **order)
    asking.step()
    assert asking.answer("Approve", person="op").state == "success"
    payment = asking.payment()
    assert payment is not None
    assert "Approved by op Task" in words_of(Person("viewer").get(payment_path(payment.order)))
    for person in ("op", "admin"):
        OneTask("authorize", started_by=person, **order).step()
    OneTask("approve", started_by="user", **order).step()
    assert reference not in waiting("admin")
    words = words_of(Person("viewer").get(payment_path(payment.order)))
    assert "Approved by op (does not count: started a run for this payment)" in words
    assert "admin started a run for it." in words


def test_a_code_that_is_asked_for_waits(task: OneTask) -> None:
    assert f"Code Withdraw 0.5 BTC? payment {task.reference}" in waiting("user")


def test_settling_wipes_typed_codes(exchange: SandboxControl, task: OneTask, payer: str) -> None:
    from tests.support.leaks import cells, find
    from tests.support.one_task import database

    code = uuid.uuid4().hex[:12]
    assert task.answer("Send", exchange.latest_code(payer)).state == "success"
    task.type_in("Send", code)
    assert find({"code": code}, cells(database()))
    assert decide("admin", "hold", task.payment()).status_code == 409
    assert find({"code": code}, cells(database())) == set()


def test_payments_are_stopped_and_go_on(task: OneTask, exchange: SandboxControl, payer: str) -> None:
    assert Person("op").send("/payments", "/payments/stop", why=" ").status_code == 422
    assert "Payments are allowed" in words_of(Person("viewer").get("/payments"))
    assert Person("op").send("/payments", "/payments/stop", why="a key <was> stolen").status_code == 303
    try:
        words = words_of(Person("viewer").get("/payments"))
        end = task.answer("Send", exchange.latest_code(payer))
    finally:
        assert Person("admin").send("/payments", "/payments/resume", why="it was found").status_code == 303
    assert "by op as user op of Airflow's page: a key <was> stolen" in words
    assert (end.state, exchange.state()["withdrawals"]) == ("failed", [])
    assert "Payments are allowed" in words_of(Person("viewer").get("/payments"))


def test_caps_and_what_is_used_of_them(
    exchange: SandboxControl, payer: str, task: OneTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection(monkeypatch, withdrawal_max_24h="2", withdrawal_count_24h="7", withdrawal_timezone="Asia/Tokyo")
    task.answer("Send", exchange.latest_code(payer))
    payment = task.payment()
    assert payment is not None
    words = words_of(Person("viewer").get("/payments")).partition(" Caps ")[2].partition("All payments")[0]
    assert re.search(rf"{payment.order.account} quoine_default 24 hours since [-\d]+ [:\d]+ UTC [\d.]+ 2 \d+ 7 ", words)
    assert re.search(r"today in Asia/Tokyo since [-\d]+ 15:00:00 UTC [\d.]+ unlimited \d+ unlimited", words)
    set_connection(monkeypatch, withdrawal_max_24h="")
    assert "has no bound in 'Most in 24 hours (BTC)'" in words_of(Person("viewer").get("/payments"))


def test_a_payment_that_there_is_not_is_named_as_such() -> None:
    for path in ("/payments/payment?reference=no<such>", "/payments/payment?reference=%00"):
        answer = Person("viewer").get(path, headers={"Accept": "text/html"})
        assert answer.status_code == 404
        assert "There is no payment" in words_of(answer)
        assert "<such>" not in answer.text
    assert Person("viewer").get("/payments/payment?reference=x&kind=y").status_code == 422


@pytest.mark.parametrize(
    ("pinned", "told"),
    [
        ('{"identity": "another", "number": 1, "hash": "x"}', "is not the one that this Airflow's payments are in"),
        ('{"identity": "SAME", "number": 999999999, "hash": "x"}', "This ledger is older than what Airflow has seen"),
        ("{}", "is not as this provider wrote it"),
    ],
)
def test_a_ledger_that_cannot_be_used_is_told(pinned: str, told: str) -> None:
    from airflow.models.variable import Variable

    from airflow_provider_quoine.payments.configuration import PIN

    ledger = ledger_of_tests()
    order = new_order(ledger, f"test-{uuid.uuid4().hex}")
    found, identity, before = ledger.find(order), ledger.identity, Variable.get(PIN, default_var=None)
    Variable.set(PIN, pinned.replace("SAME", identity))
    try:
        pages = [Person("admin").get(path) for path in ("/payments", payment_path(order))]
        fields = {"token": Person("admin").token, "why": "x", "reference": order.reference, "kind": "withdrawal"}
        for decision in ("stop", "hold"):
            data = {**fields, "exchange": order.exchange}
            pages.append(Person("admin").request("POST", f"/payments/{decision}", data=data))
    finally:
        Variable.set(PIN, before) if before else Variable.delete(PIN)
    assert {page.status_code for page in pages} == {503}
    assert all(told in words_of(page) for page in pages)
    assert ledger.find(order) == found


def test_a_ledger_that_is_out_of_reach_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__QUOINE__LEDGER_CONN_ID", "payments_db")
    monkeypatch.setenv("AIRFLOW_CONN_PAYMENTS_DB", "postgres://ann:secret@127.0.0.1:1/payments")
    page = Person("admin").get("/payments")
    assert page.status_code == 503
    assert "cannot be reached, or it failed" in words_of(page)
    assert "secret" not in page.text


def test_what_was_decided_by_command_the_page_shows(task: OneTask) -> None:
    payments_cli("hold", task.reference, "--why", "by command")
    payment = task.payment()
    assert payment is not None
    assert "by command" in words_of(Person("viewer").get(payment_path(payment.order)))


def test_a_payment_that_was_never_in_doubt_is_held_again_and_not_said_to_be_absent(exchange: SandboxControl) -> None:
    ledger = ledger_of_tests()
    reference = f"test-{uuid.uuid4().hex}"
    path = payment_path(new_order(ledger, reference))
    (payment,) = ledger.named(reference, Kind.WITHDRAWAL)
    assert decide("op", "hold", payment).status_code == 303
    assert decide("op", "exists", payment, exchange_id="77").status_code == 303
    page = Person("op").get(path).text
    assert ("/payments/hold" in page, "/payments/absent" in page) == (True, False)
    assert decide("op", "absent", payment).status_code == 409


def test_nothing_is_taken_back_where_what_was_before_is_not_known() -> None:
    """Somebody may have removed events by other means, and the page has to say so."""
    only = Event(number=1, at=datetime.now(UTC), event="exists", actor="ann", data={"exchange_id": "77"})
    assert not History([only]).may_be_taken_back
