"""Streams against the sandbox: events, losses of the connection, refusals, and closing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_quoine.exchange.errors import (
    QuoineInputError,
    QuoineStreamRefusedError,
    QuoineSubscriptionRefusedError,
)
from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint, PusherStream
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.support.streams import (
    ASKS,
    BIDS,
    LIMIT,
    control,
    endpoint_of,
    figures,
    next_event,
    open_descriptors,
    open_stream,
    our_records,
    ready,
    stream_threads,
    until,
)


async def test_events_come_as_they_were_sent_from_the_channels_asked_for(quiet_sandbox: SandboxServer) -> None:
    publish = quiet_sandbox.control.publish
    async with open_stream(endpoint_of(quiet_sandbox), BIDS, ASKS) as stream:
        await ready(stream)
        before = datetime.now(UTC)
        await control(publish, "executions_cash_btcjpy", "created", {"id": 1})
        await control(publish, BIDS, "updated", '[["0.10000000000000000001", "1"]]')
        await control(publish, ASKS, "updated", "\u00fc no JSON")
        events = [await next_event(stream), await next_event(stream)]
    assert [(e.channel, e.event, e.data) for e in events] == [
        (BIDS, "updated", '[["0.10000000000000000001", "1"]]'),
        (ASKS, "updated", "\u00fc no JSON"),
    ]
    assert events[0].connection == events[1].connection > 0
    assert before <= events[0].received_at <= events[1].received_at <= datetime.now(UTC)
    assert (stream.reconnects, stream.dropped, stream.gap_seconds) == (0, 0, 0.0)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("close", {"code": 1001}),
        ("close", {"code": 1011}),
        ("close", {"code": 4100}),
        ("close", {"code": 4200}),
        ("close", {"code": 4201}),
        ("close", {}),
        ("close", {"abrupt": True}),
        ("pusher_error", {"code": 4100, "message": "over capacity"}),
        ("pusher_error", {"code": 4200, "message": "reconnect"}),
    ],
)
async def test_a_lost_connection_is_made_again_with_every_channel(
    quiet_sandbox: SandboxServer, caplog: pytest.LogCaptureFixture, kind: str, parameters: dict[str, Any]
) -> None:
    caplog.set_level(logging.INFO, "airflow_provider_quoine.exchange")
    async with open_stream(endpoint_of(quiet_sandbox), BIDS, ASKS) as stream:
        await ready(stream)
        await control(quiet_sandbox.control.fault, kind, "stream", **parameters)
        await until(lambda: stream.connections == 2 and stream.problem is None)
        state = await control(figures, quiet_sandbox)
        assert state["channels"] == {BIDS: 1, ASKS: 1}, "each channel once, not twice"
        await control(quiet_sandbox.control.publish, BIDS, "updated", "[]")
        assert stream.is_current(await next_event(stream))
        assert stream.reconnects == 1
        assert 0 < stream.gap_seconds < LIMIT
    records = our_records(caplog)
    assert [record.levelname for record in records] == ["WARNING", "INFO"], "one of each per outage"
    assert str(parameters.get("code", "")) in records[0].getMessage()


@pytest.mark.parametrize(("code", "at_once"), [(4200, True), (4299, True), (4100, False), (1001, False)])
async def test_only_42xx_after_a_steady_life_means_at_once(
    quiet_sandbox: SandboxServer, code: int, at_once: bool
) -> None:
    async with open_stream(endpoint_of(quiet_sandbox), first_wait=1000, longest_wait=1000) as stream:
        await ready(stream)
        await control(quiet_sandbox.control.fault, "close", "stream", code=code)
        await until(lambda: str(code) in (stream.problem or "") or stream.connections == 2)
        if at_once:
            await until(lambda: stream.connections == 2)
        else:
            assert stream.connections == 1


@pytest.mark.parametrize(
    ("kind", "code", "message"), [("close", 4004, ""), ("close", 4009, ""), ("pusher_error", 4003, "disabled")]
)
async def test_a_refusal_for_good_ends_the_stream_with_words_and_no_further_attempt(
    quiet_sandbox: SandboxServer, kind: str, code: int, message: str
) -> None:
    parameters = {"message": message} if message else {}
    await control(quiet_sandbox.control.fault, kind, "stream", when="connect", code=code, **parameters)
    async with open_stream(endpoint_of(quiet_sandbox)) as stream:
        with pytest.raises(QuoineStreamRefusedError, match=f"{message}.*{code}.*Check the Pusher key"):
            await next_event(stream)
    assert (await control(figures, quiet_sandbox))["connections_total"] == 1


async def test_a_wrong_key_is_refused_without_the_key_in_the_words(
    quiet_sandbox: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint = endpoint_of(quiet_sandbox, key="secret-app-key")
    assert "secret" not in repr(endpoint)
    async with open_stream(endpoint) as stream:
        with pytest.raises(QuoineStreamRefusedError, match="not in this cluster") as caught:
            await next_event(stream)
        assert "secret" not in str(caught.value)
        with pytest.raises(QuoineStreamRefusedError):
            await next_event(stream)
    assert our_records(caplog)
    assert not [record for record in our_records(caplog) if "secret" in record.getMessage()]


async def test_a_refused_channel_ends_the_stream_and_is_named(quiet_sandbox: SandboxServer) -> None:
    async with open_stream(endpoint_of(quiet_sandbox), "private-orders", BIDS) as stream:
        with pytest.raises(QuoineSubscriptionRefusedError, match=r"private-orders: Invalid signature"):
            await next_event(stream)


async def test_an_error_that_is_no_end_leaves_the_connection(quiet_sandbox: SandboxServer) -> None:
    async with open_stream(endpoint_of(quiet_sandbox), BIDS) as stream:
        await ready(stream)
        for code in (4301, None):
            await control(quiet_sandbox.control.fault, "pusher_error", "stream", code=code, message="rate")
        await control(quiet_sandbox.control.publish, BIDS, "updated", "[]")
        await next_event(stream)
        assert (stream.connections, stream.problem) == (1, None)


async def test_a_connection_gone_silent_is_found_by_a_ping_and_the_gap_counts_from_its_last_sign(
    quiet_sandbox: SandboxServer,
) -> None:
    async with open_stream(
        endpoint_of(quiet_sandbox), BIDS, activity_timeout=0.2, pong_timeout=0.3, close_timeout=0.05
    ) as stream:
        await ready(stream)
        await control(quiet_sandbox.control.fault, "silence", "stream")
        # The next one may be taken for dead, too, before it is looked at.
        await until(lambda: stream.connections >= 2)
        assert stream.gap_seconds >= 0.3


@pytest.mark.long
async def test_a_quiet_market_is_no_outage() -> None:
    with SandboxServer(SandboxSettings(market_rate=0, activity_timeout=1, pong_timeout=2)) as sandbox:
        async with open_stream(endpoint_of(sandbox), BIDS) as stream:
            await ready(stream)
            # Longer than the server's patience: it lives on because the stream pings in time.
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3.5):
                    await anext(stream)
            assert (stream.connections, stream.problem) == (1, None)


async def test_a_slow_consumer_loses_the_oldest_and_is_told_how_many_and_when(quiet_sandbox: SandboxServer) -> None:
    async with open_stream(endpoint_of(quiet_sandbox), BIDS, queue_size=3) as stream:
        await ready(stream)
        before = datetime.now(UTC)
        for number in range(10):
            await control(quiet_sandbox.control.publish, BIDS, "updated", str(number))
        await until(lambda: stream.dropped == 7)
        kept = [await next_event(stream) for _ in range(3)]
        assert [event.data for event in kept] == ["7", "8", "9"]
        assert (stream.dropped, stream.confirmed) == (7, True), "an empty queue has dropped them all the same"
        # One gap, unless they came more than a second apart.
        first, last = stream.gaps[0], stream.gaps[-1]
        assert {gap.reason for gap in stream.gaps} == {"the queue was full, so the oldest messages were dropped"}
        assert last.until is not None
        assert before <= first.since < last.until
        assert last.ended is not None
        assert first.began <= last.ended <= kept[0].monotonic


@pytest.mark.long
async def test_a_server_that_is_not_there_yet_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    with SandboxServer(SandboxSettings(market_rate=50)) as sandbox:
        await control(sandbox.control.fault, "refuse", seconds=2)
        async with open_stream(endpoint_of(sandbox), BIDS) as stream:
            await until(lambda: "refused" in (stream.problem or ""))
            assert (stream.connections, stream.reconnects) == (0, 0)
            assert (await next_event(stream)).connection > 0
            assert stream.gap_seconds == 0.0, "there was nothing to miss yet"
    warnings = [record for record in our_records(caplog) if record.levelno >= logging.WARNING]
    assert len(warnings) == 1, "one per outage, however many attempts"


async def stop_at_once(stream: PusherStream, sandbox: SandboxServer) -> None:
    """Leave while the connection is being made."""


async def stop_when_ready(stream: PusherStream, sandbox: SandboxServer) -> None:
    await ready(stream)


async def stop_in_a_burst(stream: PusherStream, sandbox: SandboxServer) -> None:
    await next_event(stream)


async def stop_after_a_cut(stream: PusherStream, sandbox: SandboxServer) -> None:
    await ready(stream)
    await control(sandbox.control.fault, "close", "stream", abrupt=True)
    await until(lambda: stream.problem is not None or stream.connections > 1)


async def stop_while_silent(stream: PusherStream, sandbox: SandboxServer) -> None:
    await ready(stream)
    await control(sandbox.control.fault, "silence", "stream")


@pytest.mark.parametrize(
    "moment", [stop_at_once, stop_when_ready, stop_in_a_burst, stop_after_a_cut, stop_while_silent]
)
async def test_closing_leaves_no_thread_descriptor_or_task(
    moment: Callable[[PusherStream, SandboxServer], Any],
) -> None:
    with SandboxServer(SandboxSettings(market_rate=200)) as sandbox:
        counted = []
        for _ in range(10):
            async with open_stream(endpoint_of(sandbox), BIDS, ASKS, close_timeout=0.1) as stream:
                await moment(stream, sandbox)
            assert stream_threads() == []
            assert len(asyncio.all_tasks()) == 1
            await until(lambda: figures(sandbox)["connections"] == 0 or moment is stop_while_silent)
            counted.append(open_descriptors())
        # The sandbox' ends of the connections, which are in this process as well, close a moment later.
        await until(lambda: open_descriptors() <= min(counted[:5]))


async def test_a_cancelled_consumer_leaves_nothing_even_if_cancelled_again(quiet_sandbox: SandboxServer) -> None:
    async def consume() -> None:
        async with open_stream(endpoint_of(quiet_sandbox), BIDS) as stream:
            waiting.set()
            await anext(stream)

    waiting = asyncio.Event()
    for _ in range(10):
        waiting.clear()
        task = asyncio.create_task(consume())
        await waiting.wait()
        await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: stream_threads() == [] and len(asyncio.all_tasks()) == 1)


async def test_a_full_queue_does_not_keep_the_event_loop_to_itself() -> None:
    rounds = 0

    async def others() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    with SandboxServer(SandboxSettings(market_rate=2_000)) as sandbox:
        async with open_stream(endpoint_of(sandbox), BIDS, ASKS) as stream:
            await until(lambda: stream.dropped > 0)
            other = asyncio.create_task(others())
            for _ in range(1_000):
                await anext(stream)
            other.cancel()
    assert rounds >= 10


def test_a_stream_of_no_channel_is_refused() -> None:
    with pytest.raises(QuoineInputError):
        PusherStream(endpoint=PusherEndpoint(key="k", host="127.0.0.1", port=1), channels=[])
