"""Many streams on one connection: who shares what, who comes and goes, what reaches whom."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from airflow_provider_quoine.exchange import pusher_hub
from airflow_provider_quoine.exchange.errors import (
    QuoineInputError,
    QuoineStreamError,
    QuoineStreamRefusedError,
    QuoineSubscriptionRefusedError,
)
from airflow_provider_quoine.exchange.pusher import PusherEndpoint, PusherStream
from airflow_provider_quoine.exchange.pusher_subscriptions import Subscriptions
from airflow_provider_quoine.exchange.pusher_supervisor import PusherSupervisor
from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.exchange.pusher_servers import GREETING, KEY, confirm, greet_and_confirm, send_event, websocket_server
from tests.exchange.streams import (
    ASKS,
    BIDS,
    LIMIT,
    control,
    endpoint_of,
    figures,
    next_event,
    open_descriptors,
    open_stream,
    ready,
    stream_threads,
    until,
)


@pytest.fixture(autouse=True)
def no_hub_is_left() -> Iterator[None]:
    """After each test no hub is known any more, nor any thread of one."""
    yield
    assert pusher_hub._HUBS == {}
    assert stream_threads() == []


async def refused(stream: PusherStream) -> QuoineStreamError:
    """Wait until a stream has failed, through its news; return the error."""
    try:
        async with asyncio.timeout(LIMIT):
            while True:
                await stream.news()
    except QuoineStreamError as error:
        return error


def test_fifty_streams_that_join_at_once_have_one_connection_and_each_channel_once(
    quiet_sandbox: SandboxServer,
) -> None:
    async def scenario() -> None:
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

    asyncio.run(scenario())


def test_a_channel_lives_from_its_first_user_to_its_last(quiet_sandbox: SandboxServer) -> None:
    async def scenario() -> None:
        endpoint = endpoint_of(quiet_sandbox)
        async with open_stream(endpoint, BIDS) as first:
            await ready(first)
            async with open_stream(endpoint, BIDS, ASKS) as second:
                await ready(second)
                assert figures(quiet_sandbox)["channels"] == {BIDS: 1, ASKS: 1}
            await until(lambda: figures(quiet_sandbox)["channels"] == {BIDS: 1})
            await control(quiet_sandbox.control.publish, BIDS, "updated", "1")
            assert (await next_event(first)).data == "1"
            assert first.connections == 1
        assert figures(quiet_sandbox)["connections_total"] == 1

    asyncio.run(scenario())


def test_another_endpoint_or_timing_is_another_connection(quiet_sandbox: SandboxServer) -> None:
    async def scenario() -> None:
        endpoint = endpoint_of(quiet_sandbox)
        async with open_stream(endpoint, BIDS) as first, open_stream(endpoint, BIDS, quiet=20) as second:
            await ready(first)
            await ready(second)
            assert figures(quiet_sandbox)["connections"] == 2

    asyncio.run(scenario())


def test_one_that_joins_an_open_connection_has_no_gap_and_the_newest_of_what_others_have(
    quiet_sandbox: SandboxServer,
) -> None:
    async def scenario() -> None:
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
                assert (newest.data, newest.connection, second.connection) == ("1", 2, 2)
                assert second.newest(ASKS) is None
                assert (second.connections, second.reconnects, second.gaps, second.gap_seconds) == (1, 0, (), 0.0)
            assert (first.connections, first.reconnects, len(first.gaps)) == (2, 1, 1)

    asyncio.run(scenario())


def test_one_that_joins_when_all_is_confirmed_already_knows_it_and_its_losses(quiet_sandbox: SandboxServer) -> None:
    async def scenario() -> None:
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

    asyncio.run(scenario())


def test_one_that_gives_up_while_the_first_connection_is_prepared_leaves_it_to_the_others(
    quiet_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PusherSupervisor._prepare

    def slowly(self: PusherSupervisor) -> None:
        prepared.wait(LIMIT)
        original(self)

    async def use() -> int:
        async with open_stream(endpoint_of(quiet_sandbox), BIDS) as stream:
            await ready(stream)
            return stream.connection

    async def scenario() -> None:
        impatient, patient = asyncio.create_task(use()), asyncio.create_task(use())
        await until(lambda: stream_threads() == ["quoine-stream-sender_0"])
        impatient.cancel()
        await asyncio.wait({impatient})
        assert impatient.cancelled()
        prepared.set()
        assert await patient == 1

    prepared = threading.Event()
    monkeypatch.setattr(PusherSupervisor, "_prepare", slowly)
    asyncio.run(scenario())


def test_news_are_an_event_a_loss_or_a_confirmation_and_many_are_one(quiet_sandbox: SandboxServer) -> None:
    async def scenario() -> None:
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
            assert stream.newest(BIDS) is not None, "what came by the lost connection is still the newest"
            with pytest.raises(QuoineInputError, match="queue_size"):
                await anext(stream)

    asyncio.run(scenario())


def test_a_refused_channel_reaches_those_who_want_it_and_nobody_else(quiet_sandbox: SandboxServer) -> None:
    async def scenario() -> None:
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
            assert (await next_event(good)).connection == 1
            # Whoever comes later asks the server again.
            async with open_stream(endpoint, "private-orders") as late:
                assert isinstance(await refused(late), QuoineSubscriptionRefusedError)
            assert (good.connections, good.gaps) == (1, ())
            assert figures(quiet_sandbox)["channels"] == {BIDS: 1}

    asyncio.run(scenario())


def test_a_refusal_for_good_reaches_all_and_later_streams_try_anew(quiet_sandbox: SandboxServer) -> None:
    async def scenario() -> None:
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
                assert late.connection == 1
            assert figures(quiet_sandbox)["connections_total"] == 2

    asyncio.run(scenario())


def test_one_that_joins_while_the_last_one_leaves_gets_a_connection_that_works(quiet_sandbox: SandboxServer) -> None:
    async def scenario() -> None:
        endpoint = endpoint_of(quiet_sandbox)
        for moment in range(20):
            leaver = await open_stream(endpoint, BIDS).__aenter__()
            await ready(leaver)
            leaving = asyncio.create_task(leaver.__aexit__(None, None, None))
            for _ in range(moment):
                await asyncio.sleep(0)
            async with open_stream(endpoint, BIDS) as joiner:
                await ready(joiner)
                await control(quiet_sandbox.control.publish, BIDS, "updated", str(moment))
                assert (await next_event(joiner)).data == str(moment)
                await leaving

    asyncio.run(scenario())


def test_leaving_and_joining_again_at_once_neither_doubles_nor_loses_a_channel(quiet_sandbox: SandboxServer) -> None:
    async def scenario() -> None:
        endpoint = endpoint_of(quiet_sandbox)
        async with open_stream(endpoint, ASKS) as keeper:
            await ready(keeper)
            for number in range(20):
                async with open_stream(endpoint, BIDS) as stream:
                    if number % 2:
                        await ready(stream)
                        await control(quiet_sandbox.control.publish, BIDS, "updated", "0")
                        await next_event(stream)
            async with open_stream(endpoint, BIDS) as stream:
                await ready(stream)
                await control(quiet_sandbox.control.publish, BIDS, "updated", "1")
                await control(quiet_sandbox.control.publish, BIDS, "updated", "2")
                assert [(await next_event(stream)).data for _ in range(2)] == ["1", "2"]
            assert (keeper.connections, keeper.problem) == (1, None)

    asyncio.run(scenario())


def test_a_channel_is_confirmed_by_the_answer_to_its_latest_subscription() -> None:
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

    async def scenario() -> None:
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

    asyncio.run(scenario())


@pytest.mark.parametrize("answered", ["never", "later"])
def test_a_channel_that_is_not_confirmed_in_time_is_asked_for_again_at_nobodys_cost(
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

    async def scenario() -> None:
        async with (
            websocket_server(forget) as endpoint,
            open_stream(endpoint, "good", subscribe=1) as good,
            open_stream(endpoint, "forgotten", subscribe=1) as forgotten,
        ):
            if answered == "never":
                await until(lambda: asked.count("pusher:subscribe") >= 3)
                assert "did not confirm forgotten in time" in (forgotten.problem or "")
            else:
                await ready(forgotten)
            assert (good.connections, good.problem, good.gaps, forgotten.gaps) == (1, None, (), ())
        assert asked[:3] == ["pusher:subscribe", "pusher:unsubscribe", "pusher:subscribe"], "never twice in a row"

    asyncio.run(scenario())
    told = [record for record in caplog.records if "forgotten" in record.getMessage()]
    assert len(told) == 1


def test_a_gap_is_from_the_last_sign_to_the_confirmation_and_gaps_add_up(quiet_sandbox: SandboxServer) -> None:
    async def scenario() -> None:
        began_at = datetime.now(UTC)
        async with open_stream(endpoint_of(quiet_sandbox), BIDS, ASKS, first_wait=0.2, longest_wait=0.4) as stream:
            await ready(stream)
            for number in range(3):
                await control(quiet_sandbox.control.fault, "close", "stream", code=1001)
                await until(lambda: stream.gaps[number:])  # noqa: B023 - called at once
                assert stream.gaps[number].until is None
                assert not stream.confirmed
                await until(lambda: stream.confirmed)
            assert stream.gap_seconds == pytest.approx(
                sum(((gap.until or began_at) - gap.since).total_seconds() for gap in stream.gaps)
            )
        moments = [moment for gap in stream.gaps for moment in (gap.since, gap.until)]
        assert len(stream.gaps) == stream.reconnects == 3
        assert moments == sorted(moments, key=lambda moment: moment or began_at)
        assert began_at <= stream.gaps[0].since
        assert all(gap.until and gap.until - gap.since >= timedelta(seconds=0.1) for gap in stream.gaps)
        assert all("1001" in gap.reason for gap in stream.gaps)

    asyncio.run(scenario())


def test_one_that_has_left_keeps_its_figures(quiet_sandbox: SandboxServer) -> None:
    async def scenario() -> None:
        endpoint = endpoint_of(quiet_sandbox)
        async with open_stream(endpoint, BIDS) as stays:
            async with open_stream(endpoint, BIDS) as leaves:
                await ready(leaves)
            await control(quiet_sandbox.control.fault, "close", "stream", code=4200)
            await until(lambda: stays.connections == 2 and stays.confirmed)
            assert (leaves.connection, leaves.connections, leaves.reconnects, leaves.gaps) == (1, 1, 0, ())
            with pytest.raises(QuoineStreamError, match="closed by its own user"):
                await leaves.news()

    asyncio.run(scenario())


def test_a_gap_ends_with_its_stream(quiet_sandbox: SandboxServer) -> None:
    async def scenario() -> None:
        async with open_stream(endpoint_of(quiet_sandbox), BIDS, first_wait=60, longest_wait=120) as stream:
            await ready(stream)
            await control(quiet_sandbox.control.fault, "close", "stream", code=1001)
            await until(lambda: stream.gaps)
            assert stream.gaps[0].until is None
        (gap,) = stream.gaps
        assert gap.until is not None
        assert stream.gap_seconds == (gap.until - gap.since).total_seconds()

    asyncio.run(scenario())


def test_a_defect_of_our_own_reaches_all_instead_of_leaving_them_waiting(
    quiet_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Subscriptions) -> None:
        raise KeyError("a defect")

    async def scenario() -> None:
        endpoint = endpoint_of(quiet_sandbox)
        async with open_stream(endpoint, BIDS) as first, open_stream(endpoint, ASKS) as second:
            await ready(first)
            monkeypatch.setattr(Subscriptions, "check", fail)
            await control(quiet_sandbox.control.fault, "pusher_error", "stream", code=4301, message="look")
            for stream in (first, second):
                assert "a defect" in str(await refused(stream))

    asyncio.run(scenario())
    assert "defect of this package" in caplog.text


def test_one_that_is_cancelled_while_joining_takes_nothing_from_the_others(quiet_sandbox: SandboxServer) -> None:
    async def use(endpoint: PusherEndpoint) -> None:
        async with open_stream(endpoint, BIDS) as stream:
            while True:
                await next_event(stream)

    async def scenario() -> None:
        endpoint = endpoint_of(quiet_sandbox)
        for turns in range(10):
            users = [asyncio.create_task(use(endpoint)) for _ in range(5)]
            for _ in range(turns):
                await asyncio.sleep(0)
            async with open_stream(endpoint, BIDS) as stream:
                for user in users:
                    user.cancel()
                await asyncio.gather(*users, return_exceptions=True)
                await ready(stream)
                await control(quiet_sandbox.control.publish, BIDS, "updated", "1")
                assert (await next_event(stream)).data == "1"
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())


def test_comings_and_goings_during_outages_end_in_order(quiet_sandbox: SandboxServer) -> None:
    channels = [f"channel-{number}" for number in range(6)]
    chance = random.Random(5)

    async def come_and_go(endpoint: PusherEndpoint) -> None:
        while not over.is_set():
            wanted = chance.sample(channels, chance.randint(1, 3))
            async with open_stream(endpoint, *wanted, queue_size=chance.choice([None, 10])) as stream:
                if chance.random() < 0.5:
                    await ready(stream)
                await asyncio.sleep(chance.random() * 0.02)

    async def scenario() -> None:
        endpoint = endpoint_of(quiet_sandbox)
        async with open_stream(endpoint, "channel-0", "kept") as keeper:
            await ready(keeper)
            others = [asyncio.create_task(come_and_go(endpoint)) for _ in range(20)]
            for code in (4200, 1001, 4100, 1011, 4201, None, 4200, 1001):
                abrupt = {"abrupt": True} if code is None else {"code": code}
                await control(quiet_sandbox.control.fault, "close", "stream", **abrupt)
                before = keeper.connections
                await until(lambda: keeper.connections > before and keeper.confirmed)  # noqa: B023 - called at once
            over.set()
            await asyncio.gather(*others)
            await until(lambda: figures(quiet_sandbox)["channels"] == {"channel-0": 1, "kept": 1})
            assert figures(quiet_sandbox)["connections"] == 1
            await control(quiet_sandbox.control.publish, "kept", "updated", "1")
            assert (await next_event(keeper)).data == "1"

    over = asyncio.Event()
    asyncio.run(scenario())


def threads_of_ours() -> list[str]:
    """All threads but those that the sandbox keeps for a while."""
    return [thread.name for thread in threading.enumerate() if not thread.name.startswith("AnyIO")]


def test_two_hundred_cycles_of_start_and_cancel_leave_nothing(quiet_sandbox: SandboxServer) -> None:
    async def use(stream: PusherStream, stop_at: str) -> None:
        async with stream:
            if stop_at == "confirmed":
                await ready(stream)
            reached.set()
            await anext(stream)

    async def scenario() -> None:
        endpoint = endpoint_of(quiet_sandbox)
        counted: list[int] = []
        threads = threads_of_ours()
        for number in range(200):
            reached.clear()
            user = asyncio.create_task(use(open_stream(endpoint, BIDS, ASKS), ("joined", "confirmed")[number % 2]))
            await asyncio.wait_for(reached.wait(), LIMIT)
            user.cancel()
            with pytest.raises(asyncio.CancelledError):
                await user
            assert threads_of_ours() == threads
            assert len(asyncio.all_tasks()) == 1
            await until(lambda: figures(quiet_sandbox)["connections"] == 0)
            counted.append(open_descriptors())
        assert min(counted[100:]) <= min(counted[:100]), counted

    reached = asyncio.Event()
    asyncio.run(scenario())


def test_the_end_of_the_loop_is_the_end_of_its_streams(quiet_sandbox: SandboxServer) -> None:
    async def use() -> None:
        async with open_stream(endpoint_of(quiet_sandbox), BIDS) as stream:
            await ready(stream)
            confirmed.set()
            await anext(stream)

    async def scenario() -> None:
        users.extend(asyncio.create_task(use()) for _ in range(3))
        await asyncio.wait_for(confirmed.wait(), LIMIT)

    users: list[asyncio.Task[None]] = []
    confirmed = asyncio.Event()
    asyncio.run(scenario())
    assert all(user.cancelled() for user in users)
    assert stream_threads() == []


def test_turns_go_round_and_leave_the_loop_to_others_in_between(quiet_sandbox: SandboxServer) -> None:
    order: list[Any] = []

    async def decode(stream: PusherStream, number: int) -> None:
        async with stream.turn():
            order.append(number)

    async def beat() -> None:
        while True:
            order.append("beat")
            await asyncio.sleep(0)

    async def scenario() -> None:
        endpoint = endpoint_of(quiet_sandbox)
        async with open_stream(endpoint, BIDS) as first, open_stream(endpoint, ASKS) as second:
            heart = asyncio.create_task(beat())
            await asyncio.gather(*(decode((first, second)[number % 2], number) for number in range(20)))
            heart.cancel()

    asyncio.run(scenario())
    assert [each for each in order if each != "beat"] == list(range(20)), "first come, first served"
    last = len(order) - 1 - order[::-1].index(19)
    assert Counter(order[:last])["beat"] >= 15


def test_streams_of_two_loops_do_not_meet() -> None:
    async def scenario() -> None:
        async with websocket_server(greet_and_confirm) as endpoint, open_stream(endpoint) as here:
            await ready(here)

            async def elsewhere() -> int:
                async with open_stream(endpoint) as there:
                    await ready(there)
                    return len([name for name in stream_threads() if name == "quoine-stream"])

            assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) == 2
            assert here.connections == 1

    asyncio.run(scenario())


def test_a_queue_of_nothing_is_refused() -> None:
    with pytest.raises(QuoineInputError, match="at least 1"):
        PusherStream(endpoint=PusherEndpoint(key=KEY, host="127.0.0.1", port=1), channels=[BIDS], queue_size=0)
