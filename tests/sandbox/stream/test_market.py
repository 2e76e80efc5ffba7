"""The generated market, as a client receives it: order books, executions, tickers."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.support.pusher_clients import BUY, SELL, connect, drain, receive, send, subscribe


def test_a_book_is_whole_sorted_and_in_strings(busy: SandboxServer) -> None:
    with connect(busy) as client:
        receive(client)
        for channel, descending in ((BUY, True), (SELL, False)):
            subscribe(client, channel)
            message = receive(client)
            assert (message["event"], message["channel"]) == ("updated", channel)
            rows = json.loads(message["data"])
            prices = [Decimal(price) for price, _ in rows]
            assert len(rows) == 40
            assert all(isinstance(part, str) for row in rows for part in row)
            assert prices == sorted(set(prices), reverse=descending)
            assert all(Decimal(quantity) > 0 for _, quantity in rows)
            send(client, "pusher:unsubscribe", channel=channel)
            send(client, "pusher:ping")
            while receive(client)["event"] != "pusher:pong":
                """Events of before."""
            assert isinstance(drain(client), TimeoutError)


@pytest.mark.parametrize(("form", "kind"), [("string", str), ("number", float)])
def test_executions_and_products_have_numbers_or_strings_as_set(form: Any, kind: type) -> None:
    with SandboxServer(SandboxSettings(market_rate=50, market_amounts=form)) as sandbox, connect(sandbox) as client:
        receive(client)
        subscribe(client, "executions_cash_btcusd")
        execution = json.loads(receive(client)["data"])
        assert isinstance(execution["price"], kind)
        assert isinstance(execution["quantity"], kind)
        assert execution["taker_side"] in {"buy", "sell"}
        assert abs(execution["created_at"] - time.time()) < 60
        subscribe_channel = "product_cash_btcusd_1"
        send(client, "pusher:subscribe", channel=subscribe_channel)
        while (message := receive(client))["event"] != "updated":
            pass
        product = json.loads(message["data"])
        assert (product["id"], product["currency_pair_code"], product["pusher_channel"]) == (
            1,
            "BTCUSD",
            subscribe_channel,
        )
        assert isinstance(product["market_bid"], kind)
        assert Decimal(str(product["market_bid"])) < Decimal(str(product["market_ask"]))
