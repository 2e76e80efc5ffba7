"""The sandbox's stream with clients that we did not write: they and ours receive the same events."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.clients.stream_clients import Heard, Ours, PusherJs, StreamClient, Websockets
from tests.support.pusher_clients import BUY, SELL, publisher, wait_until

pytestmark = pytest.mark.clients

TRADES = "executions_cash_btcjpy"
EVERY: tuple[type[StreamClient], ...] = (PusherJs, Websockets, Ours)
every = pytest.mark.parametrize("kind", EVERY)


@contextmanager
def subscribed(sandbox: SandboxServer, channels: Collection[str]) -> Iterator[list[StreamClient]]:
    """One client of each kind, all of them subscribed."""
    with ExitStack() as stack:
        yield [stack.enter_context(kind(sandbox, channels)) for kind in EVERY]


@pytest.fixture
def quiet() -> Iterator[SandboxServer]:
    """A sandbox whose market is silent until a test says otherwise."""
    with SandboxServer(SandboxSettings(market_rate=0)) as server:
        yield server


@pytest.fixture
def impatient() -> Iterator[SandboxServer]:
    """A silent sandbox whose clients have to ping every second."""
    with SandboxServer(SandboxSettings(market_rate=0, activity_timeout=1)) as server:
        yield server


def of_channel(client: StreamClient, channel: str) -> list[Heard]:
    return [heard for heard in client.heard if heard.channel == channel]


def test_all_hear_the_market_alike_order_books_included(quiet: SandboxServer) -> None:
    channels = (BUY, SELL, TRADES, "product_cash_btcjpy_5")
    with subscribed(quiet, channels) as clients:
        quiet.control.set_market_rate(50)
        wait_until(lambda: all(len(of_channel(each, name)) >= 20 for each in clients for name in channels))
        quiet.control.set_market_rate(0)
        for name in channels:
            quiet.control.publish(name, "end", "")
        wait_until(lambda: all(of_channel(each, name)[-1].event == "end" for each in clients for name in channels))
    first, *others = (each.heard for each in clients)
    assert all(other == first for other in others)
    books = [heard for heard in first if heard.channel in {BUY, SELL} and heard.event == "updated"]
    assert {len(book.data) for book in books} == {40}


def test_all_hear_what_the_official_server_library_publishes(quiet: SandboxServer) -> None:
    pusher = publisher(quiet)
    with subscribed(quiet, (BUY, SELL)) as clients:
        pusher.trigger(BUY, "updated", [["600.0", "0.2"], ["599.5", "1"]])
        pusher.trigger([BUY, SELL, TRADES], "updated", [])
        pusher.trigger_batch([{"channel": SELL, "name": f"n{number}", "data": {"ü": number}} for number in range(10)])
        pusher.trigger(BUY, "updated", "no JSON at all")
        pusher.trigger(SELL, "end", "x" * 10_240)
        wait_until(lambda: all(each.heard and each.heard[-1].event == "end" for each in clients))
    expected = [
        Heard(BUY, "updated", [["600.0", "0.2"], ["599.5", "1"]]),
        Heard(BUY, "updated", []),
        Heard(SELL, "updated", []),
        *(Heard(SELL, f"n{number}", {"ü": number}) for number in range(10)),
        Heard(BUY, "updated", "no JSON at all"),
        Heard(SELL, "end", "x" * 10_240),
    ]
    assert [each.heard for each in clients] == [expected] * len(EVERY)


@every
def test_a_ping_in_silence_keeps_the_connection(impatient: SandboxServer, kind: type[StreamClient]) -> None:
    with kind(impatient, [BUY]) as client:
        wait_until(lambda: impatient.control.state()["stream"]["pings"] >= 3)
        impatient.control.publish(BUY, "updated", [])
        wait_until(lambda: client.heard == [Heard(BUY, "updated", [])])
        assert impatient.control.state()["stream"]["connections_total"] == 1


@every
@pytest.mark.parametrize("text", ['{"event":"pusher:ping"}', '{"event":"pusher:ping","data":{}}'])
def test_a_ping_of_the_server_is_answered(quiet: SandboxServer, kind: type[StreamClient], text: str) -> None:
    with kind(quiet, [BUY]):
        quiet.control.fault("frame", "stream", text=text)
        wait_until(lambda: quiet.control.state()["stream"]["pongs"] == 1)


@pytest.mark.parametrize("kind", [PusherJs, Ours])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "close", "code": 4200},
        {"kind": "close", "code": 4100},
        {"kind": "close"},
        {"kind": "close", "abrupt": True},
        {"kind": "pusher_error", "code": 4200, "message": "Server is going down"},
    ],
    ids=str,
)
def test_who_reconnects_has_its_channels_again(
    quiet: SandboxServer, kind: type[StreamClient], fault: dict[str, object]
) -> None:
    with kind(quiet, [BUY, SELL]) as client:
        quiet.control.fault(**{"endpoint": "stream", **fault})  # type: ignore[arg-type]
        wait_until(lambda: quiet.control.state()["stream"]["channels"] == {BUY: 1, SELL: 1})
        wait_until(lambda: quiet.control.state()["stream"]["connections_total"] == 2 and client.ready)
        for name in (BUY, SELL):
            quiet.control.publish(name, "updated", [])
        wait_until(lambda: client.heard == [Heard(BUY, "updated", []), Heard(SELL, "updated", [])])


def test_pusher_js_gives_up_where_the_code_says_so(quiet: SandboxServer) -> None:
    with PusherJs(quiet, [BUY]) as client:
        assert isinstance(client, PusherJs)
        quiet.control.fault("pusher_error", "stream", code=4001, message="No such app")
        wait_until(lambda: client.state == "disconnected")
        assert client.errors[0] == 4001


@pytest.mark.parametrize("kind", [PusherJs, Ours])
@pytest.mark.parametrize("when", ["connect", "subscribe"])
def test_data_that_is_an_object_is_understood(quiet: SandboxServer, kind: type[StreamClient], when: str) -> None:
    quiet.control.fault("object_data", "stream", when=when)
    with kind(quiet, [BUY]) as client:
        quiet.control.publish(BUY, "updated", [])
        wait_until(lambda: client.heard == [Heard(BUY, "updated", [])])


@every
def test_a_private_channel_is_refused(quiet: SandboxServer, kind: type[StreamClient]) -> None:
    with kind(quiet, ["private-orders"]) as client:
        (refusal,) = client.refused
        assert "private-orders" in refusal
        assert publisher(quiet).channel_info("private-orders") == {"occupied": False}


def test_pusher_js_unsubscribes_and_the_others_hear_on(quiet: SandboxServer) -> None:
    with subscribed(quiet, (BUY, SELL)) as clients:
        leaver, *others = clients
        assert isinstance(leaver, PusherJs)
        leaver.order("unsubscribe", BUY)
        wait_until(lambda: quiet.control.state()["stream"]["channels"] == {BUY: 2, SELL: 3})
        quiet.control.publish(BUY, "updated", [])
        quiet.control.publish(SELL, "updated", [])
        wait_until(lambda: leaver.heard == [Heard(SELL, "updated", [])])
        wait_until(lambda: all(len(each.heard) == 2 for each in others))


@every
def test_a_client_that_goes_leaves_nothing(quiet: SandboxServer, kind: type[StreamClient]) -> None:
    with kind(quiet, [BUY]):
        assert quiet.control.state()["stream"]["channels"] == {BUY: 1}
    wait_until(lambda: quiet.control.state()["stream"]["connections"] == 0)
    assert quiet.control.state()["stream"]["channels"] == {}
