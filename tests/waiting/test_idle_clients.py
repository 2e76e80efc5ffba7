"""Idle clients: they are found by key, few, young, and closed in the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_quoine.exchange.errors import QuoineNotFoundError
from airflow_provider_quoine.exchange.rest.auth import ApiAuth
from airflow_provider_quoine.exchange.rest.client import QuoineClient
from airflow_provider_quoine.sandbox.rest.fixtures import add_user
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.waiting.idle_clients import LIFETIME, MOST_IDLE, IdleClients, OpenClient


class Exchange:
    """An exchange that tells how many clients are connected."""

    def __init__(self) -> None:
        self.server = SandboxServer()
        self._user = add_user(self.server.exchange, password="Passw0rd-of-the-test", state="APPROVED")

    def open(self, key: str | None, opened_at: float = 0.0) -> OpenClient:
        """Open a client that has asked once, so that it holds a connection."""
        auth = ApiAuth(str(self._user.user_id), self._user.api_secret)
        client = QuoineClient(base_url=self.server.url, auth=auth, connect_timeout=5, read_timeout=5)
        with pytest.raises(QuoineNotFoundError):
            client.get_withdrawal(withdrawal_id="1")
        return OpenClient(key=key, client=client, opened_at=opened_at)

    def connected(self) -> int:
        """Count the clients' ends of connections that are established."""
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        ends = ((line.split()[2], line.split()[3]) for line in lines)
        return sum(remote.endswith(f":{self.server.port:04X}") and state == "01" for remote, state in ends)


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    """Run an exchange."""
    made = Exchange()
    with made.server:
        yield made


def test_a_client_is_lent_to_one_visit_of_its_key_at_a_time(exchange: Exchange) -> None:
    idle = IdleClients()
    ours, theirs = exchange.open(None), exchange.open("their_key")
    idle.put(ours)
    idle.put(theirs)
    assert idle.take("their_key", now=1.0) is theirs
    assert idle.take("their_key", now=1.0) is None
    assert idle.take(None, now=1.0) is ours
    for one in (ours, theirs):
        idle.put(one)
    idle.close()
    assert exchange.connected() == 0


def test_few_are_kept_and_the_one_used_longest_ago_goes_first(exchange: Exchange) -> None:
    idle = IdleClients()
    for number in range(MOST_IDLE + 4):
        idle.put(exchange.open(str(number)))
    assert exchange.connected() == MOST_IDLE
    assert idle.take("3", now=1.0) is None
    kept = idle.take("4", now=1.0)
    assert kept is not None
    idle.put(kept)
    idle.close()
    assert exchange.connected() == 0


def test_one_that_is_old_or_whose_key_was_refused_is_closed(exchange: Exchange) -> None:
    idle = IdleClients()
    idle.put(exchange.open("old", opened_at=0.0))
    idle.put(exchange.open("refused", opened_at=LIFETIME))
    idle.put(exchange.open("young", opened_at=LIFETIME))
    assert exchange.connected() == 3
    assert idle.take("old", now=LIFETIME + 1) is None
    assert exchange.connected() == 2
    idle.forget("refused")
    assert exchange.connected() == 1
    assert idle.take("refused", now=LIFETIME + 1) is None
    idle.close()
    assert exchange.connected() == 0
