"""The provider's routes in Airflow's API server."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Header, HTTPException

from airflow_provider_quoine.api_server import WIPE, is_from_this_airflow
from airflow_provider_quoine.cli.typed_codes import wipe_typed_codes


def make_app() -> FastAPI:
    """Make the app; it has no pages of its own documentation."""
    app = FastAPI(title="Quoine", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route(WIPE, wipe, methods=["POST"])
    return app


def wipe(x_quoine_token: Annotated[str, Header(max_length=500)]) -> dict[str, int]:
    """
    Wipe codes that people have typed for tasks which could not take them.

    :param x_quoine_token: shows that a process of this Airflow asks.
    :raises HTTPException: 403 for everybody else.
    """
    if not is_from_this_airflow(x_quoine_token, WIPE):
        raise HTTPException(403, "Only a task of this Airflow may ask for this.")
    return {"wiped": wipe_typed_codes()}
