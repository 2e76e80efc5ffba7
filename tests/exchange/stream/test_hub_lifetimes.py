"""Streams that come and go on one connection: they leave nothing behind and do not affect other streams."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest
from websockets.asyncio.server import ServerConnection

from airflow_provider_quoine.exchange.stream.network import PysherNetwork
from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint, PusherStream
from airflow_provider_quoine.sandbox.server import SandboxServer
from tests.exchange.stream.pusher_servers import greet_and_confirm, websocket_server
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
    ready,
    stream_threads,
    until,
)

pytestmark = pytest.mark.usefixtures("no_connection_is_left")


async def test_a_channel_lives_from_its_first_user_to_its_last(quiet_sandbox: SandboxServer) -> None:
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


async def test_one_that_gives_up_while_the_first_connection_is_prepared_leaves_it_to_the_others(
    quiet_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PysherNetwork._prepare

    def slowly(self: PysherNetwork) -> None:
        prepared.wait(LIMIT)
        original(self)

    async def use() -> int:
        async with open_stream(endpoint_of(quiet_sandbox), BIDS) as stream:
            await ready(stream)
            return stream.connections

    prepared = threading.Event()
    monkeypatch.setattr(PysherNetwork, "_prepare", slowly)
    impatient, patient = asyncio.create_task(use()), asyncio.create_task(use())
    await until(lambda: stream_threads() == ["quoine-stream-sender_0"])
    impatient.cancel()
    await asyncio.wait({impatient})
    assert impatient.cancelled()
    prepared.set()
    assert await patient == 1


async def test_one_that_joins_while_the_last_one_leaves_gets_a_connection_that_works(
    quiet_sandbox: SandboxServer,
) -> None:
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


async def test_leaving_and_joining_again_at_once_neither_doubles_nor_loses_a_channel(
    quiet_sandbox: SandboxServer,
) -> None:
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


async def test_one_that_is_cancelled_while_joining_takes_nothing_from_the_others(quiet_sandbox: SandboxServer) -> None:
    async def use(endpoint: PusherEndpoint) -> None:
        async with open_stream(endpoint, BIDS) as stream:
            while True:
                await next_event(stream)

    endpoint = endpoint_of(quiet_sandbox)
    for rounds in range(10):
        users = [asyncio.create_task(use(endpoint)) for _ in range(5)]
        for _ in range(rounds):
            await asyncio.sleep(0)
        async with open_stream(endpoint, BIDS) as stream:
            for user in users:
                user.cancel()
            await asyncio.gather(*users, return_exceptions=True)
            await ready(stream)
            await control(quiet_sandbox.control.publish, BIDS, "updated", "1")
            assert (await next_event(stream)).data == "1"
        assert len(asyncio.all_tasks()) == 1


async def test_comings_and_goings_during_outages_end_in_order(quiet_sandbox: SandboxServer) -> None:
    channels = [f"channel-{number}" for number in range(6)]
    chance = random.Random(5)

    async def come_and_go(endpoint: PusherEndpoint) -> None:
        while not over.is_set():
            wanted = chance.sample(channels, chance.randint(1, 3))
            async with open_stream(endpoint, *wanted, queue_size=chance.choice([None, 10])) as stream:
                if chance.random() < 0.5:
                    await ready(stream)
                await asyncio.sleep(chance.random() * 0.02)

    over = asyncio.Event()
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


def threads_of_ours() -> list[str]:
    """All threads but those that the sandbox keeps for a while."""
    return [thread.name for thread in threading.enumerate() if not thread.name.startswith("AnyIO")]


@pytest.mark.long
async def test_two_hundred_cycles_of_start_and_cancel_leave_nothing(quiet_sandbox: SandboxServer) -> None:
    async def use(stream: PusherStream, stop_at: str) -> None:
        async with stream:
            if stop_at == "confirmed":
                await ready(stream)
            reached.set()
            await anext(stream)

    reached = asyncio.Event()
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


def test_the_end_of_the_loop_is_the_end_of_its_streams(quiet_sandbox: SandboxServer) -> None:
    async def use() -> None:
        async with open_stream(endpoint_of(quiet_sandbox), BIDS) as stream:
            await ready(stream)
            confirmed.set()
            await anext(stream)

    async def start_and_end() -> None:
        users.extend(asyncio.create_task(use()) for _ in range(3))
        await asyncio.wait_for(confirmed.wait(), LIMIT)

    users: list[asyncio.Task[None]] = []
    confirmed = asyncio.Event()
    asyncio.run(start_and_end(), debug=True)
    assert all(user.cancelled() for user in users)
    assert stream_threads() == []


async def test_a_connection_is_closed_politely_at_the_end_of_its_loop_too() -> None:
    codes: list[int | None] = []

    async def note_code(connection: ServerConnection) -> None:
        await greet_and_confirm(connection)
        codes.append(connection.close_code)

    async def use(confirmed: asyncio.Event) -> None:
        async with open_stream(endpoint) as stream:
            await ready(stream)
            confirmed.set()
            await anext(stream)

    async def start_and_end() -> None:
        confirmed = asyncio.Event()
        users.append(asyncio.create_task(use(confirmed)))
        await asyncio.wait_for(confirmed.wait(), LIMIT)

    users: list[asyncio.Task[None]] = []
    async with websocket_server(note_code) as endpoint:
        await asyncio.to_thread(lambda: asyncio.run(start_and_end(), debug=True))
        await until(lambda: codes == [1000])


async def test_streams_of_two_loops_do_not_meet() -> None:
    async with websocket_server(greet_and_confirm) as endpoint, open_stream(endpoint) as here:
        await ready(here)

        async def elsewhere() -> int:
            async with open_stream(endpoint) as there:
                await ready(there)
                return len([name for name in stream_threads() if name == "quoine-stream"])

        assert await asyncio.to_thread(lambda: asyncio.run(elsewhere(), debug=True)) == 2
        assert here.connections == 1
