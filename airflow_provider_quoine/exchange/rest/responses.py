"""Reads responses: from bytes to the server's words and to typed results."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any
from urllib.parse import quote, quote_plus

from airflow_provider_quoine.exchange.errors import DEFAULT_RETRY_AFTER
from airflow_provider_quoine.exchange.exact_json import plain_number, read_json, write_json
from airflow_provider_quoine.exchange.models import (
    AuthCodeRequest,
    OnboardingAnswer,
    OnboardingStatus,
    UserCredentials,
    Withdrawal,
    is_id,
)

EXCERPT_CHARACTERS = 500
"""Characters of a body, or of the server's words, that an error quotes at most."""

_SPELLINGS: tuple[Callable[[str], str], ...] = (
    str,
    lambda text: json.dumps(text)[1:-1],
    lambda text: quote(text, safe="", errors="replace"),
    lambda text: quote_plus(text, errors="replace"),
    html.escape,
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ufeff]+")
_WAIT = re.compile(r"after\s+(\d{1,9}(?:\.\d{1,9})?)\s*s", re.IGNORECASE)


def decode(body: bytes, charset: str | None) -> str:
    """
    Decode a body. It never fails: UTF-8, else the header's charset, else Latin-1.

    :param body: the bytes.
    :param charset: of the Content-Type header; sometimes wrong (facts, Error bodies).
    """
    for name in ("utf-8-sig", charset or "utf-8"):
        try:
            return body.decode(name)
        except (LookupError, ValueError):
            continue
    return body.decode("latin-1")


def parse(text: str) -> Any:
    """Return the JSON value of the text, or the text itself if it is not JSON."""
    try:
        return read_json(text)
    except ValueError:
        return text


def words(answer: Any) -> str:
    """
    Return the server's own words, from all five JSON shapes on record (facts, Error bodies), plain text or HTML.

    :param answer: from :func:`parse`.
    :return: may be empty; not yet scrubbed.
    """
    if isinstance(answer, dict):
        said = (_flat(answer[key]) for key in ("message", "errors", "error") if key in answer)
        return "; ".join(filter(None, said))
    if isinstance(answer, str) and answer.lstrip().startswith("<"):
        # The text of styles and scripts is not for people.
        without = re.sub(r"(?is)<(style|script)\b.*?</\1\s*>|<[^>]*>", " ", answer)
        return " ".join(html.unescape(without).split())
    return _flat(answer)


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        inner = value.get("msg", value.get("message"))
        if inner is not None:
            return _flat(inner)
        return "; ".join(f"{key}: {_flat(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_flat, value))
    return "" if value is None else str(value).strip()


class Scrubber:
    """
    Makes a server's text fit for an error: without control characters and secrets, and not too long.

    :param secrets: to hide, as they are and as JSON, a URL or HTML writes them; empty ones are left out.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(filter(None, secrets))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # Compiled on first use: it costs as much as half a request.
        spellings = {spelling(secret) for secret in self._secrets for spelling in _SPELLINGS}
        # The longest first: a shorter one inside it would leave its rest.
        return re.compile("|".join(map(re.escape, sorted(spellings, key=len, reverse=True))) or r"(?!)")

    def __repr__(self) -> str:
        return "Scrubber(***)"

    def hide(self, text: str) -> str:
        """Return the text without secrets and control characters."""
        return self._pattern.sub("***", _CONTROL.sub("", text))

    def __call__(self, text: str) -> str:
        """Return the text without secrets, on one line, cut to :data:`EXCERPT_CHARACTERS`."""
        clean = self.hide(text).strip()
        # Cut last: a secret that is cut would not be found.
        return clean if len(clean) <= EXCERPT_CHARACTERS else f"{clean[:EXCERPT_CHARACTERS]}…"


def excerpt(answer: Any) -> str:
    """Return the body to quote: its text, or its JSON written anew, so that no escape sequence hides a secret."""
    return words(answer) if isinstance(answer, str) else write_json(answer)


def retry_after(headers: Mapping[str, str], text: str, now: datetime) -> float:
    """
    Return how long a 429 asks to wait.

    :param headers: of the response; Retry-After has seconds or a date.
    :param text: the server's words, such as ``Please retry after 300s`` (facts, Error bodies).
    :param now: aware.
    :return: seconds, not negative; :data:`~airflow_provider_quoine.exchange.errors.DEFAULT_RETRY_AFTER` if
        neither names a time.
    """
    header = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", header, re.ASCII):
        return float(header)
    if date := read_http_date(header):
        return max(0.0, (date - now).total_seconds())
    found = _WAIT.search(text)
    return float(found[1]) if found else DEFAULT_RETRY_AFTER


def read_http_date(header: str | None) -> datetime | None:
    """
    Read the date of an HTTP header (RFC 7231).

    :return: aware; None if it is missing or unreadable.
    """
    try:
        date = parsedate_to_datetime(header or "")
    except ValueError:
        return None
    return date.replace(tzinfo=date.tzinfo or UTC)


def read_id(value: Any) -> str:
    """
    Read an id of an answer: int or str (facts, Onboarding; facts, Withdrawals), kept as str.

    :raises ValueError: missing or something else.
    """
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not is_id(text):
        raise ValueError("no readable id")
    return text


def read_user_id(answer: Any) -> str:
    """
    Read the answer to "create onboarding user" (api-reference 1.1): ``{"success": true, "user_id": 25}``.

    :raises ValueError: without an id.
    """
    return read_id(_object(answer).get("user_id"))


def read_onboarding_answer(answer: Any) -> OnboardingAnswer:
    """
    Read the answer to "check onboarding user status" (api-reference 1.2).

    An unknown status is kept, upper-cased; the credentials are taken if both parts are there.

    :raises ValueError: without a status.
    """
    given = _object(answer)
    status, api_secret = given.get("status"), given.get("api_secret")
    if not isinstance(status, str) or not status.strip():
        raise ValueError("no readable status")
    credentials = None
    if isinstance(api_secret, str) and api_secret and given.get("api_id") is not None:
        credentials = UserCredentials(api_id=read_id(given["api_id"]), api_secret=api_secret)
    try:
        return OnboardingAnswer(status=OnboardingStatus(status), credentials=credentials)
    except ValueError:
        return OnboardingAnswer(status=status.strip().upper(), credentials=credentials)


def read_auth_code_request(answer: Any) -> AuthCodeRequest:
    """
    Read the answer to "request auth code", whose shape is not in the reference (facts, Withdrawals).

    The status is a success, so every shape is taken but a web page, which cannot come from the exchange.

    :raises ValueError: a web page.
    """
    if isinstance(answer, str) and answer.lstrip().startswith("<"):
        raise ValueError("a web page instead of an answer")
    ignored = isinstance(answer, dict) and answer.get("ignored") is True
    return AuthCodeRequest(sent=not ignored, message=words(answer))


def read_withdrawal(answer: Any) -> Withdrawal:
    """
    Read a withdrawal (api-reference 2.1): id as int or str, amount as number or string, exactly.

    :raises ValueError: lacks one of the four, or one is unreadable.
    """
    given = _object(answer)
    amount, address, state = (given.get(key) for key in ("amount", "address", "state"))
    if isinstance(amount, bool) or not isinstance(amount, Decimal | int | str):
        raise ValueError("no readable amount")
    if not isinstance(address, str) or not address.strip() or not isinstance(state, str) or not state.strip():
        raise ValueError("no readable address or state")
    try:
        exact = Decimal(amount)
        plain_number(exact)
    except (ArithmeticError, ValueError):
        raise ValueError("no readable amount") from None
    return Withdrawal(id=read_id(given.get("id")), amount=exact, address=address.strip(), state=state.strip().lower())


def _object(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise ValueError("no JSON object")
    return answer
