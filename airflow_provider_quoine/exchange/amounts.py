"""Amounts of bitcoin."""

from __future__ import annotations

import re
from decimal import Context, Decimal
from typing import Self

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.exact_json import plain_number

DECIMALS = 8
"""Bitcoin's smallest unit is 0.00000001."""

MAXIMUM = Decimal(21_000_000)
"""More bitcoin than this cannot exist, so a larger amount is a mistake."""

_PLAIN = re.compile(r"[0-9]+(?:\.[0-9]+)?")


class Amount(Decimal):
    """
    An amount of bitcoin that can be paid: checked once, an exact Decimal from then on.

    As text it is plain digits: ``0.5``, ``0.10000001``, never ``5E-1``; zeros at the end are dropped.

    :param value: plain digits such as ``"0.5"``, or a Decimal; above zero, at most 8 decimals as written. A float is
        not exact. An int is refused too: where Airflow renders templates as native objects, the text ``0x2`` arrives
        as the int 2.
    :raises QuoineInputError: anything else (facts, Withdrawals): not finite, zero, negative.
    """

    __slots__ = ()

    def __new__(cls, value: str | Decimal) -> Self:
        if isinstance(value, cls):
            return value
        if not isinstance(value, str | Decimal):
            raise QuoineInputError(
                f"An amount must be text such as '0.5', not {type(value).__name__}. In a DAG with "
                "render_template_as_native_obj, write quotes around the template: \"'{{ params.amount }}'\"."
            )
        plain = format(value, "f") if isinstance(value, Decimal) else value.strip()
        if len(plain) > 40 or not _PLAIN.fullmatch(plain):
            raise QuoineInputError(
                f"{plain[:40]!r} is no amount: give plain digits such as '0.5', without sign, exponent or separators."
            )
        amount = super().__new__(cls, plain)
        if amount <= 0:
            raise QuoineInputError(f"The amount is {plain}: it must be above zero.")
        if amount > MAXIMUM:
            raise QuoineInputError(f"The amount is {plain}: more bitcoin than can exist.")
        if len(plain.partition(".")[2]) > DECIMALS:
            raise QuoineInputError(f"The amount {plain} has more than {DECIMALS} decimals.")
        return amount

    def __str__(self) -> str:
        return plain_number(self)

    def __format__(self, specifier: str, context: Context | None = None, /) -> str:
        return super().__format__(specifier) if specifier else str(self)
