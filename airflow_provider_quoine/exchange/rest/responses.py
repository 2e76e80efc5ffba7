"""Reads responses: from bytes to JSON or text, and from those to typed results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

from airflow_provider_quoine.exchange.errors import DEFAULT_RETRY_AFTER
from airflow_provider_quoine.exchange.exact_json import plain_number, read_json
from airflow_provider_quoine.exchange.models import (
    AuthCodeRequest,
    OnboardingAnswer,
    OnboardingStatus,
    UserCredentials,
    Withdrawal,
    WithdrawalOrder,
    clean_state,
    is_id,
    is_issued_id,
)
from airflow_provider_quoine.exchange.rest.quoting import is_page, words

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


def read_user_id(answer: Any) -> str:
    """
    Read the answer to "create onboarding user" (api-reference 1.1): ``{"success": true, "user_id": 25}``.

    :raises ValueError: without ``success: true`` or an id.
    """
    given = _success(answer)
    if given.get("success") is not True:
        raise ValueError("it does not say success: true")
    return _read_issued_id(given.get("user_id"))


def read_onboarding_answer(answer: Any) -> OnboardingAnswer:
    """
    Read the answer to "check onboarding user status" (api-reference 1.2).

    An unknown status is kept, upper-cased; the credentials are taken if both parts are there.

    :raises ValueError: without a status.
    """
    given = _success(answer)
    status, api_secret = given.get("status"), given.get("api_secret")
    if not isinstance(status, str) or not status.strip():
        raise ValueError("no readable status")
    credentials = None
    if isinstance(api_secret, str) and api_secret and given.get("api_id") is not None:
        credentials = UserCredentials(api_id=_read_id(given["api_id"]), api_secret=api_secret)
    try:
        return OnboardingAnswer(status=OnboardingStatus(status), credentials=credentials)
    except ValueError:
        return OnboardingAnswer(status=status.strip().upper(), credentials=credentials)


def read_auth_code_request(answer: Any) -> AuthCodeRequest:
    """
    Read the answer to "request auth code", whose shape is not in the reference (facts, Withdrawals).

    The status is a success, so every shape is taken but a web page, which cannot come from the exchange, and JSON that
    cannot be read.

    :raises ValueError: one of these two, or ``success`` that is not true.
    """
    if is_page(answer):
        raise ValueError("a web page instead of an answer")
    if isinstance(answer, str) and answer.lstrip().startswith(("{", "[")):
        raise ValueError("no JSON with each key once")
    given = _success(answer) if isinstance(answer, dict) else {}
    return AuthCodeRequest(sent=given.get("ignored") is not True, message=words(answer))


def read_withdrawal(answer: Any) -> Withdrawal:
    """
    Read a withdrawal (api-reference 2.1): id as int or str, amount as number or string, exactly.

    A state that is no word is :data:`~airflow_provider_quoine.exchange.models.UNREADABLE_STATE`: it goes into logs,
    XComs and the ledger.

    :raises ValueError: lacks one of the four, or one is unreadable.
    """
    given = _success(answer)
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
    number = _read_issued_id(given.get("id"))
    return Withdrawal(id=number, amount=exact, address=address.strip(), state=clean_state(state))


def read_created_withdrawal(answer: Any, *, order: WithdrawalOrder) -> Withdrawal:
    """
    Read the answer to "create a withdrawal" (api-reference 2.1).

    :param order: the order that was sent.
    :raises ValueError: as :func:`read_withdrawal`, and if it is another amount or address.
    """
    withdrawal = read_withdrawal(answer)
    if not order.is_paid_by(withdrawal):
        raise ValueError(f"its amount or address is not that of the order ({order})")
    return withdrawal


def _success(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise ValueError("no JSON object with each key once")
    if answer.get("success", True) is not True:
        raise ValueError("it says that it is no success")
    return answer


def _read_id(value: Any) -> str:
    """Read an id of an answer: int or str (facts, Onboarding; facts, Withdrawals), kept as str."""
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not is_id(text):
        raise ValueError("no readable id")
    return text


def _read_issued_id(value: Any) -> str:
    if not is_issued_id(number := _read_id(value)):
        raise ValueError("an id that is no positive whole number")
    return number
