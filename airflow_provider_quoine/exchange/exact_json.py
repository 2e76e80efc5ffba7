"""JSON with exact numbers: fractions are read as Decimal and written as plain digits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NoReturn

MAX_DEPTH = 32
"""Most brackets that may be open at once, far more than any answer or message has. Deeper nests exhaust the stack."""

DIGITS = 40
"""Most digits before and after the point. A longer number is not money, and could exhaust the memory."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _read_fraction(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except ArithmeticError:
        raise ValueError("a number of absurd length") from None
    plain_number(value)
    return value


def _read_object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise ValueError("a key twice in one object")
    return read


_NO_BRACKETS = re.compile(r"[^][]+")


def _is_too_deep(text: str) -> bool:
    """Tell whether more than :data:`MAX_DEPTH` brackets are open at once, in a time that only the length decides."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    # What stands between quotes is no bracket. Without escapes, every second part stands between two of them.
    outside = "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])
    brackets = _NO_BRACKETS.sub("", outside.replace("{", "[").replace("}", "]"))
    for _ in range(MAX_DEPTH):
        before, brackets = len(brackets), brackets.replace("[]", "")  # the innermost level
        if len(brackets) == before:
            break
    return bool(brackets)


def plain_number(value: Decimal) -> str:
    """
    Write a Decimal in plain digits: ``0.5``, ``0.10000001``, never ``5E-1`` (facts, Withdrawals).

    :param value: a finite number; zeros at the end of its fraction are dropped.
    :return: the digits, exact.
    :raises ValueError: not finite, or of absurd length.
    """
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or abs(exponent) > DIGITS or abs(value.adjusted()) > DIGITS:
        raise ValueError("not a finite number of sensible length")
    if not value:
        return "0"
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def read_json(text: str) -> Any:
    """
    Parse JSON with every fraction as Decimal.

    :param text: the JSON.
    :return: dict, list, str, int, Decimal, bool or None.
    :raises ValueError: no JSON, or NaN, Infinity, a number of absurd length, more than :data:`MAX_DEPTH` nests, or an
        object that has a key twice: readers differ in which of the two they take.
    """
    if _is_too_deep(text):
        raise ValueError(f"brackets that do not match, or more than {MAX_DEPTH} of them open at once")
    return json.loads(text, parse_float=_read_fraction, parse_constant=_refuse_constant, object_pairs_hook=_read_object)


def write_json(value: Any) -> str:
    """
    Write compact JSON, with keys in their order and Decimals as exact numbers.

    :param value: dict, list, str, int, Decimal, bool or None.
    :return: the text.
    :raises TypeError: a float, or another type that is not listed above.
    :raises ValueError: a Decimal that is not finite.
    """
    if isinstance(value, Decimal):
        return plain_number(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(key)}:{write_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(write_json, value)) + "]"
    if value is not None and not isinstance(value, str | int):
        raise TypeError(f"{type(value).__name__} does not belong into a request; money is Decimal")
    return json.dumps(value)
