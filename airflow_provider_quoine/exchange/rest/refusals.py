"""
Decides whether an answer surely is the exchange's refusal.

A withdrawal cannot be taken back, and a proxy or a load balancer may answer in the exchange's place after the exchange
has carried the request out. So the status alone proves nothing about a write (decisions, Doubt).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_quoine.exchange.errors import (
    STATUS_ERRORS,
    QuoineRefusedError,
    QuoineResponseError,
    QuoineServerError,
)

Shape = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _is_single(value: Any) -> bool:
    return not isinstance(value, dict | list)


def _tells_no_success(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _is_single(item) and key.lower() not in _OF_SUCCESSES and not key.lower().endswith("id")
        for key, item in value.items()
    )


#: What a success has beside its id (api-reference 1.1, 2.1).
_OF_SUCCESSES = frozenset({"amount", "address", "state"})
#: The key that explains a refusal, and what it holds (facts, Error bodies).
_EXPLANATIONS: Mapping[str, Shape] = {
    "message": _is_text,
    "errors": lambda value: isinstance(value, dict) and bool(value) and all(map(_are_texts, value.values())),
    "error": lambda value: _is_text(value["msg"] if isinstance(value, dict) and value.keys() == {"msg"} else value),
}
#: The keys on record beside it. Any other one is foreign, or belongs to a success (decisions, Doubt).
_BESIDE: Mapping[str, Shape] = {
    "success": lambda value: value is False,
    "code": _is_single,
    "additional_data": _tells_no_success,
}


def explains(answer: Any) -> bool:
    """
    Tell whether an answer has exactly one of the five JSON shapes of a refusal (facts, Error bodies).

    :param answer: from :func:`~airflow_provider_quoine.exchange.rest.responses.parse`.
    """
    if not isinstance(answer, dict) or len(answer.keys() & _EXPLANATIONS.keys()) != 1:
        return False
    shapes = {**_EXPLANATIONS, **_BESIDE}
    return all(key in shapes and shapes[key](value) for key, value in answer.items())


def _says_no(answer: Any) -> bool:
    return explains(answer) and {"success", "message"} <= answer.keys()


def _reads(pattern: str) -> Shape:
    return lambda answer: isinstance(answer, str) and re.fullmatch(pattern, answer.strip()) is not None


JSON, TEXT = "application/json", "text/plain"

REFUSALS: Mapping[tuple[int, str], Shape] = {
    # (api-reference 1.1; facts, Error bodies)
    (200, JSON): _says_no,
    # (api-reference, Introduction; facts, Error bodies)
    (400, JSON): explains,
    (401, JSON): explains,
    (422, JSON): explains,
    (503, JSON): explains,
    # (facts, Error bodies; decisions, Sandbox: the reason after the colon)
    (401, TEXT): _reads(r"Nonce is too small|API Authentication failed(: [^<>]{1,200})?"),
    # (facts, Error bodies)
    (429, TEXT): _reads(r"API rate limit exceeded\. Please retry after [0-9]{1,9}(\.[0-9]{1,9})?s"),
}
"""
The refusals on record: status and media type, and the shape of the body. Whether one was surely not carried out is said
by its error: a 503 may have been, for it has several meanings.
"""


def error_of(
    *, status: int, media_type: str, answer: Any, whole: bool, writes: bool
) -> type[QuoineResponseError] | None:
    """
    Return the error that an answer is by its status, and for a write by its shape too.

    :param media_type: of the Content-Type header, without parameters, in lower case.
    :param answer: from :func:`~airflow_provider_quoine.exchange.rest.responses.parse`.
    :param whole: whether the body was read to its end.
    :param writes: whether the request must not be repeated blindly.
    :return: None for a success, whose data are still to be read.
    """
    succeeded = 200 <= status < 300
    if writes:
        shape = REFUSALS.get((status, media_type))
        refused = whole and shape is not None and shape(answer)
    else:
        refused = not succeeded or (isinstance(answer, dict) and answer.get("success") is False)
    if refused:
        return STATUS_ERRORS.get(status, QuoineRefusedError if succeeded else QuoineServerError)
    return None if succeeded else QuoineServerError
