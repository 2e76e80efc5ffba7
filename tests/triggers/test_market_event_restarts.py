"""A watcher that is ended and started again, with Airflow's own asset state store, against the sandbox."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.triggers.base import BaseEventTrigger

from airflow_provider_quoine.exchange.market import watch
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.triggers import market_events, watcher_store
from airflow_provider_quoine.triggers.market_events import QuoineLargeTradeTrigger, QuoinePriceCrossTrigger
from tests.support.state_stores import state_stores
from tests.support.streams import LIMIT, until
from tests.triggers.watchers import made_again, prices, subscribed_to, trade, trades

Event = dict[str, Any]


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an event of a gap wait for no other watcher."""
    monkeypatch.setattr(watch, "LATE_AFTER", 0.0)


def rise() -> QuoinePriceCrossTrigger:
    return QuoinePriceCrossTrigger(pair="btcjpy", level="600", cooldown=0)


@asynccontextmanager
async def life(trigger: BaseEventTrigger, store: Any) -> AsyncIterator[list[Event]]:
    """Have a watcher live with a store, as the triggerer does; it is cancelled at the end."""
    one, events = made_again(trigger), list[Event]()
    one.asset_state_store = store

    async def run() -> None:
        async for event in one.run():
            events.append(event.payload)

    task = asyncio.create_task(run())
    yield events
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def stored(store: Any, *, position: str) -> None:
    """Wait until a memory says where the market is."""
    async with asyncio.timeout(LIMIT):
        key = rise()._memory_key()
        while (await store.aget(key) or {}).get("position") != position:  # noqa: ASYNC110 - nothing sets an event
            await asyncio.sleep(0.1)


@pytest.mark.usefixtures("airflow_database", "no_wait")
async def test_a_restart_neither_repeats_nor_forgets(market: SandboxServer) -> None:
    with state_stores(Asset("restarted")) as store:
        async with life(rise(), store) as first:
            await prices(market, "599", "601", "599")
            await until(lambda: first)
            await stored(store, position="false")
        # It crosses the level while nobody watches.
        async with life(rise(), store) as second:
            await subscribed_to(market, "executions_cash_btcjpy")
            await prices(market, "602")
            await until(lambda: [event for event in second if event["seen_after_gap"]])
        async with life(rise(), store) as third:
            await prices(market, "603", "598")
            await trades(market, trade("604", id=7))
            await until(lambda: [event for event in third if event["event_id"].endswith("/7")])
    told = {event["event_id"]: event for event in (*first, *second, *third)}
    live, late, again = told.values()
    assert [each["price"] for each in (live, late, again)] == ["601", "602", "604"]
    assert [each["seen_after_gap"] for each in (live, late, again)] == [False, True, False]
    # The prices may have come in one piece, and then at one moment.
    assert live["at"] <= late["gap_since"] < late["at"]
    assert late["at"] <= again["unknown_since"] < again["unknown_until"] < again["at"]


@pytest.mark.usefixtures("airflow_database")
async def test_an_event_that_airflow_may_not_have_stored_is_told_again_with_its_id(market: SandboxServer) -> None:
    with state_stores(Asset("told_again")) as store:
        async with life(rise(), store) as first:
            await prices(market, "599", "601")
            await until(lambda: first)
        async with life(rise(), store) as second:
            await until(lambda: second)
    assert first == second


class BrokenStore:
    """A store that answers nothing, or refuses."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error
        self.asked = 0

    async def aget(self, key: str) -> Any:
        """Fail."""
        self.asked += 1
        if self._error:
            raise self._error
        await asyncio.sleep(60)

    aset = aget


@pytest.mark.parametrize("error", [None, RuntimeError("the database is away")])
async def test_without_its_store_a_watcher_goes_on(
    market: SandboxServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception | None
) -> None:
    monkeypatch.setattr(market_events, "FIRST_TIMEOUT", 0.1)
    store = BrokenStore(error)
    async with life(QuoineLargeTradeTrigger(pair="btcjpy", size="5", cooldown=0), store) as events:
        await trades(market, trade(quantity="9"), trade(quantity="9"))
        await until(lambda: len(events) == 2)
    assert store.asked == 1
    (told,) = (record for record in caplog.records if record.name == watcher_store.__name__)
    assert told.levelno == logging.WARNING
    assert str(error or "TimeoutError") in told.getMessage()


@pytest.mark.usefixtures("airflow_database")
async def test_a_watcher_of_several_assets_has_no_memory(
    market: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    with state_stores(Asset("one_of_two"), Asset("other_of_two")) as store:
        async with life(rise(), store) as events:
            await prices(market, "599", "601")
            await until(lambda: events)
    assert "has 2 concrete inlets" in caplog.text
    assert "Is the asset the only one of this watcher?" in caplog.text


@pytest.mark.parametrize("foreign", ["text", {"version": 99}])
async def test_a_memory_of_another_version_is_left_aside_and_replaced(
    market: SandboxServer, caplog: pytest.LogCaptureFixture, foreign: Any
) -> None:
    class Foreign:
        """A store with what somebody else has left."""

        content = foreign

        async def aget(self, key: str) -> Any:
            """Return it."""
            return self.content

        async def aset(self, key: str, value: Any) -> None:
            """Replace it."""
            self.content = json.loads(json.dumps(value))

    store = Foreign()
    async with life(rise(), store) as events:
        await prices(market, "599", "601")
        await until(lambda: events)
    assert "what this watcher cannot read" in caplog.text
    assert store.content["position"] == "true"
