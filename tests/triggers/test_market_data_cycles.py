"""Order-book triggers that come and go, as a triggerer starts and cancels them."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_quoine.exchange.stream.pusher import open_connections
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from airflow_provider_quoine.triggers.market_data import QuoineOrderBookTrigger
from tests.support.streams import figures, open_descriptors, stream_threads, until


async def listen(pair: str) -> None:
    trigger = QuoineOrderBookTrigger(quoine_conn_id="quoine_default", pair=pair, timeout=60)
    async for _ in trigger.run():
        raise AssertionError("there is no market")


@pytest.mark.long
async def test_two_hundred_cycles_of_start_and_cancel_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with SandboxServer(SandboxSettings(market_rate=0)) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", sandbox.airflow_connection())
        counted = []
        for number in range(40):
            tasks = [asyncio.create_task(listen(pair)) for pair in ("btcjpy", "btcjpy", "ethjpy", "btcusd", "btceur")]
            if number % 2:
                await until(lambda: len(figures(sandbox)["channels"]) == 8)
            else:
                await until(stream_threads)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert all(task.cancelled() for task in tasks)
            await until(lambda: stream_threads() == [] and figures(sandbox)["connections"] == 0)
            assert (len(asyncio.all_tasks()), open_connections()) == (1, 0)
            counted.append(open_descriptors())
        assert min(counted[20:]) <= min(counted[:20]), counted
