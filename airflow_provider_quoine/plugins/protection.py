"""What protects the pages: headers on every answer, a bound on every request, and a token in every form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.configuration import conf
from fastapi import Form, HTTPException, Request
from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
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
FAILED = (
    "This page failed. The API server's log says why. If you have just decided something, it may be recorded or not: "
    "open the payment or the applicant again before you decide once more."
)
TOO_OLD = HTTPException(403, "This form is too old, or was opened by somebody else. Nothing was done: open it again.")


class Protection:
    """
    Adds the headers to every answer, refuses a body that is too large before it is read, and answers in words where a
    page fails.

    :param app: what it protects.
    :param refuse: makes the answer to a request, of a status and words.
    :param most_bytes: paths with a bound of their own, in bytes.
    """

    def __init__(
        self, app: ASGIApp, refuse: Callable[[Request, int, str], Response], most_bytes: dict[str, int]
    ) -> None:
        self._app = app
        self._refuse = refuse
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        answered = False

        async def send_with_headers(message: Message) -> None:
            nonlocal answered
            answered = True
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
            answer = self._refuse(Request(scope), 411 if chunked else 413, words)
            await answer(scope, receive, send_with_headers)
            return
        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            # Without the error's own words: they may hold a secret. The log of the API server has them all.
            if not answered:
                await self._refuse(Request(scope), 500, FAILED)(scope, receive, send_with_headers)
            raise


def form_token(user: BaseUser) -> str:
    """Make the token that shows that a form was opened by the person who sends it."""
    return _serializer().dumps(str(user.get_id()))


def from_our_form(request: Request, user: GetUserDep, token: Annotated[str, Form(max_length=1000)] = "") -> None:
    """
    Let only a form pass that this person opened on these pages: another site can make a browser send one.

    :param token: the form's hidden field.
    :raises HTTPException: 403 for anything else.
    """
    from_our_site(request)
    if _read(token) != str(user.get_id()):
        raise TOO_OLD


def from_our_site(request: Request) -> None:
    """
    Let no form pass that a browser says another site has sent.

    :raises HTTPException: 403 for such a form.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "This form was sent by another site. Nothing was done.")


def one_time_token(user: BaseUser, name: str) -> str:
    """
    Make the token of a form that counts once, however often it is sent.

    :param name: of what the form makes.
    """
    return _serializer().dumps([str(user.get_id()), name])


def name_in(token: str, user: BaseUser) -> str:
    """
    Return the name in a token of :func:`one_time_token`.

    :raises HTTPException: 403 if this person has not opened the form, or too long ago.
    """
    match _read(token):
        case [opened_by, str(name)] if opened_by == str(user.get_id()):
            return name
    raise TOO_OLD


def _read(token: str) -> Any:
    try:
        return _serializer().loads(token, max_age=FORM_VALID_FOR)
    except BadData:
        return None


def _serializer() -> URLSafeTimedSerializer:
    # The servers of one Airflow share this key.
    return URLSafeTimedSerializer(conf.get_mandatory_value("api", "secret_key"), salt="quoine-form")


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(str(scope.get("root_path", "")))


def _is_static(scope: Scope) -> bool:
    return _path(scope).startswith("/static/")
