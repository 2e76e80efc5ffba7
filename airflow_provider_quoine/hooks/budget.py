"""The request budget of a connection: its settings, its store, and its metrics in Airflow."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseHook, conf
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.observability import stats

from airflow_provider_quoine.exchange.budget.rules import LIMIT, MARGIN, SCOPE, WINDOW, Rules
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.observer import Observer
from airflow_provider_quoine.hooks.configuration import SECTION, airflow_home

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.budget.request_budget import BudgetStore, RequestBudget
    from airflow_provider_quoine.hooks.connection import ConnectionSettings

_budgets: dict[tuple[Any, ...], RequestBudget] = {}


def budget_of(settings: ConnectionSettings, *, api_id: str) -> RequestBudget:
    """
    Return the budget that a connection's requests take slots from: one per process and book.

    :param settings: the connection; its own limit, window and Redis override Airflow's configuration.
    :param api_id: of the key that signs.
    :raises QuoineInputError: if a setting is wrong.
    """
    from airflow_provider_quoine.exchange.budget.request_budget import RequestBudget

    rules, name, url = _rules(settings), _book_name(settings, api_id), _redis_url(settings)
    known = (rules, name, url, airflow_home())
    if known not in _budgets:
        budget = RequestBudget(store=_store(url, name, rules), rules=rules, observer=BudgetMetrics())
        # Another thread may have been faster, and two budgets would count as two processes.
        _budgets.setdefault(known, budget)
    return _budgets[known]


class BudgetMetrics(Observer):
    """
    Counts in Airflow's own metrics.

    ``quoine.budget.wait.<priority>`` is a timer, ``quoine.budget.pauses`` a counter.
    """

    def waited(self, priority: str, seconds: float) -> None:
        """Time the wait for a slot."""
        stats.timing(f"quoine.budget.wait.{priority}", timedelta(seconds=seconds))

    def paused(self, seconds: float) -> None:
        """Count a pause by 429."""
        stats.incr("quoine.budget.pauses")


class RequestMetrics(Observer):
    """
    Counts requests in Airflow's own metrics.

    ``quoine.requests.<endpoint>.<outcome>`` is a counter, ``quoine.request_time.<endpoint>`` a timer; the tag
    ``conn_id`` names the connection where the metrics' receiver takes tags.
    """

    def __init__(self, *, conn_id: str) -> None:
        self._tags = {"conn_id": conn_id}

    def requested(self, endpoint: str, outcome: str, seconds: float) -> None:
        """Count a request and time it."""
        stats.incr(f"quoine.requests.{endpoint}.{outcome}", tags=self._tags)
        stats.timing(f"quoine.request_time.{endpoint}", timedelta(seconds=seconds), tags=self._tags)


def _rules(settings: ConnectionSettings) -> Rules:
    extras = settings.extras
    return Rules(
        limit=extras.request_limit or conf.getint(SECTION, "request_limit", fallback=LIMIT),
        window=extras.request_window or conf.getfloat(SECTION, "request_window", fallback=WINDOW),
        margin=conf.getfloat(SECTION, "budget_margin", fallback=MARGIN),
    )


def _book_name(settings: ConnectionSettings, api_id: str) -> str:
    scope = conf.get(SECTION, "budget_scope", fallback=SCOPE)
    if scope not in {"address", "key"}:
        raise QuoineInputError(
            f"[{SECTION}] budget_scope is {scope!r}: set it to address (all keys share one budget) or key."
        )
    counted = settings.base_url.casefold() + (f" {api_id}" if scope == "key" else "")
    host = re.sub(r"[^a-z0-9.-]", "_", (urlsplit(settings.base_url).hostname or "").casefold())
    return f"{host}-{hashlib.sha256(counted.encode()).hexdigest()[:16]}"


def _redis_url(settings: ConnectionSettings) -> str:
    conn_id = settings.extras.budget_redis_conn_id
    if not conn_id:
        return str(conf.get(SECTION, "budget_redis_url", fallback="") or "").strip()
    try:
        redis = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        label = settings.extras.label_of("budget_redis_conn_id")
        raise QuoineInputError(
            f"{label!r} is {conn_id!r}, and there is no such connection. Nothing was sent. Correct the field, or leave "
            "it empty."
        ) from None
    extra = redis.extra_dejson
    user = f"{quote(redis.login or '', safe='')}:{quote(redis.password, safe='')}@" if redis.password else ""
    scheme = "rediss" if extra.get("ssl") else "redis"
    return f"{scheme}://{user}{redis.host or 'localhost'}:{redis.port or 6379}/{extra.get('db', 0)}"


def _store(url: str, name: str, rules: Rules) -> BudgetStore:
    if url:
        from airflow_provider_quoine.exchange.budget.redis_store import RedisStore

        return RedisStore(url=url, key=f"quoine-budget:{name}", rules=rules)
    from airflow_provider_quoine.exchange.budget.file_store import FileStore

    return FileStore(path=airflow_home() / "quoine-budget" / name, rules=rules)
