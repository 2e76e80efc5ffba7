"""The provider's metadata, which Airflow discovers: its connection form and its modules."""

from __future__ import annotations

from typing import Any

from airflow_provider_quoine import __version__
from airflow_provider_quoine.exchange.budget.rules import LIMIT, MARGIN, SCOPE, WINDOW
from airflow_provider_quoine.hooks.connection import PRODUCTION_URL, connection_form

PACKAGE = "airflow_provider_quoine"
INTEGRATION = "Quoine"
#: When the version was made, in Unix seconds: 2026-11-22.
RELEASED = 1795305600

#: Of the configuration section ``quoine``: type, default, whether it is a secret, description.
OPTIONS: dict[str, tuple[str, str | None, bool, str]] = {
    "request_limit": (
        "integer",
        str(LIMIT),
        False,
        "Requests per window that all processes together make, for connections that name no limit of their own.",
    ),
    "request_window": ("float", f"{WINDOW:g}", False, "Seconds that the request limit is for."),
    "budget_margin": (
        "float",
        str(MARGIN),
        False,
        "By how much longer than the window a request counts, as a share of it. Requests whose ways to the exchange "
        "differ by less are counted as the exchange counts them.",
    ),
    "budget_scope": (
        "string",
        SCOPE,
        False,
        "What the exchange counts by: address (all keys share one budget) or key.",
    ),
    "ledger_conn_id": (
        "string",
        None,
        False,
        "Connection of the PostgreSQL database that holds the ledger of payments. Empty: a file in AIRFLOW_HOME, for "
        "executors that run all tasks on one host.",
    ),
    "applications_path": (
        "string",
        None,
        False,
        "Folder where applications wait, encrypted, until their users exist: a path, or a URI of any object store such "
        "as s3://connection@bucket/applications, that API server and workers reach. Empty: a folder in AIRFLOW_HOME, "
        "for executors that run all tasks on one host.",
    ),
    "applications_days": (
        "float",
        "7",
        False,
        "Days after which an application is removed if its user does not exist by then.",
    ),
    "budget_redis_url": (
        "string",
        None,
        True,
        "Redis where several hosts share the budget, such as redis://:password@host:6379/0. Empty: a file under "
        "AIRFLOW_HOME, for one host.",
    ),
}


def get_provider_info() -> dict[str, Any]:
    """
    Return the provider's metadata, as the entry point ``apache_airflow_provider`` promises.

    Airflow reads it in every process, while its configuration loads: it must stay cheap and import no Airflow.
    """
    return {
        "package-name": "airflow-provider-quoine",
        "name": "Quoine",
        "description": "User onboarding, bitcoin withdrawals and market streams of the Quoine exchange.",
        # The schema of provider.yaml, by which Airflow builds its own providers, requires these three.
        "state": "ready",
        "source-date-epoch": RELEASED,
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": INTEGRATION,
                "external-doc-url": "https://quoine.com/",
                "tags": ["service"],
            }
        ],
        "hooks": _modules("hooks", "quoine"),
        "operators": _modules(
            "operators",
            "onboarding",
            "withdrawals",
            "approval",
            "authorization",
            "market_data",
            "capture",
            "datasets",
            "reconciliation",
        ),
        "sensors": _modules("sensors", "onboarding", "withdrawals", "market_events"),
        "triggers": _modules("triggers", "polling", "market_data", "market_events", "capture"),
        # Without a handler of its own for the scheme, as Airflow wants it said.
        "asset-uris": [{"schemes": ["quoine"], "handler": None}],
        "extra-links": [
            f"{PACKAGE}.links.withdrawals.QuoineWithdrawalLink",
            f"{PACKAGE}.links.captures.QuoineCaptureReportLink",
        ],
        "cli": [f"{PACKAGE}.cli.definition.get_quoine_cli_commands"],
        "config": {
            "quoine": {
                "description": "The request budget that all processes share, the ledger of payments, and the place "
                "where applications of new users wait.",
                "options": {name: _option(*option) for name, option in OPTIONS.items()},
            }
        },
        "connection-types": [
            {
                "connection-type": "quoine",
                "hook-name": "Quoine",
                "hook-class-name": f"{PACKAGE}.hooks.quoine.QuoineHook",
                "ui-field-behaviour": {
                    # Not the port: Airflow 3.3 tests no connection without one (decisions, Connection test).
                    "hidden-fields": ["schema", "extra"],
                    "relabeling": {
                        "host": "Base URL",
                        "login": "API id",
                        "password": "API secret",
                        "port": "Port (Test needs one)",
                    },
                    "placeholders": {"host": PRODUCTION_URL, "port": "Type 443, or 0 if the base URL has its own"},
                },
                "conn-fields": connection_form(),
            }
        ],
    }


def _modules(floor: str, *names: str) -> list[dict[str, Any]]:
    return [
        {
            "integration-name": INTEGRATION,
            "python-modules": [f"{PACKAGE}.{floor}.{name}" for name in names],
        }
    ]


def _option(kind: str, default: str | None, sensitive: bool, description: str) -> dict[str, Any]:
    option = {"type": kind, "default": default, "description": description, "version_added": "0.1.0", "example": None}
    return {**option, "sensitive": True} if sensitive else option
