"""The provider's pages and routes in Airflow's API server."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from airflow_provider_quoine.plugins import applicants, books, home, payments, tasks
from airflow_provider_quoine.plugins.pages import add_error_pages, refuse
from airflow_provider_quoine.plugins.protection import Protection
from airflow_provider_quoine.plugins.uploads import MOST_FORM_BYTES

STATIC = Path(__file__).parent / "static"


def make_app() -> FastAPI:
    """Make the app; it has no pages of its own documentation."""
    app = FastAPI(title="Quoine", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Protection, refuse=refuse, most_bytes={applicants.NEW: MOST_FORM_BYTES})
    add_error_pages(app)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for module in (home, applicants, payments, books, tasks):
        app.include_router(module.router)
    return app
