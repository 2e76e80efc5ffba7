"""When a channel counts as confirmed, and the gaps until then."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from websockets.asyncio.server import ServerConnection

from airflow_provider_quoine.exchange.errors import QuoineStreamError
from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.exchange.stream.pusher_servers import GREETING, confirm, send_event, websocket_server
from tests.support.streams import (
    ASKS,
    BIDS,
    LIMIT,
    control,
    endpoint_of,
    next_event,
    open_stream,
    ready,
    until,
)

pytestmark = pytest.mark.usefixtures("no_connection_is_left")


async def test_a_channel_is_confirmed_by_the_answer_to_its_latest_subscription() -> None:
    subscribed = asyncio.Event()
    answers: asyncio.Queue[int] = asyncio.Queue()

    async def confirm_on_order(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        asked = 0
        async for message in connection:
            frame = json.loads(message)
            if frame["event"] == "pusher:subscribe" and frame["data"]["channel"] == "slow":
                asked += 1
                if asked == 2:
                    subscribed.set()
                    for _ in range(2):
                        await asyncio.wait_for(answers.get(), LIMIT)
                        await confirm(connection, "slow")
                        await send_event(connection, "other", "told")
            elif frame["event"] == "pusher:subscribe":
                await confirm(connection, frame["data"]["channel"])

    async with websocket_server(confirm_on_order) as endpoint, open_stream(endpoint, "other") as keeper:
        await ready(keeper)
        async with open_stream(endpoint, "slow"):
            pass
        async with open_stream(endpoint, "slow") as stream:
            await asyncio.wait_for(subscribed.wait(), LIMIT)
            answers.put_nowait(1)
            await next_event(keeper)
            assert not stream.confirmed, "that was the answer to the first one"
            answers.put_nowait(2)
            await ready(stream)


@pytest.mark.parametrize("answered", ["never", "later"])
@pytest.mark.long
async def test_a_channel_that_is_not_confirmed_in_time_is_asked_for_again_at_nobodys_cost(
    answered: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    async def forget(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        async for message in connection:
            frame = json.loads(message)
            channel = frame["data"].get("channel")
            if channel == "forgotten":
                asked.append(frame["event"])
            if frame["event"] == "pusher:subscribe" and (
                channel != "forgotten" or (answered == "later" and len(asked) > 1)
            ):
                await confirm(connection, channel)

    async with (
        websocket_server(forget) as endpoint,
        open_stream(endpoint, "good", subscribe_timeout=2) as good,
        open_stream(endpoint, "forgotten", subscribe_timeout=2) as forgotten,
    ):
        if answered == "never":
            await until(lambda: asked.count("pusher:subscribe") >= 3)
            assert "did not confirm forgotten in time" in (forgotten.problem or "")
        else:
            await ready(forgotten)
        assert (good.connections, good.problem, good.gaps, forgotten.gaps) == (1, None, (), ())
    assert asked[:3] == ["pusher:subscribe", "pusher:unsubscribe", "pusher:subscribe"], "never twice in a row"
    told = [record for record in caplog.records if "forgotten" in record.getMessage()]
    assert len(told) == 1


async def test_a_gap_is_from_the_last_sign_to_the_confirmation_and_gaps_add_up() -> None:
    connections: list[ServerConnection] = []
    confirms = asyncio.Event()

    async def confirm_when_told(connection: ServerConnection) -> None:
        connections.append(connection)
        await connection.send(GREETING)
        async for message in connection:
            await confirms.wait()
            await confirm(connection, json.loads(message)["data"]["channel"])

    began_at = datetime.now(UTC)
    async with (
        websocket_server(confirm_when_told) as endpoint,
        open_stream(endpoint, BIDS, ASKS, first_wait=0.2, longest_wait=0.4) as stream,
    ):
        confirms.set()
        await ready(stream)
        for number in range(3):
            confirms.clear()
            await connections[-1].close(1001)
            await until(lambda: stream.gaps[number:])  # noqa: B023 - called at once
            assert stream.gaps[number].until is None
            assert not stream.confirmed
            confirms.set()
            await until(lambda: stream.confirmed)
        stated = sum(((gap.until or began_at) - gap.since).total_seconds() for gap in stream.gaps)
        assert stream.gap_seconds == pytest.approx(stated, abs=1e-5)
    moments = [moment for gap in stream.gaps for moment in (gap.since, gap.until)]
    assert len(stream.gaps) == stream.reconnects == 3
    assert moments == sorted(moments, key=lambda moment: moment or began_at)
    assert began_at <= stream.gaps[0].since
    assert all(gap.until and gap.until - gap.since >= timedelta(seconds=0.1) for gap in stream.gaps)
    assert all("1001" in gap.reason for gap in stream.gaps)


async def test_one_that_has_left_keeps_its_figures(quiet_sandbox: SandboxServer) -> None:
    endpoint = endpoint_of(quiet_sandbox)
    async with open_stream(endpoint, BIDS) as stays:
        async with open_stream(endpoint, BIDS) as leaves:
            await ready(leaves)
        await control(quiet_sandbox.control.fault, "close", "stream", code=4200)
        await until(lambda: stays.connections == 2 and stays.confirmed)
        assert (leaves.connections, leaves.reconnects, leaves.gaps) == (1, 0, ())
        with pytest.raises(QuoineStreamError, match="closed by its own user"):
            await leaves.news()


async def test_one_that_has_failed_states_no_gap_for_a_silence_after_that() -> None:
    async def refuse_later(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await connection.recv()
        await confirm(connection, "updates")
        await confirmed.wait()
        await connection.send('{"event": "pusher:subscription_error", "channel": "updates", "data": {}}')
        await connection.wait_closed()

    confirmed = asyncio.Event()
    async with (
        websocket_server(refuse_later) as endpoint,
        open_stream(endpoint, activity_timeout=0.05, pong_timeout=1000) as stream,
    ):
        await ready(stream)
        confirmed.set()
        await until(lambda: "refuses updates" in (stream.problem or ""))
        await until(lambda: stream._hub and stream._hub.supervisor.doubt_since)
    assert stream.gaps == ()


async def test_a_gap_ends_with_its_stream(quiet_sandbox: SandboxServer) -> None:
    async with open_stream(endpoint_of(quiet_sandbox), BIDS, first_wait=1000, longest_wait=1000) as stream:
        await ready(stream)
        await control(quiet_sandbox.control.fault, "close", "stream", code=1001)
        await until(lambda: stream.gaps)
        assert stream.gaps[0].until is None
    (gap,) = stream.gaps
    assert gap.until is not None
    assert stream.gap_seconds == pytest.approx((gap.until - gap.since).total_seconds(), abs=1e-5)
