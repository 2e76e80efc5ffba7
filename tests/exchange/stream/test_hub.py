"""Many streams on one connection: what they share, and which of them an event or a failure affects."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from airflow_provider_quoine.exchange.errors import (
    QuoineInputError,
    QuoineStreamError,
    QuoineStreamRefusedError,
    QuoineSubscriptionRefusedError,
)
from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint, PusherStream, open_connections
from airflow_provider_quoine.exchange.stream.subscriptions import Subscriptions
from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.exchange.stream.pusher_servers import KEY
from tests.support.streams import (
    ASKS,
    BIDS,
    LIMIT,
    control,
    endpoint_of,
    figures,
    next_event,
    open_stream,
    ready,
    stream_threads,
    until,
)

pytestmark = pytest.mark.usefixtures("no_connection_is_left")


async def refused(stream: PusherStream) -> QuoineStreamError:
    """Wait until a stream has failed, through its news; return the error."""
    try:
        async with asyncio.timeout(LIMIT):
            while True:
                await stream.news()
    except QuoineStreamError as error:
        return error


async def test_fifty_streams_that_join_at_once_have_one_connection_and_each_channel_once(
    quiet_sandbox: SandboxServer,
) -> None:
    streams = [open_stream(endpoint_of(quiet_sandbox), BIDS, ASKS) for _ in range(50)]
    async with AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(stream) for stream in streams))
        await asyncio.gather(*(ready(stream) for stream in streams))
        state = await control(figures, quiet_sandbox)
        assert (state["connections_total"], state["channels"]) == (1, {BIDS: 1, ASKS: 1})
        assert len(stream_threads()) <= 2
        await control(quiet_sandbox.control.publish, BIDS, "updated", "1")
        assert {(await next_event(stream)).data for stream in streams} == {"1"}

        await control(quiet_sandbox.control.fault, "close", "stream", code=4200)
        await until(lambda: all(stream.connections == 2 and stream.confirmed for stream in streams))
        assert all(len(stream.gaps) == 1 and stream.gap_seconds > 0 for stream in streams)
        assert (await control(figures, quiet_sandbox))["connections_total"] == 2
    await until(lambda: figures(quiet_sandbox)["connections"] == 0)


async def test_another_endpoint_or_timing_is_another_connection(quiet_sandbox: SandboxServer) -> None:
    endpoint = endpoint_of(quiet_sandbox)
    async with open_stream(endpoint, BIDS) as first, open_stream(endpoint, BIDS, activity_timeout=20) as second:
        await ready(first)
        await ready(second)
        assert figures(quiet_sandbox)["connections"] == open_connections() == 2


async def test_one_that_joins_an_open_connection_has_no_gap_and_the_newest_of_what_others_have(
    quiet_sandbox: SandboxServer,
) -> None:
    endpoint = endpoint_of(quiet_sandbox)
    async with open_stream(endpoint, BIDS, queue_size=None) as first:
        await ready(first)
        await control(quiet_sandbox.control.fault, "close", "stream", code=4200)
        await until(lambda: first.connections == 2 and first.confirmed)
        await control(quiet_sandbox.control.publish, BIDS, "updated", "1")
        await until(lambda: first.newest(BIDS))
        async with open_stream(endpoint, BIDS, ASKS, queue_size=None) as second:
            await ready(second)
            newest = second.newest(BIDS)
            assert newest is first.newest(BIDS)
            assert newest is not None
            assert (newest.data, second.is_current(newest)) == ("1", True)
            assert second.newest(ASKS) is None
            assert (second.connections, second.reconnects, second.gaps, second.gap_seconds) == (1, 0, (), 0.0)
        assert (first.connections, first.reconnects, len(first.gaps)) == (2, 1, 1)


async def test_one_that_joins_when_all_is_confirmed_already_knows_it_and_its_losses(
    quiet_sandbox: SandboxServer,
) -> None:
    endpoint = endpoint_of(quiet_sandbox)
    async with open_stream(endpoint, BIDS) as first:
        await ready(first)
        async with open_stream(endpoint, BIDS, queue_size=None) as second:
            assert second.confirmed
            async with asyncio.timeout(LIMIT):
                await second.news()
            await control(quiet_sandbox.control.fault, "close", "stream", code=4200)
            await until(lambda: second.reconnects == 1 and second.confirmed)
            assert len(second.gaps) == len(first.gaps) == 1


async def test_news_are_an_event_a_loss_or_a_confirmation_and_many_are_one(quiet_sandbox: SandboxServer) -> None:
    async with open_stream(endpoint_of(quiet_sandbox), BIDS, queue_size=None) as stream:
        async with asyncio.timeout(LIMIT):
            while not stream.confirmed:
                await stream.news()
        for number in range(10):
            await control(quiet_sandbox.control.publish, BIDS, "updated", str(number))
        await until(lambda: (newest := stream.newest(BIDS)) and newest.data == "9")
        await stream.news()
        waiting = asyncio.create_task(stream.news())
        await asyncio.sleep(0.05)
        assert not waiting.done(), "ten events were one piece of news"
        await control(quiet_sandbox.control.publish, BIDS, "updated", "10")
        async with asyncio.timeout(LIMIT):
            await waiting
            await control(quiet_sandbox.control.fault, "close", "stream", code=4200)
            while stream.connections == 1 or not stream.confirmed:
                await stream.news()
        newest = stream.newest(BIDS)
        assert newest is not None, "an event of the lost connection is still the newest"
        assert not stream.is_current(newest)
        with pytest.raises(QuoineInputError, match="queue_size"):
            await anext(stream)


async def test_a_refused_channel_reaches_those_who_want_it_and_nobody_else(quiet_sandbox: SandboxServer) -> None:
    endpoint = endpoint_of(quiet_sandbox)
    async with (
        open_stream(endpoint, BIDS) as good,
        open_stream(endpoint, BIDS, "private-orders") as bad,
        open_stream(endpoint, "private-orders", queue_size=None) as worse,
    ):
        for stream in (bad, worse):
            error = await refused(stream)
            assert isinstance(error, QuoineSubscriptionRefusedError)
            assert "private-orders: Invalid signature" in str(error) == stream.problem
        await control(quiet_sandbox.control.publish, BIDS, "updated", "1")
        assert (await next_event(good)).data == "1"
        # A later stream asks the server again.
        async with open_stream(endpoint, "private-orders") as late:
            assert isinstance(await refused(late), QuoineSubscriptionRefusedError)
        assert (good.connections, good.gaps) == (1, ())
        assert figures(quiet_sandbox)["channels"] == {BIDS: 1}


async def test_a_refusal_for_good_reaches_all_and_later_streams_try_anew(quiet_sandbox: SandboxServer) -> None:
    endpoint = endpoint_of(quiet_sandbox)
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(open_stream(endpoint, BIDS)) for _ in range(20)]
        await asyncio.gather(*(ready(stream) for stream in streams))
        await control(quiet_sandbox.control.fault, "close", "stream", code=4009)
        errors = await asyncio.gather(*(refused(stream) for stream in streams))
        assert all(isinstance(error, QuoineStreamRefusedError) and "4009" in str(error) for error in errors)
        assert len({id(error) for error in errors}) == len(errors)
        # Those that failed have not left yet.
        async with open_stream(endpoint, BIDS) as late:
            await ready(late)
            assert late.connections == 1
        assert figures(quiet_sandbox)["connections_total"] == 2


async def test_a_defect_of_our_own_reaches_all_instead_of_leaving_them_waiting(
    quiet_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Subscriptions) -> None:
        raise KeyError("a defect")

    endpoint = endpoint_of(quiet_sandbox)
    async with open_stream(endpoint, BIDS) as first, open_stream(endpoint, ASKS) as second:
        await ready(first)
        monkeypatch.setattr(Subscriptions, "check", fail)
        await control(quiet_sandbox.control.fault, "pusher_error", "stream", code=4301, message="look")
        for stream in (first, second):
            assert "a defect" in str(await refused(stream))
    assert "defect of this package" in caplog.text


def test_a_queue_of_nothing_is_refused() -> None:
    with pytest.raises(QuoineInputError, match="at least 1"):
        PusherStream(endpoint=PusherEndpoint(key=KEY, host="127.0.0.1", port=1), channels=[BIDS], queue_size=0)
