"""*Test* on a connection: what it calls good, and in which words it says what is wrong."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from rich.console import Console

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.get_provider_info import get_provider_info
from airflow_provider_quoine.hooks import diagnosis
from airflow_provider_quoine.hooks.connection import ConnectionExtras
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.payments.policy import WithdrawalPolicy
from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.support.one_task import ADDRESS, api

(CONNECTION,) = get_provider_info()["connection-types"]
POLICY = {
    "withdrawal_addresses": ADDRESS,
    "withdrawal_max": "0.5",
    "withdrawal_max_24h": "2",
    "withdrawal_count_24h": "10",
    "withdrawal_max_day": "2",
    "withdrawal_count_day": "unlimited",
}
GOOD_KEY = "The exchange accepts the key as the vendor's key."


def result_of(monkeypatch: pytest.MonkeyPatch, sandbox: SandboxServer, **fields: Any) -> tuple[bool, str]:
    """Test a connection to the sandbox."""
    extra = fields.pop("extra", {})
    connection = {"conn_type": "quoine", "host": sandbox.url, "login": sandbox.vendor_id, "extra": extra}
    monkeypatch.setenv(
        "AIRFLOW_CONN_QUOINE_DEFAULT", json.dumps({**connection, "password": sandbox.vendor_secret, **fields})
    )
    return QuoineHook().test_connection()


def stream_of(sandbox: SandboxServer) -> dict[str, Any]:
    """The fields of the sandbox's market stream."""
    return {"pusher_key": sandbox.pusher_key, "pusher_host": "127.0.0.1", "pusher_port": sandbox.port} | {
        "pusher_tls": False
    }


@pytest.fixture
def web_server() -> Iterator[int]:
    """A port with a web server that is neither the exchange nor a stream."""
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        Thread(target=server.serve_forever).start()
        yield server.server_address[1]
        server.shutdown()


def test_key_policy_and_stream_are_all_told(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    fine, words = result_of(monkeypatch, sandbox, extra={**POLICY, **stream_of(sandbox)})
    assert fine, words
    assert words == f"{GOOD_KEY} The withdrawal policy is complete. The market stream answers."


def test_a_connection_for_onboarding_alone_is_good(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    fine, words = result_of(monkeypatch, sandbox)
    assert fine, words
    assert words == f"{GOOD_KEY} No withdrawal policy, so no withdrawals. No Pusher key, so no market streams."


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 500])
@pytest.mark.parametrize("words", [{"message": "Not Found"}, {"error": "no such page"}, {"errors": {"x": ["y"]}}])
def test_a_foreign_server_that_answers_in_json_is_no_success(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, status: int, words: Any
) -> None:
    answer = {"status": status, "body": json.dumps(words), "content_type": "application/json", "times": 9}
    for endpoint in ("GET /btc_withdrawals/:id", "POST /users/onboarding_status"):
        sandbox.control.fault("status", endpoint, **answer)
    fine, said = result_of(monkeypatch, sandbox)
    assert not fine, said


def test_any_web_server_is_no_success(sandbox: SandboxServer, web_server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fine, said = result_of(monkeypatch, sandbox, host=f"http://127.0.0.1:{web_server}")
    assert not fine, said


@pytest.mark.parametrize("body", ["{}", "[]", "<html>Welcome</html>"])
@pytest.mark.parametrize("status", [200, 302, 401, 405, 503])
def test_what_answers_otherwise_than_the_exchange_is_not_called_the_exchange(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, status: int, body: str
) -> None:
    for endpoint in ("GET /btc_withdrawals/:id", "POST /users/onboarding_status"):
        sandbox.control.fault("status", endpoint, status=status, body=body, content_type="text/html", times=9)
    fine, said = result_of(monkeypatch, sandbox)
    assert not fine
    assert "not as the exchange does" in said
    assert "Check the base URL" in said
    assert "the exchange says" not in said.casefold()


def fields_of(value: object) -> str:
    """The name of a case: the fields that it sets."""
    return "-".join(value) if isinstance(value, dict) else ""


#: Extra fields with values that the form's rules forbid, and what *Test* says.
FORBIDDEN = [
    ({"withdrawal_approvals": -1}, "'Approvals' must be at least 0."),
    ({"withdrawal_approvals": 99}, "'Approvals' must be at most 9."),
    ({"connect_timeout": 0}, "'Connect time-out (s)' must be above 0."),
    ({"withdrawal_link": "https://exchange.example/"}, "'Withdrawal page' must begin with http:// or https:// and"),
    ({"pusher_cluster": "a b"}, "'Pusher cluster' must be small letters, digits and hyphens."),
    ({"pusher_heartbeat": 60, "pusher_patience": 30}, "'Stream patience (s)' must be at least 1 s more than"),
    ({"withdrawal_max": 0.5}, "'Largest withdrawal (BTC)' must be text: write quotes around it."),
    ({"bitcoin_network": "prod"}, "'Bitcoin network' must be 'main' or 'test'."),
    ({"withdrawl_max": "1"}, "There is no field withdrawl_max; did you mean withdrawal_max?"),
    ({"ca_path": "/no/such.pem"}, "'CA bundle' is '/no/such.pem', and there is no such file on this host."),
    ({"budget_redis_conn_id": "nope"}, "\"Budget's Redis\" is 'nope', and there is no such connection."),
]


@pytest.mark.parametrize(("fields", "words"), FORBIDDEN, ids=fields_of)
def test_a_field_is_called_as_in_the_form_and_no_pattern_is_shown(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], words: str
) -> None:
    fine, said = result_of(monkeypatch, sandbox, extra=fields)
    assert not fine
    assert words in said
    assert "Input should" not in said
    assert "^" not in said


def test_the_name_that_airflow_gives_a_connection_for_the_test_is_not_shown(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in ({"port": 443}, {"password": ""}, {"extra": {"withdrawal_approvals": -1}}):
        fine, said = result_of(monkeypatch, sandbox, **wrong)
        assert not fine
        assert "quoine_default" not in said
        assert said.startswith("This connection ")


def test_a_foreign_server_that_says_yes_to_everybody_is_no_success(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    withdrawal = {"id": 1, "amount": "1", "address": ADDRESS, "state": "pending"}
    answer = {"status": 200, "body": json.dumps(withdrawal), "content_type": "application/json", "times": 9}
    sandbox.control.fault("status", "GET /btc_withdrawals/:id", **answer)
    fine, words = result_of(monkeypatch, sandbox)
    assert not fine
    assert "made-up key" in words


#: Policy fields that are no policy, and what *Test* says.
WRONG = [
    ({"withdrawal_max": "abc"}, "'Largest withdrawal (BTC)': 'abc' is no amount"),
    ({"withdrawal_min": "-1"}, "'Smallest withdrawal (BTC)': '-1' is no amount"),
    ({"withdrawal_max_24h": "0"}, "'Most in 24 hours (BTC)': The amount is 0: it must be above zero"),
    ({"withdrawal_max_day": "0.123456789"}, "'Most per day (BTC)': The amount 0.123456789 has more than 8 decimals"),
    ({"withdrawal_count_24h": "1.5"}, "'Withdrawals in 24 hours': '1.5' is no whole number"),
    ({"withdrawal_count_day": "Unlimited"}, "'Withdrawals per day': 'Unlimited' is no whole number"),
    ({"withdrawal_count_day": ""}, "'Withdrawals per day' is empty, which allows no withdrawal"),
    ({"withdrawal_timezone": "Tokyo"}, "'Time zone of the day': 'Tokyo' is no time zone"),
    ({"withdrawal_addresses": ""}, "'Withdrawal addresses' is empty, which allows no withdrawal"),
    ({"withdrawal_addresses": f"{ADDRESS} bc1qbroken"}, "'Withdrawal addresses', entry 2: "),
    ({"bitcoin_network": "test"}, "'Withdrawal addresses', entry 1: "),
    ({"withdrawal_min": "1"}, "'Smallest withdrawal (BTC)' is 1, more than the 0.5 in 'Largest withdrawal (BTC)'"),
]


@pytest.mark.parametrize(("fields", "words"), WRONG, ids=fields_of)
def test_a_policy_that_allows_nothing_is_named(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], words: str
) -> None:
    fine, said = result_of(monkeypatch, sandbox, extra=POLICY | fields)
    assert not fine
    assert words in said
    assert said.startswith(GOOD_KEY), "the rest is told as well"


def test_everything_that_is_wrong_is_told_at_once(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"withdrawal_max": "abc", "withdrawal_timezone": "Tokyo"}
    fine, said = result_of(monkeypatch, sandbox, password="wrong-" * 8, extra=POLICY | wrong)
    assert not fine
    assert all(word in said for word in ("Wrong key", "'abc'", "'Tokyo'"))


@pytest.mark.parametrize(("fields", "words"), WRONG, ids=fields_of)
def test_a_payment_refuses_what_the_test_refuses(fields: dict[str, str], words: str) -> None:
    from airflow.sdk import Connection

    from airflow_provider_quoine.exchange.models import WithdrawalOrder
    from airflow_provider_quoine.hooks.connection import ConnectionSettings

    connection = Connection(conn_id="c", conn_type="quoine", extra=json.dumps(POLICY | fields))
    settings = ConnectionSettings.from_connection(connection)
    order = WithdrawalOrder.parse(amount="0.1", address="1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2")
    with pytest.raises(QuoineInputError):
        WithdrawalPolicy.of(settings, account="7").check(order)


@pytest.mark.parametrize("how", ["closed port", "web server", "wrong key"])
def test_a_stream_that_does_not_answer_is_named(
    sandbox: SandboxServer, web_server: int, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(diagnosis, "STREAM_PATIENCE", 1.0)
    wrong: dict[str, dict[str, Any]] = {
        "closed port": {"pusher_port": 1},
        "web server": {"pusher_port": web_server},
        "wrong key": {"pusher_key": "nobodys"},
    }
    fine, said = result_of(monkeypatch, sandbox, extra={**stream_of(sandbox), **wrong[how]})
    assert not fine
    assert "The market stream at 127.0.0.1:" in said
    assert said.startswith(GOOD_KEY)
    assert "nobodys" not in said


@pytest.mark.parametrize("host", ["ftp://x", "http://127.0.0.1:1/[bold]", "https://exchange.example?a=[/b]"])
def test_rich_prints_what_it_says(monkeypatch: pytest.MonkeyPatch, sandbox: SandboxServer, host: str) -> None:
    fine, words = result_of(monkeypatch, sandbox, host=host)
    assert not fine
    printed = io.StringIO()
    Console(file=printed, width=1000).print(words)
    assert printed.getvalue().strip() == words


def as_the_page_sends_it(stored: dict[str, Any]) -> dict[str, Any]:
    """What Airflow's page (3.3) makes of a stored connection for its button *Test*: ``Number(null)`` is 0."""
    texts = {name: stored[name] or "" for name in ("description", "host", "login", "password", "schema")}
    same = {name: stored[name] for name in ("conn_type", "connection_id")}
    return {**same, **texts, "extra": stored["extra"] or "{}", "port": stored["port"] or 0}


# Airflow's own route warns of Airflow's own registry.
@pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")
@pytest.mark.parametrize("port", ["0", "same"])
def test_the_button_works_for_a_connection_as_the_form_saves_it(
    airflow_database: None, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
    assert "port" not in CONNECTION["ui-field-behaviour"]["hidden-fields"], "the page shows no field for it"
    typed = {"0": 0, "same": sandbox.port}[port]
    saved = {"connection_id": f"quoine_{port}", "conn_type": "quoine", "host": sandbox.url, "port": typed} | {
        "login": sandbox.vendor_id,
        "password": sandbox.vendor_secret,
        "extra": json.dumps(dict.fromkeys(ConnectionExtras.model_fields) | POLICY),
    }
    made = api().post("/api/v2/connections", json=saved)
    assert made.status_code == 201, made.text
    stored = api().get(f"/api/v2/connections/quoine_{port}").json()
    assert sandbox.vendor_secret not in json.dumps(stored)
    pressed = api().post("/api/v2/connections/test", json=as_the_page_sends_it(stored))
    assert pressed.status_code == 200, pressed.text
    assert pressed.json()["status"], pressed.text
    assert pressed.json()["message"].startswith(GOOD_KEY)


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        ("https://exchange.example", 443, "https://exchange.example"),
        ("https://exchange.example:443", 443, "https://exchange.example"),
        ("", 443, "https://api.quoine.com"),
        ("http://127.0.0.1", 80, "http://127.0.0.1"),
        ("http://127.0.0.1:8799", 8799, "http://127.0.0.1:8799"),
        ("http://127.0.0.1:8799", 0, "http://127.0.0.1:8799"),
        ("exchange.example/prefix", 8443, "https://exchange.example:8443/prefix"),
    ],
)
def test_a_port_that_the_test_needs_changes_no_base_url(
    monkeypatch: pytest.MonkeyPatch, host: str, port: int, url: str
) -> None:
    connection = {"conn_type": "quoine", "host": host, "port": port}
    monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", json.dumps(connection))
    assert QuoineHook().settings.base_url == url


def test_two_ports_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "quoine", "host": "https://exchange.example:8443", "port": 443}
    monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", json.dumps(connection))
    with pytest.raises(QuoineInputError, match=r"port 8443 .* 443"):
        _ = QuoineHook().settings


def test_the_form_asks_for_the_policy_first_and_in_groups() -> None:
    sections = [field["schema"]["section"] for field in CONNECTION["conn-fields"].values()]
    assert sections[0] == "Withdrawal policy"
    assert list(dict.fromkeys(sections)) == [
        section for at, section in enumerate(sections) if at == 0 or sections[at - 1] != section
    ], "no section comes twice"
    first = list(CONNECTION["conn-fields"])[:2]
    assert first == ["withdrawal_addresses", "withdrawal_max"]
