"""How the pages are written: Jinja templates, escaped, in one layout."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Any

from airflow.api_fastapi.app import API_ROOT_PATH
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException as StarletteHTTPException

from airflow_provider_quoine.api_server import PREFIX
from airflow_provider_quoine.applications.store import QuoineApplicationsError
from airflow_provider_quoine.exchange.exact_json import plain_number
from airflow_provider_quoine.plugins.protection import form_token

BASE = f"{API_ROOT_PATH.rstrip('/')}{PREFIX}"
"""Where the pages begin, as a browser sees it: behind the path of ``[api] base_url``."""
INVALID_LOGIN = "Invalid JWT token"
"""Airflow's words, with status 403, for a login that was ended elsewhere, or is of a user who is not there any more."""
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
)
_TEMPLATES.filters["utc"] = lambda moment: f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
_TEMPLATES.filters["amount"] = plain_number
_TEMPLATES.globals.update(base=BASE, airflow=API_ROOT_PATH.rstrip("/"))


def page(template: str, *, user: BaseUser, status: int = 200, **values: Any) -> HTMLResponse:
    """
    Write a page.

    :param template: file in ``templates``; it has ``user``, ``token`` for its forms, ``base`` for links to these pages
        and ``airflow`` for links to Airflow's own.
    """
    words = _TEMPLATES.get_template(template).render(user=user, token=form_token(user), **values)
    return HTMLResponse(words, status_code=status)


def see(path: str) -> RedirectResponse:
    """Send the browser to one of these pages after a form, so that a reload does not send the form again."""
    return RedirectResponse(f"{BASE}{path}", status_code=303)


def add_error_pages(app: FastAPI) -> None:
    """Answer a browser with a page, and a program with JSON, where something is refused."""
    app.exception_handler(StarletteHTTPException)(_refused)
    app.exception_handler(RequestValidationError)(_misunderstood)
    app.exception_handler(QuoineApplicationsError)(_unreachable)


def _refused(request: Request, error: StarletteHTTPException) -> Response:
    if error.detail == INVALID_LOGIN:
        return refuse(request, 401, "Airflow does not accept your login any more.")
    return refuse(request, error.status_code, str(error.detail))


def _unreachable(request: Request, error: QuoineApplicationsError) -> Response:
    return refuse(request, 503, str(error))


def _misunderstood(request: Request, error: RequestValidationError) -> Response:
    # The input itself is left out: it may be a secret.
    faults = "; ".join(f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors())
    return refuse(request, 422, f"This is not what the page sends: {faults}.")


def refuse(request: Request, status: int, words: str) -> Response:
    """Answer a browser with a page, and a program with JSON."""
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"detail": words}, status_code=status)
    shown = _TEMPLATES.get_template("error.html").render(status=status, words=words, user=None)
    return HTMLResponse(shown, status_code=status)
