"""What protects the pages: headers on every answer, a bound on every request, and a token in every form."""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.configuration import conf
from fastapi import Form, HTTPException, Request
from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    # Nothing from elsewhere, no script or style in the page itself, and only Airflow's own page may frame it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'self'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
MOST_BYTES = 64 * 1024
"""Of a request's body, unless its path has a bound of its own."""
FORM_VALID_FOR = 12 * 3600
"""Seconds for which a form may stay open."""


class Protection:
    """
    Adds the headers to every answer, and refuses a body that is too large before it is read.

    :param app: what it protects.
    :param most_bytes: paths with a bound of their own, in bytes.
    """

    def __init__(self, app: ASGIApp, most_bytes: dict[str, int] | None = None) -> None:
        self._app = app
        self._most_bytes = most_bytes or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if not _is_static(scope):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        bound = self._most_bytes.get(_path(scope), MOST_BYTES)
        length = dict(scope["headers"]).get(b"content-length", b"")
        chunked = scope["method"] in ("POST", "PUT", "PATCH") and not length
        if chunked or (length and (not length.isdigit() or int(length) > bound)):
            words = (
                "Send the form with its length."
                if chunked
                else f"The form is larger than {bound // 1024} KiB. Nothing of it was read."
            )
            await JSONResponse({"detail": words}, status_code=411 if chunked else 413)(
                scope, receive, send_with_headers
            )
            return
        await self._app(scope, receive, send_with_headers)


def form_token(user: BaseUser) -> str:
    """Make the token that shows that a form was opened by the person who sends it."""
    return _serializer().dumps(str(user.get_id()))


def from_our_form(request: Request, user: GetUserDep, token: Annotated[str, Form(max_length=1000)] = "") -> None:
    """
    Let only a form pass that this person opened on these pages: another site can make a browser send one.

    :param token: the form's hidden field.
    :raises HTTPException: 403 for anything else.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "This form was sent by another site. Nothing was done.")
    try:
        opened_by = _serializer().loads(token, max_age=FORM_VALID_FOR)
    except BadData:
        opened_by = None
    if opened_by != str(user.get_id()):
        raise HTTPException(
            403, "This form is too old, or was opened by somebody else. Nothing was done: open it again."
        )


def _serializer() -> URLSafeTimedSerializer:
    # The servers of one Airflow share this key.
    return URLSafeTimedSerializer(conf.get_mandatory_value("api", "secret_key"), salt="quoine-form")


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(str(scope.get("root_path", "")))


def _is_static(scope: Scope) -> bool:
    return _path(scope).startswith("/static/")
