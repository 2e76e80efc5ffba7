"""A person's whole way through the desk, in a real browser: each step as people do it, on Airflow's page."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import NARROW, Desk, shoot
from tests.browser.steps import add_connection, answer, our_page, press_test, start_run, switch_off, violations
from tests.support.leaks import cells, contents, find
from tools.airflow_api import ENDED, wait_for
from tools.sandbox import ADDRESS

pytestmark = pytest.mark.timeout(900)

ONBOARD, WITHDRAW, SNAPSHOT = "quoine_onboard_applicant", "quoine_withdraw_bitcoin", "quoine_order_book_snapshot"
POLICY = {
    "Withdrawal addresses": ADDRESS,
    "Largest withdrawal (BTC)": "1",
    "Most in 24 hours (BTC)": "5",
    "Withdrawals in 24 hours": "50",
    "Most per day (BTC)": "5",
    "Withdrawals per day": "50",
    "Approvals": "2",
}
APPLICANT = {
    "First name": "Tarohiko",
    "Last name": "Yamadanaka",
    "E-mail": "tarohiko.yamadanaka@example.com",
    "Phone": "+819087654321",
}
DOCUMENTS = {"Id document": "id_document", "Proof of address": "proof_address", "Bank statement": "bank_statement"}
#: How many colours a canvas has.
COLOURS_OF = """it => {
    const drawn = it.getContext('2d').getImageData(0, 0, it.width, it.height);
    return new Set(new Uint32Array(drawn.data.buffer)).size;
}"""


@pytest.fixture(scope="module")
def user_id(desk: Desk) -> str:
    """Make the connection and onboard a user, all on Airflow's page; return the user's id."""
    make_the_connection(desk)
    return onboard(desk)


def test_an_approved_withdrawal_and_a_wrong_code(desk: Desk, user_id: str) -> None:
    run_id = withdraw(desk, user_id, "invoice-2026/115", "0.5")
    first = until_it_waits(desk, run_id, "approve_1")
    with desk.person("second") as page:
        frame = our_page(page, desk.airflow.url, "Payments")
        shoot(page, "payments-waiting")
        # From our page into Airflow's own.
        frame.get_by_role("link", name="Approve a withdrawal of 0.5 BTC?").click()
        expect(page.get_by_role("button", name="Approve")).to_be_visible()
        answer(page, desk.airflow.url, first, "Approve")
    with desk.person("user") as page:
        answer(page, desk.airflow.url, until_it_waits(desk, run_id, "approve_2"), "Approve")
    task = until_it_waits(desk, run_id, "authorize_withdrawal")
    with desk.person("op") as page:
        answer(page, desk.airflow.url, task, "Send", code="0" * 12)
        until_it_waits(desk, run_id, "authorize_withdrawal", times=2)
        answer(page, desk.airflow.url, task, "Send", code=latest_code(desk, user_id), before="wrong-code")
    assert ended(desk, WITHDRAW, run_id) == "success"
    (withdrawal,) = desk.sandbox.control.state()["withdrawals"]
    with desk.person("op") as page:
        page.goto(f"{desk.airflow.url}/dags/{WITHDRAW}/runs/{run_id}/tasks/authorize_withdrawal/required_actions")
        expect(page.get_by_text(f"sent as withdrawal {withdrawal['id']}").or_(has_value(page))).to_be_visible()
        shoot(page, "answer")
    with desk.person("viewer") as page:
        frame = our_page(page, desk.airflow.url, "Payments")
        frame.get_by_role("link", name="invoice-2026/115").click()
        expect(frame.get_by_role("heading", level=1)).to_have_text("Payment invoice-2026/115")
        for words in ("sent", "processed", "second, user", "op typed the code", "The chain is whole"):
            expect(frame.get_by_role("main")).to_contain_text(words)
        # Who may only look has nothing to press.
        expect(frame.get_by_role("main").get_by_role("button")).to_have_count(0)
        shoot(page, "payment")


def has_value(page: Page) -> Any:
    """The field in which Airflow's page shows what became of an answer."""
    return page.locator("input[value*='sent as withdrawal'], textarea:has-text('sent as withdrawal')").first


def test_an_unknown_outcome_is_settled_on_the_page(desk: Desk, user_id: str) -> None:
    run_id = withdraw(desk, user_id, "invoice-2026-116", "0.25")
    for number, name in enumerate(("second", "user"), start=1):
        with desk.person(name) as page:
            answer(page, desk.airflow.url, until_it_waits(desk, run_id, f"approve_{number}"), "Approve")
    task = until_it_waits(desk, run_id, "authorize_withdrawal")
    # The exchange carries it out, and its answer is lost.
    desk.sandbox.control.fault("drop_after", "POST /btc_withdrawals/")
    with desk.person("op") as page:
        answer(page, desk.airflow.url, task, "Send", code=latest_code(desk, user_id))
        assert ended(desk, WITHDRAW, run_id) == "failed"
        (lost,) = [each for each in desk.sandbox.control.state()["withdrawals"] if each["amount"] == "0.25"]
        frame = our_page(page, desk.airflow.url, "Payments")
        expect(frame.get_by_role("main")).to_contain_text("Unknown outcome")
        shoot(page, "payments-unknown")
        frame.get_by_role("link", name="invoice-2026-116").first.click()
        form = frame.locator("form", has=frame.get_by_role("button", name="Record that it exists"))
        form.get_by_label("Id at the exchange").fill(str(lost["id"]))
        form.get_by_label("Why").fill("Seen on the exchange's page")
        form.get_by_role("button", name="Record that it exists").click()
        expect(frame.get_by_role("main")).to_contain_text("Seen on the exchange's page")
        shoot(page, "payment-settled")
    desk.airflow.api.call(
        "POST", f"dags/{WITHDRAW}/clearTaskInstances", {"dag_run_id": run_id, "dry_run": False, "only_failed": True}
    )
    assert ended(desk, WITHDRAW, run_id) == "success"
    assert len([each for each in desk.sandbox.control.state()["withdrawals"] if each["amount"] == "0.25"]) == 1


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_book_is_drawn(desk: Desk, user_id: str, colours: str) -> None:
    api = desk.airflow.api
    api.unpause(SNAPSHOT)
    run_id = api.trigger(SNAPSHOT, {"pair": "btcjpy"})
    assert ended(desk, SNAPSHOT, run_id) == "success"
    with desk.person("viewer", color_scheme=colours) as page:
        page.goto(f"{desk.airflow.url}/dags/{SNAPSHOT}/runs/{run_id}/tasks/snapshot")
        page.get_by_role("link", name="Order book").click()
        frame = page.frame_locator('iframe[title="Order book"]')
        expect(frame.get_by_role("heading", level=1)).to_have_text("Order book of btcjpy")
        canvas = frame.locator("#depth-chart canvas")
        expect(canvas).to_be_visible()
        shoot(page, f"order-book-{colours}")
        drawn = canvas.evaluate(COLOURS_OF)
        assert drawn > 10, "the chart has more than a ground and a line"


@pytest.mark.parametrize("path", ["/payments", "/applicants", "/applicants/new"])
def test_pages_can_be_used_by_everybody(desk: Desk, user_id: str, path: str) -> None:
    for options in ({"color_scheme": "light"}, {"color_scheme": "dark", "viewport": NARROW}):
        with desk.person("op", **options) as page:
            page.goto(f"{desk.airflow.url}/quoine{path}")
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            assert violations(page) == []
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "no scrolling sideways"
            shoot(page, f"{path.strip('/').replace('/', '-')}-{options['color_scheme']}")
            # By keyboard alone: the first key leads to the content, and the next ones through it.
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.textContent") == "Skip to the content"


def test_nothing_secret_or_personal_is_anywhere(desk: Desk, user_id: str) -> None:
    variables = desk.airflow.variables()
    key = json.loads(variables[f"quoine_user_{user_id}_api_secret"])
    secrets = {"user's key": key["api_secret"], "vendor's key": desk.sandbox.vendor_secret, **APPLICANT}
    secrets |= {f"password {name}": value for name, value in variables.items() if name.startswith("quoine_password_")}
    secrets |= {f"code {number}": sent["code"] for number, sent in enumerate(desk.sandbox.control.auth_codes())}
    assert len(secrets) >= 9
    assert find(secrets, cells(desk.airflow.database)) == set()
    assert find(secrets, contents(desk.airflow.home)) == set()


def test_the_browser_had_no_complaints(desk: Desk, user_id: str) -> None:
    assert desk.complaints == []


def make_the_connection(desk: Desk) -> None:
    connection: dict[str, Any] = desk.sandbox.connection
    extra, airflow = connection["extra"], desk.airflow.url
    standard = {
        "Base URL": connection["host"],
        "API id": connection["login"],
        "API secret": connection["password"],
        "Port (Test needs one)": "0",
    }
    stream = {f"Pusher {name}": str(extra[f"pusher_{name}"]) for name in ("key", "host", "port")}
    with desk.person("op") as page:
        add_connection(page, airflow, standard, {"Withdrawal policy": POLICY, "Market stream": stream})
        # The sandbox's stream is not encrypted, and the form has encryption on.
        assert "The market stream at" in press_test(page, airflow)
        switch_off(page, airflow, "Market stream", "Pusher TLS")
        said = press_test(page, airflow)
        shoot(page, "connection")
    assert re.search("accepts the key.*policy is complete.*stream answers", said)


def onboard(desk: Desk) -> str:
    """Send a form with three documents; the exchange approves; return the user's id."""
    desk.airflow.api.unpause(ONBOARD)
    with desk.person("op") as page:
        frame = our_page(page, desk.airflow.url, "Applicants")
        frame.get_by_role("link", name="New applicant").click()
        for label, value in APPLICANT.items():
            frame.get_by_label(label, exact=True).fill(value)
        frame.get_by_label("Country").select_option("JP")
        for label, name in DOCUMENTS.items():
            frame.get_by_label(label, exact=True).set_input_files(desk.documents[name])
        shoot(page, "new-applicant")
        frame.get_by_role("button", name="Store and send").click()
        expect(frame.get_by_role("heading", level=1)).to_contain_text("Applicant ")
        (run,) = desk.airflow.api.call("GET", f"dags/{ONBOARD}/dagRuns")["dag_runs"]
        assert ended(desk, ONBOARD, run["dag_run_id"]) == "success"
        frame = our_page(page, desk.airflow.url, "Applicants")
        expect(frame.get_by_role("table")).to_contain_text("approved")
        shoot(page, "applicants")
    return str(desk.airflow.api.xcom(ONBOARD, run["dag_run_id"], "create_user"))


def withdraw(desk: Desk, user_id: str, reference: str, amount: str) -> str:
    """Start a run by its form; return its id."""
    desk.airflow.api.unpause(WITHDRAW)
    before = run_ids(desk)
    values = {"Payment reference": reference, "User id": user_id, "Amount (BTC)": amount, "Address": ADDRESS}
    with desk.person("op") as page:
        start_run(page, desk.airflow.url, WITHDRAW, values)
    (run_id,) = run_ids(desk) - before
    return run_id


def run_ids(desk: Desk) -> set[str]:
    return {str(run["dag_run_id"]) for run in desk.airflow.api.call("GET", f"dags/{WITHDRAW}/dagRuns")["dag_runs"]}


def ended(desk: Desk, dag_id: str, run_id: str) -> str:
    def state() -> str | None:
        found = desk.airflow.api.run_state(dag_id, run_id)
        return found if found in ENDED else None

    return wait_for(f"the end of {dag_id}", state, timeout=300)


def until_it_waits(desk: Desk, run_id: str, task_id: str, times: int = 1) -> tuple[str, str, str]:
    task = (WITHDRAW, run_id, task_id)
    wait_for(f"{task_id} to ask", lambda: desk.airflow.is_suspended(*task, times=times) or None, timeout=300)
    return task


def latest_code(desk: Desk, user_id: str) -> str:
    return desk.sandbox.control.latest_code(user_id)
