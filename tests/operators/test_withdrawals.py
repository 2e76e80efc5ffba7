"""The operators that request a code, and that withdraw with a stored one: policy, record, code, wait and link."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_quoine.exchange.budget.request_budget import RequestBudget
from airflow_provider_quoine.exchange.budget.rules import Priority
from airflow_provider_quoine.exchange.budget.slot import Slot
from airflow_provider_quoine.exchange.models import UserCredentials
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.payments.schema import Step
from airflow_provider_quoine.sandbox.control import SandboxControl
from airflow_provider_quoine.waiting import poller
from tests.support.one_task import ADDRESS, OneTask, set_connection

pytestmark = pytest.mark.usefixtures("airflow_database")

POST, CODE = "POST /btc_withdrawals/", "GET /users/:user_id/auth_code"
# Test vectors of BIP 173 and 350, and the reference's sample.
TAPROOT = "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"
TESTNET = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"
SAMPLE = "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"
NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def code(exchange: SandboxControl, payer: str) -> Iterator[str]:
    """Have a code sent, and put it into the Variable ``user_code``."""
    with QuoineHook(credentials_variable="user_key").get_conn() as client:
        client.request_auth_code(user_id=payer)
    yield from stored(exchange.latest_code(payer))


def stored(code: str) -> Iterator[str]:
    """Keep a code in the Variable as long as a test runs."""
    from airflow.models.variable import Variable

    Variable.set("user_code", code)
    yield code
    Variable.delete("user_code")


def stored_code() -> str | None:
    """Read the Variable."""
    from airflow.models.variable import Variable

    found = Variable.get("user_code", default_var=None)
    return None if found is None else str(found)


def posts(exchange: SandboxControl) -> int:
    """Count the withdrawals that the sandbox was asked for."""
    return sum(seen["endpoint"] == POST for seen in exchange.state()["requests"])


@pytest.mark.parametrize("dag", ["request_code", "withdraw"])
def test_a_task_that_sends_takes_its_slot_urgently(
    exchange: SandboxControl, payer: str, code: str, monkeypatch: pytest.MonkeyPatch, dag: str
) -> None:
    priorities: list[Priority] = []
    acquire = RequestBudget.acquire

    def acquire_and_tell(budget: RequestBudget, *, priority: Priority, **more: Any) -> Slot:
        priorities.append(priority)
        return acquire(budget, priority=priority, **more)

    monkeypatch.setattr(RequestBudget, "acquire", acquire_and_tell)
    params = {"request_code": {"user_id": payer}, "withdraw": {"amount": "0.5", "address": ADDRESS}}
    assert OneTask(dag, **params[dag]).step().state == "success"
    assert priorities == [Priority.URGENT]


def withdraw(way: str = "", **order: Any) -> OneTask:
    return OneTask(f"withdraw{way}", **{"amount": "0.5", "address": ADDRESS} | order)


# The code


def test_a_code_is_sent(exchange: SandboxControl, payer: str) -> None:
    task = OneTask("request_code", user_id=payer)
    assert task.step().state == "success"
    assert task.xcom() == {"sent": True, "message": "Email token was sent"}
    assert exchange.state()["auth_codes"]["email"] == 1


def test_a_user_with_an_authenticator_app_gets_none(exchange: SandboxControl, payer: str) -> None:
    exchange.set_next_outcome("auth_code", "app")
    task = OneTask("request_code", user_id=payer)
    assert task.step().state == "success"
    assert task.xcom()["sent"] is False
    assert "authenticator app" in task.xcom()["message"]


@pytest.mark.parametrize(
    ("fault", "more"),
    [("drop_before", {}), ("drop_after", {}), ("status", {"status": 503, "body": "Authy is down", "when": "after"})],
)
def test_a_request_for_a_code_whose_answer_is_lost_is_not_repeated(
    exchange: SandboxControl, payer: str, fault: str, more: dict[str, Any]
) -> None:
    exchange.fault(fault, CODE, **more)
    end = OneTask("request_code", user_id=payer).step()
    assert end.state == "failed"
    assert "A code may have been sent" in end.words


@pytest.mark.parametrize("user_id", ["", "25/../26", "None "])
def test_what_is_no_user_id_is_not_sent(exchange: SandboxControl, payer: str, user_id: str) -> None:
    before = len(exchange.state()["requests"])
    end = OneTask("request_code", user_id=user_id).step()
    assert (end.state, len(exchange.state()["requests"])) == ("failed", before)
    assert "is no user id" in end.words


# The withdrawal


def test_the_withdrawal_is_the_result(exchange: SandboxControl, code: str) -> None:
    exchange.set_pace(None)
    task = withdraw(amount=" 0.50000001 ")
    assert task.step().state == "success"
    (withdrawal,) = exchange.state()["withdrawals"]
    expected = {"id": str(withdrawal["id"]), "amount": "0.50000001", "address": ADDRESS, "state": "pending"}
    assert task.xcom() == expected
    assert (withdrawal["amount"], withdrawal["address"]) == ("0.50000001", ADDRESS)
    assert task.stands() == Step.SENT


def test_the_ledger_knows_how_to_look_the_withdrawal_up(exchange: SandboxControl, code: str) -> None:
    exchange.set_pace(None)
    task = withdraw()
    assert task.step().state == "success"
    found = task.payment()
    assert found is not None
    assert (found.order.conn_id, found.order.credentials_variable) == ("quoine_default", "user_key")
    assert (found.exchange_id, found.state) == (task.xcom()["id"], "pending")


def test_a_cleared_task_gives_the_same_withdrawal_and_sends_nothing(exchange: SandboxControl, code: str) -> None:
    task = withdraw()
    task.step()
    first = task.xcom()
    task.clear()
    assert task.step().state == "success"
    assert task.xcom()["id"] == first["id"]
    assert posts(exchange) == 1


@pytest.mark.parametrize(
    ("amount", "address", "state"),
    [("0.5", ADDRESS, "success"), ("0.50", ADDRESS, "success"), ("0.51", ADDRESS, "failed"), ("0.5", SAMPLE, "failed")],
)
def test_a_cleared_task_takes_the_recorded_withdrawal_only_if_it_is_the_one_that_was_meant(
    exchange: SandboxControl, code: str, amount: str, address: str, state: str
) -> None:
    task = withdraw(address=ADDRESS.upper())
    assert task.step().state == "success"
    told = {"id": task.xcom()["id"], "amount": amount, "address": address, "state": "pending"}
    exchange.fault(
        "status", "GET /btc_withdrawals/:id", status=200, body=json.dumps(told), content_type="application/json"
    )
    task.clear()
    assert task.step().state == state


def test_a_code_is_deleted_once_it_was_sent(exchange: SandboxControl, code: str) -> None:
    withdraw().step()
    assert stored_code() is None


def test_a_code_is_deleted_when_the_task_goes_on_to_wait(exchange: SandboxControl, code: str) -> None:
    assert withdraw("_waiting").step().state == "deferred"
    assert stored_code() is None


@pytest.mark.parametrize(
    ("fault", "more"), [("drop_before", {}), ("drop_after", {}), ("status", {"status": 422, "body": "no funds"})]
)
def test_a_code_is_deleted_where_the_exchange_may_have_seen_it(
    exchange: SandboxControl, code: str, fault: str, more: dict[str, Any]
) -> None:
    exchange.fault(fault, POST, **more)
    assert withdraw().step().state == "failed"
    assert stored_code() is None


def test_a_code_is_kept_when_there_was_no_connection(
    exchange: SandboxControl, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = withdraw()
    with monkeypatch.context() as patch:
        set_connection(patch, host=NOBODY)
        assert task.step().state == "up_for_retry"
    assert stored_code() == code
    assert task.step().state == "success"
    assert len(exchange.state()["withdrawals"]) == 1


def test_a_code_is_kept_when_the_request_limit_was_used_up(exchange: SandboxControl, code: str) -> None:
    exchange.fault("status", POST, status=429, body="API rate limit exceeded. Please retry after 1s")
    task = withdraw()
    assert task.step().state == "up_for_retry"
    assert stored_code() == code
    assert task.step().state == "success"
    assert len(exchange.state()["withdrawals"]) == 1


@pytest.mark.parametrize(("fault", "carried_out"), [("drop_before", 0), ("drop_after", 1), ("garbage", 1)])
def test_a_lost_answer_stops_every_later_try(exchange: SandboxControl, code: str, fault: str, carried_out: int) -> None:
    exchange.fault(fault, POST)
    task = withdraw()
    end = task.step()
    assert end.state == "failed"
    assert f"airflow quoine payments exists {task.reference} --id ID --why WHY" in end.words
    task.clear()
    assert "outcome is unknown" in task.step().words
    assert len(exchange.state()["withdrawals"]) == carried_out
    assert posts(exchange) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 422, 429])
def test_an_answer_of_something_in_between_stops_every_later_try(
    exchange: SandboxControl, code: str, status: int
) -> None:
    page = "<html><title>Request blocked</title></html>"
    exchange.fault("status", POST, status=status, body=page, content_type="text/html", when="after")
    task = withdraw()
    end = task.step()
    assert end.state == "failed"
    assert f"HTTP {status}, no refusal that the exchange documents: 43 bytes of text/html" in end.words
    assert "Request blocked" in end.words
    task.clear()
    assert "outcome is unknown" in task.step().words
    assert (len(exchange.state()["withdrawals"]), posts(exchange)) == (1, 1)


def test_the_ledger_names_the_last_failure_only(exchange: SandboxControl, code: str) -> None:
    exchange.fault("status", POST, status=429, body="API rate limit exceeded. Please retry after 1s")
    task = withdraw()
    task.step()
    payment = task.payment()
    assert payment is not None
    assert "429" in payment.reason
    task.step()
    payment = task.payment()
    assert payment is not None
    assert payment.reason == ""


# The policy


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A key and a code that the exchange has never seen."""
    key = UserCredentials(api_id="25", api_secret="nobody's secret")
    monkeypatch.setenv("AIRFLOW_VAR_USER_KEY", key.to_json())
    yield from stored("123456789")


def broken(words: str, *, address: str = ADDRESS, amount: Any = "0.5", **policy: str) -> Any:
    """A case: the order, the policy, and words of the refusal."""
    return pytest.param({"amount": amount, "address": address}, policy, words, id=words)


LISTED = {"withdrawal_addresses": ADDRESS}
REFUSALS = [
    broken("is empty, which allows none", withdrawal_addresses=""),
    broken("it is not on the list", address=SAMPLE, **LISTED),
    broken("is more than the 0.49999999 BTC", withdrawal_max="0.49999999"),
    broken("is less than the 0.50000001 BTC", withdrawal_min="0.50000001"),
    broken("This is a test-network address", address=TESTNET),
    broken("This is a main-network address", bitcoin_network="test"),
    broken("checksum does not fit", address=ADDRESS[:-1] + "5"),
    broken("mixes upper and lower case", address=ADDRESS[:-1] + "T"),
    broken("There is no address to withdraw to", address=" "),
    broken("is in no address", address=f"{ADDRESS} {SAMPLE}"),
    broken("has more than 8 decimals", amount="0.123456789"),
    broken("'0.5 BTC' is no amount", amount="0.5 BTC"),
    broken("it must be above zero", amount="0.00"),
    broken("'-0.5' is no amount", amount="-0.5"),
    broken("'NaN' is no amount", amount="NaN"),
    broken("'Infinity' is no amount", amount="Infinity"),
    broken("'5e-1' is no amount", amount="5e-1"),
    broken("'0,5' is no amount", amount="0,5"),
    broken("'' is no amount", amount=""),
    broken("more bitcoin than can exist", amount="21000001"),
]


@pytest.mark.parametrize(("order", "policy", "words"), REFUSALS)
def test_what_breaks_a_rule_is_refused_at_once_and_nothing_is_sent(
    exchange: SandboxControl,
    nobody: str,
    monkeypatch: pytest.MonkeyPatch,
    order: dict[str, str],
    policy: dict[str, str],
    words: str,
) -> None:
    set_connection(monkeypatch, **policy)
    task = withdraw(**order)
    end = task.step()
    assert (end.state, exchange.state()["requests"]) == ("failed", [])
    assert words in end.words
    # Nothing is begun for what is no order at all.
    assert task.stands() in (Step.PREPARED, "")
    assert stored_code() == nobody


@pytest.mark.parametrize("amount", [0.5, True, None, 2, "2", "0x2", "0.5"])
def test_an_amount_that_a_native_template_has_made_no_text_is_refused(
    exchange: SandboxControl, nobody: str, amount: Any
) -> None:
    end = OneTask("withdraw_native", amount=amount).step()
    assert (end.state, exchange.state()["requests"]) == ("failed", [])
    assert "An amount must be text such as '0.5'" in end.words


def test_everything_that_is_wrong_is_named_at_once(exchange: SandboxControl, nobody: str) -> None:
    end = withdraw(amount="half", address="bc1qbroken", payment_reference="None").step()
    assert (end.state, exchange.state()["requests"]) == ("failed", [])
    for words in ("'half' is no amount", "of the address", "'None' is no payment reference", "Nothing was sent"):
        assert words in end.words


@pytest.mark.parametrize(("amount", "state"), [("0.5", "success"), ("0x2", "failed"), ("1e1", "failed")])
def test_quotes_around_a_native_template_keep_its_text(
    exchange: SandboxControl, code: str, amount: str, state: str
) -> None:
    end = OneTask("withdraw_native_in_quotes", amount=amount).step()
    assert (end.state, posts(exchange)) == (state, int(state == "success"))
    assert state == "success" or f"'{amount}' is no amount" in end.words


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        (ADDRESS, f"{SAMPLE}, {ADDRESS}"),
        (ADDRESS, f"\n{SAMPLE}\n{ADDRESS}\n"),
        (TAPROOT, TAPROOT),
        (SAMPLE, f"{ADDRESS} {SAMPLE}"),
    ],
)
def test_an_address_on_the_list_is_paid(
    exchange: SandboxControl, code: str, monkeypatch: pytest.MonkeyPatch, address: str, allowed: str
) -> None:
    set_connection(monkeypatch, withdrawal_addresses=allowed, withdrawal_max="0.5", withdrawal_min="0.5")
    assert withdraw(address=address).step().state == "success"
    (withdrawal,) = exchange.state()["withdrawals"]
    assert withdrawal["address"] == address


@pytest.mark.parametrize(("addresses", "said"), [("*", True), (ADDRESS, False)])
def test_a_list_that_allows_all_is_told_in_the_log(
    exchange: SandboxControl,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    addresses: str,
    said: bool,
) -> None:
    set_connection(monkeypatch, withdrawal_addresses=addresses)
    withdraw().step()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert ("Connection quoine_default allows withdrawals to any address (*)." in warnings) is said


# The dry run


def test_a_dry_run_checks_all_and_sends_nothing(exchange: SandboxControl, nobody: str) -> None:
    task = withdraw("_dry")
    assert task.step().state == "success"
    assert task.xcom() == {"id": None, "amount": "0.5", "address": ADDRESS, "state": "dry_run"}
    assert exchange.state()["requests"] == []
    assert task.payment() is None
    assert stored_code() == nobody


def test_a_dry_run_obeys_the_policy(exchange: SandboxControl, nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_connection(monkeypatch, withdrawal_max="0.4")
    end = withdraw("_dry").step()
    assert end.state == "failed"
    assert "is more than the 0.4 BTC" in end.words


@pytest.mark.parametrize("missing", ["USER_KEY", "USER_CODE"])
def test_a_dry_run_finds_that_a_secret_is_missing(
    exchange: SandboxControl, nobody: str, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setenv(f"AIRFLOW_VAR_{missing}", "")
    end = withdraw("_dry").step()
    assert end.state == "failed"
    assert f"There is no Variable '{missing.lower()}'" in end.words


# Waiting, and the link


def test_a_withdrawal_that_is_processed_is_the_result_of_the_task_that_waits(
    exchange: SandboxControl, code: str
) -> None:
    task = withdraw("_waiting")
    assert task.step().state == "deferred"
    assert task.trigger().state == "success"
    assert task.xcom()["state"] == "processed"


@pytest.mark.parametrize("end", ["declined", "cancelled", "reverted"])
def test_a_withdrawal_that_is_not_paid_out_fails_and_is_never_sent_again(
    exchange: SandboxControl, code: str, end: str
) -> None:
    exchange.set_next_outcome("withdrawal", end)
    task = withdraw("_waiting")
    assert task.step().state == "deferred"
    ended = task.trigger()
    for _ in range(2):
        assert ended.state == "failed"
        assert f"ended as {end}" in ended.words
        task.clear()
        ended = task.step()
    assert posts(exchange) == 1


def test_a_refusal_while_it_waits_is_retried_and_nothing_is_sent_again(
    exchange: SandboxControl, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A rotated key may take effect within minutes, so only a later refusal in a row is final.
    monkeypatch.setattr(poller, "FINAL_AFTER_SECONDS", 0.0)
    exchange.fault("status", "GET /btc_withdrawals/:id", status=401, body="Nonce is too small", times=3)
    task = withdraw("_waiting")
    task.step()
    assert task.trigger().state == "up_for_retry"
    assert task.step().state == "success"
    assert posts(exchange) == 1


def test_the_link_is_there_while_the_task_still_waits(
    exchange: SandboxControl, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection(monkeypatch, withdrawal_link="https://exchange.example/withdrawals/{id}?tab=1")
    task = withdraw("_waiting")
    assert task.step().state == "deferred"
    (withdrawal,) = exchange.state()["withdrawals"]
    page = {"Withdrawal at the exchange": f"https://exchange.example/withdrawals/{withdrawal['id']}?tab=1"}
    assert task.links() == page
    task.trigger()
    assert task.links() == page


def test_without_a_template_there_is_no_link(
    exchange: SandboxControl, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection(monkeypatch, withdrawal_link=None)
    task = withdraw()
    assert task.step().state == "success"
    assert not any(task.links().values())


def test_a_code_is_in_no_log_and_in_no_rendered_field(
    exchange: SandboxControl, code: str, airflow_log: io.StringIO
) -> None:
    exchange.fault("drop_after", POST)
    task = withdraw()
    task.step()
    assert "The exchange may have carried it out" in " ".join(airflow_log.getvalue().split())
    assert code not in airflow_log.getvalue()
    assert code not in str(task.rendered())
