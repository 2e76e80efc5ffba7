"""Decoding of the market's events."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quoine.exchange.errors import QuoineStreamDataError
from airflow_provider_quoine.exchange.market.messages import (
    PriceLevel,
    Side,
    decode_execution,
    decode_price_ladder,
    decode_product,
    decoding,
)


@pytest.mark.parametrize(
    "data", ['[["600.1","0.10000001"]]', "[[600.1, 0.10000001]]", "[[600.1, 1.0000001e-1]]", '[["600.10", 0.10000001]]']
)
def test_a_ladder_is_exact_from_strings_and_from_numbers(data: str) -> None:
    assert decode_price_ladder(data) == (PriceLevel(Decimal("600.1"), Decimal("0.10000001")),)


def test_an_empty_side_is_no_error() -> None:
    assert decode_price_ladder("[]") == ()


def test_a_book_of_100_000_levels_is_read() -> None:
    rows = [[f"{600 + row / 100:.2f}", "0.1"] for row in range(100_000)]
    assert decode_price_ladder(json.dumps(rows))[-1] == PriceLevel(Decimal("1599.99"), Decimal("0.1"))


MONEY = st.decimals(min_value=0, max_value=10**12, places=12)


@given(st.lists(st.tuples(MONEY, MONEY), max_size=40))
def test_every_ladder_is_read_back_as_it_was_written(rows: list[tuple[Decimal, Decimal]]) -> None:
    data = json.dumps([[format(price, "f"), format(quantity, "f")] for price, quantity in rows])
    assert decode_price_ladder(data) == tuple(PriceLevel(*row) for row in rows)


NO_NUMBERS = ["NaN", "Infinity", "-1", "1e999999999", "1_000", " 1", "0x1", "\u0663", "", "1e-31", "9" * 60, "1.", ".5"]


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_a_wrong_price_is_refused(number: str) -> None:
    with pytest.raises(QuoineStreamDataError, match="price ladder"):
        decode_price_ladder(json.dumps([[number, "1"]]))


@pytest.mark.parametrize(
    "data",
    [
        "",
        "{",
        "null",
        "{}",
        '"[]"',
        "[1]",
        '[["1"]]',
        '[["1","2","3"]]',
        '["12"]',
        "[[null,1]]",
        "[[true,1]]",
        "[[NaN,1]]",
        "[[-Infinity,1]]",
        "[" * 10_000,
        "[[" + "9" * 5_000 + ",1]]",
        "[[1e999999999999999999999,1]]",
    ],
)
def test_a_wrong_ladder_is_a_clear_error_of_bounded_length(data: str) -> None:
    with pytest.raises(QuoineStreamDataError) as caught:
        decode_price_ladder(data)
    assert len(str(caught.value)) < 400


@given(st.text())
def test_no_text_makes_a_decoder_fail_with_another_error(data: str) -> None:
    for decode in (decode_price_ladder, decode_execution, decode_product):
        try:
            decode(data)
        except QuoineStreamDataError:
            continue


EXECUTION = {"id": 90001, "quantity": "0.2", "price": "600.0", "taker_side": "sell", "created_at": 1473000000}


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(EXECUTION),
        '{"id": "90001", "quantity": 0.2, "price": 600.0, "taker_side": "sell", "created_at": 1473000000, "more": 1}',
    ],
)
def test_an_execution_is_read_from_the_older_and_the_newer_form(data: str) -> None:
    trade = decode_execution(data)
    assert (trade.id, trade.price, trade.quantity) == ("90001", Decimal(600), Decimal("0.2"))
    assert trade.taker_side is Side.SELL
    assert trade.created_at == datetime(2016, 9, 4, 14, 40, tzinfo=UTC)


@pytest.mark.parametrize(
    "change",
    [
        {"price": None},
        {"quantity": -1},
        {"taker_side": "both"},
        {"created_at": 10**30},
        {"created_at": "noon"},
        {"id": 1.5},
        {"id": None},
    ],
)
def test_a_wrong_execution_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(QuoineStreamDataError, match="execution"):
        decode_execution(json.dumps(EXECUTION | change))


def test_a_product_keeps_fields_that_are_not_on_record() -> None:
    product = decode_product(
        '{"id": 5, "code": "CASH", "market_ask": 61000.5, "volume_24h": "12.5", "margin": {"x": 0.1}}'
    )
    assert (product.id, product.code) == ("5", "CASH")
    assert (product.market_ask, product.volume_24h) == (Decimal("61000.5"), Decimal("12.5"))
    assert product.other == {"margin": {"x": Decimal("0.1")}}


def test_a_product_may_lack_or_null_any_field() -> None:
    product = decode_product('{"market_bid": null}')
    assert (product.market_bid, product.id, product.last_traded_price) == (None, None, None)
    assert product.other == {}


@pytest.mark.parametrize("data", ["[]", '{"market_ask": "NaN"}', '{"market_ask": false}', '{"code": []}'])
def test_a_wrong_product_is_refused(data: str) -> None:
    with pytest.raises(QuoineStreamDataError, match="product"):
        decode_product(data)


def test_executions_and_products_are_json_with_plain_digits() -> None:
    execution = decode_execution(
        '{"id": 90001, "quantity": 1E-8, "price": "600.0", "taker_side": "sell", "created_at": 1473000000}'
    )
    assert json.loads(json.dumps(execution.as_dict())) == {
        "id": "90001",
        "price": "600",
        "quantity": "0.00000001",
        "taker_side": "sell",
        "created_at": "2016-09-04T14:40:00+00:00",
    }
    product = decode_product('{"id": 5, "market_ask": 600.50, "new": {"deep": [1.5, null, "x"]}}').as_dict()
    assert (product["id"], product["market_ask"], product["market_bid"]) == ("5", "600.5", None)
    assert json.loads(json.dumps(product["other"])) == {"new": {"deep": ["1.5", None, "x"]}}


async def test_books_are_decoded_one_at_a_time_and_leave_the_loop_to_others_in_between() -> None:
    order: list[Any] = []

    async def decode(number: int) -> None:
        async with decoding():
            order.append(number)

    async def beat() -> None:
        while True:
            order.append("beat")
            await asyncio.sleep(0)

    heart = asyncio.create_task(beat())
    await asyncio.gather(*(decode(number) for number in range(20)))
    heart.cancel()
    assert [each for each in order if each != "beat"] == list(range(20)), "first come, first served"
    last = len(order) - 1 - order[::-1].index(19)
    assert Counter(order[:last])["beat"] >= 15
