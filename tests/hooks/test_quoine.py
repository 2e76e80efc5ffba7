"""A connection becomes a client, and what is wrong with it is said in words."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from airflow.sdk import Connection

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.models import UserCredentials
from airflow_provider_quoine.exchange.stream.pusher import StreamTiming
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings


def set_connection(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", json.dumps({"conn_type": "quoine", **fields}))


def connect_to(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    key = {"login": sandbox.vendor_id, "password": sandbox.vendor_secret}
    set_connection(monkeypatch, **{"host": sandbox.url, **key, **fields})


@pytest.mark.parametrize("scheme", ["apiauth", "jwt"])
def test_vendor_key_is_accepted_in_both_schemes(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    connect_to(sandbox, monkeypatch, extra={"signing_scheme": scheme})
    fine, words = QuoineHook().test_connection()
    assert fine
    assert words.startswith("The exchange accepts the key as the vendor's key.")


def test_wrong_key_is_named(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    connect_to(sandbox, monkeypatch, password="wrong-" * 8)
    fine, words = QuoineHook().test_connection()
    assert not fine
    assert words.startswith("Wrong key")
    assert "wrong-" not in words


@pytest.mark.parametrize(("ahead", "side"), [(3600, "behind"), (-3600, "ahead of")])
def test_wrong_clock_is_named(monkeypatch: pytest.MonkeyPatch, ahead: int, side: str) -> None:
    with SandboxServer(SandboxSettings(clock=lambda: time.time() + ahead)) as sandbox:
        connect_to(sandbox, monkeypatch)
        fine, words = QuoineHook().test_connection()
    assert not fine
    assert "clock is wrong" in words
    assert side in words


def test_unreachable_host_is_named(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    connect_to(sandbox, monkeypatch, host="http://127.0.0.1:1")
    fine, words = QuoineHook().test_connection()
    assert not fine
    assert words.startswith("The exchange is not reachable")


def test_limit_that_is_used_up_does_not_pass_for_a_good_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with SandboxServer(SandboxSettings(limit=1)) as sandbox:
        connect_to(sandbox, monkeypatch)
        assert QuoineHook().test_connection()[0] is False


@pytest.mark.parametrize("status", [401, 404, 422])
def test_any_other_web_server_does_not_pass_for_a_good_key(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    page = {"status": status, "body": "<h1>Not here</h1>", "content_type": "text/html"}
    for endpoint in ("GET /btc_withdrawals/:id", "POST /users/onboarding_status"):
        sandbox.control.fault("status", endpoint, **page)
    connect_to(sandbox, monkeypatch)
    fine, words = QuoineHook().test_connection()
    assert not fine
    assert "Not here" in words


def test_unknown_extra_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    set_connection(monkeypatch, login="7", password="s", extra={"pusher_keey": "k", "read_timeout": -1})
    with pytest.raises(QuoineInputError, match=r"Read time-out.*pusher_keey; did you mean pusher_key"):
        _ = QuoineHook().settings


def test_value_of_a_wrong_extra_is_never_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    set_connection(monkeypatch, extra={"api_secret": "hunter2", "pusher_port": "hunter2"})
    with pytest.raises(QuoineInputError) as caught:
        _ = QuoineHook().settings
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({}, "https://api.quoine.com"),
        ({"host": "https://api.quoine.com/"}, "https://api.quoine.com"),
        ({"host": "exchange.example"}, "https://exchange.example"),
        ({"host": "exchange.example", "port": 8443}, "https://exchange.example:8443"),
        ({"host": "http://127.0.0.1:8799"}, "http://127.0.0.1:8799"),
    ],
)
def test_base_url(monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], url: str) -> None:
    set_connection(monkeypatch, **fields)
    assert QuoineHook().settings.base_url == url


async def test_stream_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    set_connection(monkeypatch, extra={"pusher_key": "k", "pusher_cluster": "eu", "pusher_host": ""})
    endpoint = await QuoineHook().aget_stream_endpoint()
    assert (endpoint.host, endpoint.port, endpoint.tls) == ("ws-eu.pusher.com", 443, True)
    assert (endpoint.timing, endpoint.max_message) == (StreamTiming(), 2**20), "the form's defaults are the stream's"


async def test_the_streams_patience_and_bound_are_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"pusher_heartbeat": 5, "pusher_patience": 12, "pusher_max_message_mib": 0.5}
    set_connection(monkeypatch, extra={"pusher_key": "k", **fields})
    endpoint = await QuoineHook().aget_stream_endpoint()
    assert (endpoint.timing.activity_timeout, endpoint.timing.pong_timeout) == (5, 7)
    assert endpoint.max_message == 2**19


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pusher_heartbeat": 0.5}, "'Stream heartbeat .*at least 1"),
        ({"pusher_patience": 601}, "'Stream patience .*at most 600"),
        ({"pusher_heartbeat": 60}, "'Stream patience .*at least 1 s more than the heartbeat, which is 60 s"),
        ({"pusher_heartbeat": 5, "pusher_patience": 5.5}, "at least 1 s more than the heartbeat, which is 5 s"),
        ({"pusher_max_message_mib": 0}, "'Largest stream message .*at least 0.0625"),
    ],
)
def test_a_patience_that_cannot_work_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], words: str
) -> None:
    set_connection(monkeypatch, extra=fields)
    with pytest.raises(QuoineInputError, match=words):
        _ = QuoineHook().settings


async def test_missing_pusher_key_says_which_field(monkeypatch: pytest.MonkeyPatch) -> None:
    set_connection(monkeypatch)
    with pytest.raises(QuoineInputError, match="Pusher key"):
        await QuoineHook().aget_stream_endpoint()


def test_user_key_in_a_variable_signs(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    connect_to(sandbox, monkeypatch)
    key = UserCredentials(api_id="25", api_secret="a-users-own-secret").to_json()
    monkeypatch.setenv("AIRFLOW_VAR_USER_KEY", key)
    hook = QuoineHook(credentials_variable="user_key")
    # The sandbox knows no user 25: it refuses this key, and it would have accepted the connection's.
    assert hook.test_connection()[0] is False
    assert "a-users-own-secret" not in repr(vars(hook.settings))


def test_variable_without_a_key_is_refused_without_its_content(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_to(sandbox, monkeypatch)
    monkeypatch.setenv("AIRFLOW_VAR_USER_KEY", "hunter2-is-no-json")
    with pytest.raises(QuoineInputError) as caught:
        QuoineHook(credentials_variable="user_key").get_conn()
    assert "hunter2" not in str(caught.value)


def test_connection_without_a_key_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    set_connection(monkeypatch, login="7")
    with pytest.raises(QuoineInputError, match="no API id or no API secret"):
        QuoineHook().get_conn()


def test_form_field_left_empty_means_the_default() -> None:
    connection = Connection(conn_id="c", conn_type="quoine", extra=json.dumps({"ca_path": None, "pusher_key": ""}))
    from airflow_provider_quoine.hooks.connection import ConnectionSettings

    assert ConnectionSettings.from_connection(connection).extras.ca_path is None
