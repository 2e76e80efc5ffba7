"""Amounts: which values are refused, and that an amount stays exact as a number and as text."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quoine.exchange.amounts import MAXIMUM, Amount
from airflow_provider_quoine.exchange.errors import QuoineInputError

AMOUNTS = st.integers(1, int(MAXIMUM * 10**8)).map(lambda satoshi: Decimal(satoshi).scaleb(-8))


@given(AMOUNTS)
def test_an_amount_comes_back_from_its_text_exactly(amount: Decimal) -> None:
    text = str(Amount(amount))

    assert Amount(text) == amount
    assert Amount(Decimal(text)) == amount
    assert "E" not in text
    assert "e" not in text
    assert f"{Amount(text)}" == str(Amount(text)) == text


@given(st.text(max_size=30) | st.from_regex(r"[+-]?[0-9_.,]{1,20}([eE][+-]?[0-9]{1,3})?", fullmatch=True))
def test_a_text_is_either_refused_or_an_amount_that_can_be_sent(text: str) -> None:
    try:
        amount = Amount(text)
    except QuoineInputError:
        return
    assert 0 < amount <= MAXIMUM
    assert amount == amount.quantize(Decimal("1e-8"))
    assert Decimal(str(amount)) == amount


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("0.5", "0.5"),
        ("0.10000001", "0.10000001"),
        (" 1.50 ", "1.5"),
        ("0.00000001", "0.00000001"),
        ("007", "7"),
        ("100", "100"),
        ("21000000", "21000000"),
        (Decimal("5E-1"), "0.5"),
        (Decimal("1E+2"), "100"),
        (Decimal("1E-8"), "0.00000001"),
    ],
)
def test_amounts_are_written_in_plain_digits(text: str | Decimal, written: str) -> None:
    assert f"{Amount(text)}" == str(Amount(text)) == written


@pytest.mark.parametrize(
    "given",
    [
        *(
            "",
            " ",
            "0",
            "0.0",
            "-1",
            "+1",
            "1e3",
            "5E-1",
            "1,5",
            "1_000",
            "1.",
            ".5",
            "0x1",
            "NaN",
            "Infinity",
            "\uff11",
        ),
        *("0.123456789", "0.100000000", "21000000.00000001", "9" * 5000, "1 2", "1\n2", "½"),
        *(0.5, 1.0, float("nan"), True, False, None, [], b"1", object()),
        *(Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("-0.5"), Decimal(0), Decimal("1E-9")),
        *(Decimal("1E+999999"), Decimal("1E-999999")),
        *(2, 0x2, -1, 0, 10**4000),
    ],
)
def test_what_is_no_amount_is_refused(given: Any) -> None:
    with pytest.raises(QuoineInputError) as caught:
        Amount(given)
    assert len(str(caught.value)) < 250


def test_an_amount_is_used_as_it_is_where_it_goes_on() -> None:
    amount = Amount("0.5")
    assert Amount(amount) is amount
    assert f"{amount:.2f}" == "0.50"
