"""Which budget a connection's requests take from, and what Airflow's metrics say of it."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.observability import stats

from airflow_provider_quoine.exchange.budget.request_budget import BudgetStore, RequestBudget
from airflow_provider_quoine.exchange.budget.rules import LIMIT, MARGIN, WINDOW, Priority, Rules
from airflow_provider_quoine.exchange.errors import QuoineInputError, QuoineServiceUnavailableError
from airflow_provider_quoine.get_provider_info import OPTIONS
from airflow_provider_quoine.hooks import budget
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.sandbox.server import SandboxServer


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without a book."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    return tmp_path


def connect(monkeypatch: pytest.MonkeyPatch, conn_id: str = "quoine_default", **fields: Any) -> QuoineHook:
    connection = {"conn_type": "quoine", "login": "7", "password": "s" * 40, "host": "https://a.example", **fields}
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
    return QuoineHook(conn_id)


def budget_of(hook: QuoineHook) -> RequestBudget:
    with hook.get_conn() as client:
        assert client.budget is not None
        return client.budget


def books(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "quoine-budget").iterdir())


def test_without_any_setting_there_is_the_limit_of_the_reference_in_a_file_at_home(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    budget = budget_of(connect(monkeypatch))
    budget.acquire(priority=Priority.NORMAL)
    assert budget.rules == Rules(limit=LIMIT, window=WINDOW, margin=MARGIN)
    (book,) = books(home)
    assert book.startswith("a.example-")


def test_all_keys_and_connections_of_a_base_url_share_one_budget(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    one, two = connect(monkeypatch, "one"), connect(monkeypatch, "two", login="8", host="https://A.example/")
    other = connect(monkeypatch, "other", host="https://b.example")
    for hook in (one, two, other):
        budget_of(hook).acquire(priority=Priority.NORMAL)
    assert budget_of(one) is budget_of(two)
    assert len(books(home)) == 2


def test_threads_that_ask_for_the_first_time_at_once_share_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    hook, store, both_make_one = connect(monkeypatch), budget._store, threading.Barrier(2, timeout=100)

    def meet_and_make(*given: Any) -> BudgetStore:
        both_make_one.wait()
        return store(*given)

    monkeypatch.setattr(budget, "_store", meet_and_make)
    with ThreadPoolExecutor(2) as threads:
        one, two = threads.map(budget_of, [hook, QuoineHook("quoine_default")])
    assert one is two


def test_a_budget_per_key_is_a_setting(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("AIRFLOW__QUOINE__BUDGET_SCOPE", "key")
    for conn_id, login in (("one", "7"), ("two", "8"), ("three", "7")):
        budget_of(connect(monkeypatch, conn_id, login=login)).acquire(priority=Priority.NORMAL)
    assert len(books(home)) == 2


def test_a_scope_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__QUOINE__BUDGET_SCOPE", "planet")
    with pytest.raises(QuoineInputError, match=r"budget_scope is 'planet': set it to address"):
        connect(monkeypatch).get_conn()


def test_the_connection_goes_before_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__QUOINE__REQUEST_LIMIT", "600")
    monkeypatch.setenv("AIRFLOW__QUOINE__REQUEST_WINDOW", "60")
    monkeypatch.setenv("AIRFLOW__QUOINE__BUDGET_MARGIN", "0.1")
    assert budget_of(connect(monkeypatch)).rules == Rules(limit=600, window=60, margin=0.1)
    hook = connect(monkeypatch, extra={"request_limit": 30, "request_window": 5.5})
    assert budget_of(hook).rules == Rules(limit=30, window=5.5, margin=0.1)


def test_a_redis_url_in_the_configuration_is_where_the_book_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__QUOINE__BUDGET_REDIS_URL", "redis://:hunter2@127.0.0.1:1/0")
    budget = budget_of(connect(monkeypatch))
    assert str(budget._store) == "Redis at 127.0.0.1:1"


def test_a_redis_connection_is_where_the_book_is(monkeypatch: pytest.MonkeyPatch) -> None:
    redis = {"conn_type": "redis", "host": "127.0.0.2", "port": 1, "login": "u/", "password": "p@s", "extra": {"db": 3}}
    monkeypatch.setenv("AIRFLOW_CONN_BUDGET", json.dumps(redis))
    budget = budget_of(connect(monkeypatch, extra={"budget_redis_conn_id": "budget"}))
    assert str(budget._store) == "Redis at 127.0.0.2:1"
    kept = budget._store._pool.connection_kwargs  # type: ignore[attr-defined]
    assert (kept["username"], kept["password"], kept["db"]) == ("u/", "p@s", 3)


def test_requests_waits_and_pauses_are_in_airflows_metrics(
    monkeypatch: pytest.MonkeyPatch, sandbox: SandboxServer
) -> None:
    seen: list[str] = []

    class Backend:
        """What Airflow's metrics are sent to."""

        def incr(self, stat: str, *_: Any, tags: dict[str, str] | None = None, **__: Any) -> None:
            seen.append(f"{stat} {tags}")

        def timing(self, stat: str, *_: Any, tags: dict[str, str] | None = None, **__: Any) -> None:
            seen.append(stat)

    stats.initialize(factory=Backend, export_legacy_names=False)  # type: ignore[arg-type]
    try:
        key = {"login": sandbox.vendor_id, "password": sandbox.vendor_secret}
        hook = connect(monkeypatch, **key, host=sandbox.url)
        sandbox.control.fault("status", "POST /users/onboarding_status", status=429, body="retry after 0s")
        sandbox.control.fault("status", "POST /users/onboarding_status", status=503, body="broken", times=3)
        with hook.get_conn() as client, pytest.raises(QuoineServiceUnavailableError):
            client.get_onboarding_status(user_id="1", password="x")
    finally:
        stats.initialize(factory=_nothing(), export_legacy_names=False)
    name, tags = "quoine.requests.get_onboarding_status", {"conn_id": "quoine_default"}
    assert f"{name}.QuoineRateLimitedError {tags}" in seen
    assert seen.count(f"{name}.QuoineServiceUnavailableError {tags}") == 3
    assert seen.count("quoine.budget.wait.normal") == 4
    assert seen.count("quoine.request_time.get_onboarding_status") == 4
    assert seen.count("quoine.budget.pauses None") == 1


def _nothing() -> Any:
    from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger

    return NoStatsLogger


def test_the_test_of_a_connection_does_not_wait_for_a_pause_of_minutes(
    monkeypatch: pytest.MonkeyPatch, sandbox: SandboxServer
) -> None:
    monkeypatch.setattr("airflow_provider_quoine.hooks.quoine.FORM_PATIENCE", 0.2)
    key = {"login": sandbox.vendor_id, "password": sandbox.vendor_secret}
    hook = connect(monkeypatch, **key, host=sandbox.url)
    budget_of(hook).pause(300)
    fine, words = hook.test_connection()
    assert not fine
    assert "429 has paused all requests" in words


def test_airflow_names_the_settings() -> None:
    from airflow.sdk import conf

    assert {name: conf.get("quoine", name, fallback="unknown") for name in OPTIONS} == {
        name: default if default is not None else "unknown" for name, (_, default, _, _) in OPTIONS.items()
    }
