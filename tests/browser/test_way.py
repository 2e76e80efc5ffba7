"""A person's whole way through the desk, in a real browser."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Desk, shoot
from tests.browser.steps import add_connection, answer, our_page, press_test, start_run, switch_off
from tools.airflow_api import wait_for
from tools.sandbox import ADDRESS
from tools.scenario import TARO

pytestmark = pytest.mark.timeout(900)

WITHDRAW = "quoine_withdraw_bitcoin"
POLICY = {
    "Withdrawal addresses": ADDRESS,
    "Largest withdrawal (BTC)": "1",
    "Most in 24 hours (BTC)": "5",
    "Withdrawals in 24 hours": "50",
    "Most per day (BTC)": "5",
    "Withdrawals per day": "50",
    "Approvals": "2",
}


def test_a_persons_whole_way(desk: Desk) -> None:
    make_the_connection(desk)
    user_id = onboard(desk)
    run_id = withdraw(desk, user_id, "invoice-2026/115")
    approve(desk, run_id)
    type_the_code(desk, run_id, user_id)
    read_what_became_of_it(desk, run_id)
    assert desk.complaints == []


def make_the_connection(desk: Desk) -> None:
    connection: dict[str, Any] = desk.sandbox.connection
    extra = connection["extra"]
    stream = {name: str(extra[f"pusher_{name}"]) for name in ("key", "host", "port")}
    with desk.person("op") as page:
        add_connection(
            page,
            desk.airflow.url,
            {
                "Base URL": connection["host"],
                "API id": connection["login"],
                "API secret": connection["password"],
                "Port (Test needs one)": "0",
            },
            {"Withdrawal policy": POLICY, "Market stream": {f"Pusher {name}": stream[name] for name in stream}},
        )
        # The sandbox's stream is not encrypted, and the form has encryption on.
        assert "market stream" in press_test(page, desk.airflow.url)
        switch_off(page, desk.airflow.url, "Market stream", "Pusher TLS")
        said = press_test(page, desk.airflow.url)
        shoot(page, "connection")
    assert "accepts the key" in said
    assert "policy is complete" in said
    assert "stream answers" in said


def onboard(desk: Desk) -> str:
    api = desk.airflow.api
    api.unpause("quoine_onboard_user")
    run_id = api.trigger("quoine_onboard_user", TARO | desk.documents)
    wait_for("the user", lambda: api.run_state("quoine_onboard_user", run_id) == "success" or None, timeout=180)
    return str(api.xcom("quoine_onboard_user", run_id, "create_user"))


def withdraw(desk: Desk, user_id: str, reference: str) -> str:
    api = desk.airflow.api
    api.unpause(WITHDRAW)
    values = {"Payment reference": reference, "User id": user_id, "Amount (BTC)": "0.5", "Address": ADDRESS}
    with desk.person("op") as page:
        start_run(page, desk.airflow.url, WITHDRAW, values)
    (run,) = api.call("GET", f"dags/{WITHDRAW}/dagRuns")["dag_runs"]
    return str(run["dag_run_id"])


def until_it_waits(desk: Desk, run_id: str, task_id: str, times: int = 1) -> tuple[str, str, str]:
    task = (WITHDRAW, run_id, task_id)
    wait_for(f"{task_id} to ask", lambda: desk.airflow.is_suspended(*task, times=times) or None, timeout=180)
    return task


def approve(desk: Desk, run_id: str) -> None:
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


def type_the_code(desk: Desk, run_id: str, user_id: str) -> None:
    task = until_it_waits(desk, run_id, "authorize_withdrawal")
    with desk.person("op") as page:
        answer(page, desk.airflow.url, task, "Send", Authentication_code="0" * 12)
        shoot(page, "wrong-code")
        until_it_waits(desk, run_id, "authorize_withdrawal", times=2)
        answer(page, desk.airflow.url, task, "Send", Authentication_code=desk.sandbox.control.latest_code(user_id))


def read_what_became_of_it(desk: Desk, run_id: str) -> None:
    (withdrawal,) = wait_for("the withdrawal", lambda: desk.sandbox.control.state()["withdrawals"] or None, timeout=60)
    desk.sandbox.control.set_withdrawal(withdrawal["id"], "processed")
    wait_for("the end", lambda: desk.airflow.api.run_state(WITHDRAW, run_id) == "success" or None, timeout=180)
    with desk.person("viewer") as page:
        frame = our_page(page, desk.airflow.url, "Payments")
        shoot(page, "payments")
        frame.get_by_role("link", name="invoice-2026/115").click()
        expect(frame.get_by_role("heading", level=1)).to_have_text("Payment invoice-2026/115")
        main = frame.get_by_role("main")
        for words in ("sent", "processed", "second, user", "op typed the code", "The chain is whole"):
            expect(main).to_contain_text(words)
        expect(frame.get_by_role("button")).to_have_count(0)
        shoot(page, "payment")
