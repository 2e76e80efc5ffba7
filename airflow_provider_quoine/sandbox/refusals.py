"""Responses of the exchange to requests that it does not carry out."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response


class Refusal(Exception):  # noqa: N818 - a response of the exchange, not an error of the sandbox
    """
    A request that is not carried out.

    :param content: a str is sent as plain text, a dict as JSON (facts, Error bodies)
    :param reason: the exact reason, for ``/_sandbox/state``; the response itself often does not tell it
    """

    def __init__(self, status: int, content: str | dict[str, Any], *, reason: str | None = None) -> None:
        self.status = status
        self.content = content
        self.reason = reason or (content if isinstance(content, str) else content.get("message") or json.dumps(content))
        super().__init__(self.reason)

    def as_response(self) -> Response:
        """Write the response."""
        kind = PlainTextResponse if isinstance(self.content, str) else JSONResponse
        return kind(self.content, status_code=self.status)


def not_authenticated(reason: str, *, disclosed: bool = False) -> Refusal:
    """
    Refuse a signature, in the exchange's plain text (facts, Error bodies).

    :param disclosed: whether the response tells the reason too; only for a wrong ``Date`` (decisions, Sandbox), so that
        a client can distinguish a wrong clock from a wrong key
    """
    text = "API Authentication failed"
    return Refusal(401, f"{text}: {reason}" if disclosed else text, reason=reason)


def invalid(message: str) -> Refusal:
    """Refuse the form of a new user (facts, Error bodies)."""
    return Refusal(422, {"success": False, "message": message})


def unauthorized() -> Refusal:
    """Refuse a wrong password, or a user who asks about another user (api-reference 1.2)."""
    return Refusal(401, {"message": "Unauthorized access"})


def no_access(reason: str) -> Refusal:
    """Refuse a valid key that may not make this call: 503 (api-reference, Introduction)."""
    return Refusal(503, {"message": "Your application has no access to this API call"}, reason=reason)


def not_found() -> Refusal:
    """
    Refuse an unknown id. Ids of other users get the same response, so that they cannot be guessed (decisions, Sandbox).
    """
    return Refusal(404, {"message": "Not found"})
