"""Names of channels."""

from __future__ import annotations

import pytest

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.market.channels import executions_channel, price_ladder_channel, product_channel
from airflow_provider_quoine.exchange.market.messages import Side
from airflow_provider_quoine.exchange.market.pairs import Pair


def test_channel_names_are_those_of_the_reference() -> None:
    assert price_ladder_channel(Pair("btcjpy"), Side.SELL) == "price_ladders_cash_btcjpy_sell"
    assert executions_channel(Pair("BTCJPY")) == "executions_cash_btcjpy"
    assert product_channel(Pair("btcusd"), 1) == "product_cash_btcusd_1"


@pytest.mark.parametrize("pair", ["", "BTC/JPY", "btc_jpy", "btcjpy\n", "btc jpy", "btcjp\u00fd", "b" * 146, None, 5])
def test_a_wrong_pair_is_refused_because_its_channel_would_be_silent(pair: str) -> None:
    with pytest.raises(QuoineInputError):
        price_ladder_channel(Pair(pair), Side.BUY)


def test_a_product_on_record_needs_no_id() -> None:
    assert product_channel(Pair("BTCJPY")) == product_channel(Pair("btcjpy"), 5) == "product_cash_btcjpy_5"
    with pytest.raises(QuoineInputError, match="product id"):
        product_channel(Pair("qashjpy"))


@pytest.mark.parametrize("product_id", [0, -1, True, "5"])
def test_a_wrong_product_id_is_refused(product_id: int) -> None:
    with pytest.raises(QuoineInputError, match="product id"):
        product_channel(Pair("btcjpy"), product_id)


def test_a_name_of_164_characters_is_the_longest() -> None:
    pair = "b" * (164 - len("executions_cash_"))
    assert len(executions_channel(Pair(pair))) == 164
    with pytest.raises(QuoineInputError, match="164"):
        executions_channel(Pair(pair + "b"))
