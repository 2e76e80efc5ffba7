"""What Airflow discovers of this provider: its connection form and its modules."""

from __future__ import annotations

from typing import Any

from airflow_provider_quoine import __version__
from airflow_provider_quoine.hooks.settings import PRODUCTION_URL, connection_form

PACKAGE = "airflow_provider_quoine"
INTEGRATION = "Quoine"
#: When the version was made, in Unix seconds: 2026-11-22.
RELEASED = 1795305600


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
        "operators": _modules("operators", "onboarding", "withdrawals", "authorization", "market_data"),
        "sensors": _modules("sensors", "onboarding", "withdrawals"),
        "triggers": _modules("triggers", "polling", "market_data"),
        "extra-links": [f"{PACKAGE}.links.withdrawals.QuoineWithdrawalLink"],
        "cli": [f"{PACKAGE}.cli.definition.get_quoine_cli_commands"],
        "connection-types": [
            {
                "connection-type": "quoine",
                "hook-name": "Quoine",
                "hook-class-name": f"{PACKAGE}.hooks.quoine.QuoineHook",
                "ui-field-behaviour": {
                    "hidden-fields": ["port", "schema", "extra"],
                    "relabeling": {"host": "Base URL", "login": "API id", "password": "API secret"},
                    "placeholders": {"host": PRODUCTION_URL},
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
