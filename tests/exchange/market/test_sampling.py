"""Snapshots of a book whose channels carry other things too."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta, tzinfo
from unittest import mock

import pytest
from websockets.asyncio.server import ServerConnection

from airflow_provider_quoine.exchange.market import sampling
from airflow_provider_quoine.exchange.market.order_book import OrderBook
from airflow_provider_quoine.exchange.market.pairs import Pair
from airflow_provider_quoine.exchange.market.sampling import OnDoubt, Sampler
from tests.exchange.stream.pusher_servers import GREETING, confirm, send_event, websocket_server
from tests.support.streams import ASKS, BIDS, LIMIT, open_stream, until


async def test_another_event_hides_no_book_and_a_message_that_cannot_be_read_makes_it_stale() -> None:
    steps = [asyncio.Event() for _ in range(3)]

    async def script(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        for channel in (ASKS, BIDS):
            await connection.recv()
            await confirm(connection, channel)
        await send_event(connection, BIDS, '[["600", "1"]]')
        await send_event(connection, ASKS, '[["601", "1"]]')
        await steps[0].wait()
        await send_event(connection, BIDS, '[["600.5", "1"]]')
        await connection.send(json.dumps({"event": "other", "channel": BIDS, "data": "{}"}))
        await steps[1].wait()
        await connection.send('{"event": "updated", "channel": "' + BIDS + '", "data": {"a": ')
        await steps[2].wait()
        # Nobody knows of which channel the message was.
        await send_event(connection, BIDS, '[["600.7", "1"]]')
        await send_event(connection, ASKS, '[["601", "1"]]')
        await connection.wait_closed()

    async def seen(sampler: Sampler) -> tuple[str | None, bool]:
        snapshot = await sampler.take(datetime.now(UTC))
        assert snapshot is not None
        given = snapshot.as_dict()
        return given["best_bid"], given["stale"]

    async with (
        websocket_server(script) as endpoint,
        open_stream(endpoint, BIDS, ASKS, queue_size=None) as stream,
    ):
        sampler = Sampler(OrderBook(pair=Pair("btcjpy")), stream, on_doubt=OnDoubt.MARK)
        await sampler.pull_first()
        assert await seen(sampler) == ("600", False)
        steps[0].set()
        await until(lambda: (other := stream.newest(BIDS)) and other.event == "other")
        assert await seen(sampler) == ("600.5", False)
        steps[1].set()
        await until(lambda: sampler.pull() is False)
        assert await seen(sampler) == ("600.5", True)
        assert stream.unreadable == 1
        steps[2].set()
        await until(sampler.pull)
        assert await seen(sampler) == ("600.7", False)


async def test_a_wall_clock_that_is_set_back_and_corrected_holds_up_no_snapshot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class SetBack(datetime):
        """A wall clock that shows an hour too little for a moment."""

        until = 0.0

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # no clock of a subclass
            wrong = asyncio.get_running_loop().time() < cls.until
            return datetime.now(tz) - timedelta(hours=wrong)

    async def script(connection: ServerConnection) -> None:
        await connection.wait_closed()

    monkeypatch.setattr(sampling, "datetime", SetBack)
    SetBack.until = asyncio.get_running_loop().time() + 0.1
    async with websocket_server(script) as endpoint, open_stream(endpoint, BIDS, ASKS, queue_size=None) as stream:
        sampler = Sampler(OrderBook(pair=Pair("btcjpy")), stream, on_doubt=OnDoubt.MARK)
        monkeypatch.setattr(sampler, "parse", mock.AsyncMock())
        async with asyncio.timeout(LIMIT):
            await sampler.take(datetime.now(UTC))
