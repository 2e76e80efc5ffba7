"""What the exchange answers when it does not do what it was asked."""

from __future__ import annotations

import json
from typing import Any


class Refusal(Exception):  # noqa: N818 - an answer of the exchange, no error of the sandbox
    """
    A request that is not carried out.

    :param status: HTTP status of the answer
    :param content: a str goes out as plain text, anything else as JSON (facts, "Error bodies")
    :param reason: what was wrong, for the record at ``/_sandbox/state``: the answer itself often does not tell
    """

    def __init__(self, status: int, content: str | dict[str, Any], *, reason: str | None = None) -> None:
        self.status = status
        self.content = content
        self.reason = reason or (content if isinstance(content, str) else content.get("message") or json.dumps(content))
        super().__init__(self.reason)


def not_authenticated(reason: str, *, told: bool = False) -> Refusal:
    """
    Refuse a signature in the exchange's plain text (facts, "Error bodies").

    :param reason: what was wrong, for the record
    :param told: whether the answer says it as well; decided for a wrong ``Date`` only, so that a client can tell
        a wrong clock from a wrong key
    """
    text = "API Authentication failed"
    return Refusal(401, f"{text}: {reason}" if told else text, reason=reason)


def unauthorized() -> Refusal:
    """Refuse a user's password, or a user who asks about another (api-reference 1.2)."""
    return Refusal(401, {"message": "Unauthorized access"})


def no_access(reason: str) -> Refusal:
    """Refuse a key that is right but may not make this call: 503 (api-reference, "Introduction")."""
    return Refusal(503, {"message": "Your application has no access to this API call"}, reason=reason)


def not_found() -> Refusal:
    """Refuse what does not exist, or is somebody else's: nobody learns which (decided)."""
    return Refusal(404, {"message": "Not found"})
