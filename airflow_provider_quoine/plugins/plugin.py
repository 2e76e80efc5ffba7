"""Airflow's plugin, which every process of Airflow loads: it must stay cheap."""

from __future__ import annotations

from typing import Any

from airflow.sdk.plugins_manager import AirflowPlugin

from airflow_provider_quoine.api_server import PREFIX


class QuoinePlugin(AirflowPlugin):
    """Adds the desk's pages, and the provider's routes, to Airflow's API server."""

    name = "quoine"
    #: Where Airflow's page shows ours, in frames; an address without a slash in front is below ``[api] base_url``.
    external_views: list[Any] = [  # Airflow's class declares it so
        {
            "name": "Quoine",
            "href": f"{PREFIX.lstrip('/')}/payments",
            "destination": "nav",
            "url_route": "quoine",
        },
        {
            # Airflow shows it on every task; where there is no book the page says so.
            "name": "Order book",
            "href": f"{PREFIX.lstrip('/')}/book/{{DAG_ID}}/{{RUN_ID}}/{{TASK_ID}}/{{MAP_INDEX}}",
            "destination": "task_instance",
            "url_route": "quoine-book",
        },
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]  # only the API server asks, so only it imports
        """The app with the routes."""
        from airflow_provider_quoine.plugins.app import make_app

        return [{"app": make_app(), "url_prefix": PREFIX, "name": "Quoine"}]
