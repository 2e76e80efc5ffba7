"""Every attempt takes a slot; reads are repeated, writes are not, and a 429 anywhere pauses everybody."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from airflow_provider_quoine.exchange.budget.file_store import FileStore
from airflow_provider_quoine.exchange.budget.request_budget import RequestBudget
from airflow_provider_quoine.exchange.budget.rules import Priority, Rules
from airflow_provider_quoine.exchange.errors import (
    QuoineAnswerLostError,
    QuoineBudgetError,
    QuoineError,
    QuoineInputError,
    QuoineNotFoundError,
    QuoineRateLimitedError,
    QuoineServerError,
    QuoineServiceUnavailableError,
)
from airflow_provider_quoine.exchange.observer import Observer
from airflow_provider_quoine.exchange.rest import retries
from airflow_provider_quoine.exchange.rest.auth import ApiAuth
from airflow_provider_quoine.exchange.rest.client import QuoineClient
from airflow_provider_quoine.sandbox.rest.fixtures import add_user, add_withdrawal
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.exchange.budget.processes import Taker, open_store, until
from tests.exchange.rest.conftest import MakeClient, order

LOOK_UP = "GET /btc_withdrawals/:id"
ADDRESS = "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"
#: With a margin of a minute, so that no request of a busy machine is late and counts twice.
RULES = Rules(limit=10_000, window=600.0, margin=0.1)


@dataclass
class Seen(Observer):
    """Keeps what it is told."""

    requests: list[tuple[str, str]] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def requested(self, endpoint: str, outcome: str, seconds: float) -> None:
        self.requests.append((endpoint, outcome))

    def waited(self, priority: str, seconds: float) -> None:
        self.waits.append(priority)

    def paused(self, seconds: float) -> None:
        self.pauses.append(seconds)


class Exchange:
    """A sandbox with one withdrawal, and a budget for it."""

    def __init__(self, folder: Path, **settings: float) -> None:
        self.server = SandboxServer(SandboxSettings(pace=None, **settings))  # type: ignore[arg-type]
        user = add_user(self.server.exchange, password="Passw0rd-of-the-test", state="APPROVED")
        self.auth = ApiAuth(str(user.user_id), user.api_secret)
        self.withdrawal_id = add_withdrawal(self.server.exchange, user)
        self.control = self.server.control
        self.book = folder / "book"
        self.seen = Seen()
        self.budget = RequestBudget(store=FileStore(path=self.book, rules=RULES), rules=RULES, observer=self.seen)

    def slots(self) -> int:
        """Count the slots taken."""

        return open_store(str(self.book), RULES).transact(lambda book, _: len(book.times))

    def requests(self) -> int:
        """Count the requests that came."""
        return len(self.control.state()["requests"])


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    """One that runs."""
    made = Exchange(tmp_path)
    with made.server:
        yield made


@pytest.fixture
def client(exchange: Exchange, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> QuoineClient:
    """A client that repeats reads, soon."""
    monkeypatch.setattr(retries, "FIRST_BACKOFF", 0.01)
    return make_client(
        exchange.server.url, auth=exchange.auth, budget=exchange.budget, read_attempts=4, observer=exchange.seen
    )


def test_each_request_takes_one_slot_first(exchange: Exchange, client: QuoineClient) -> None:
    for _ in range(3):
        client.get_withdrawal(withdrawal_id=exchange.withdrawal_id)
    client.request_auth_code(user_id=exchange.auth.key_id)
    assert exchange.slots() == exchange.requests() == 4
    assert exchange.seen.waits == ["normal"] * 4
    assert exchange.seen.requests[-2:] == [("get_withdrawal", "ok"), ("request_auth_code", "ok")]


@pytest.mark.parametrize(
    ("fault", "parameters"),
    [
        ("drop_before", {}),
        ("drop_after", {}),
        ("truncated", {}),
        ("status", {"status": 503, "body": "usage limit"}),
    ],
)
def test_a_read_is_repeated_with_a_slot_per_attempt(
    exchange: Exchange, client: QuoineClient, fault: str, parameters: dict[str, object]
) -> None:
    exchange.control.fault(fault, LOOK_UP, times=2, **parameters)
    assert client.get_withdrawal(withdrawal_id=exchange.withdrawal_id).id == exchange.withdrawal_id
    assert exchange.slots() == exchange.requests() == 3
    assert exchange.seen.requests[-1] == ("get_withdrawal", "ok")


def test_a_read_gives_up_with_the_last_body(
    exchange: Exchange, client: QuoineClient, caplog: pytest.LogCaptureFixture
) -> None:
    for nth in range(1, 9):
        exchange.control.fault("status", LOOK_UP, status=503, body=f"broken for the {nth}th time")
    with pytest.raises(QuoineServiceUnavailableError) as caught:
        client.get_withdrawal(withdrawal_id=exchange.withdrawal_id)
    assert caught.value.body == "broken for the 4th time"
    assert "broken for the 4th time" in str(caught.value)
    assert exchange.slots() == exchange.requests() == 4
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [line.split(":")[0] for line in said] == ["Attempt 1", "Attempt 2", "Attempt 3"]


@pytest.mark.parametrize("status", [400, 401, 404, 422, 500])
def test_what_does_not_pass_by_itself_is_not_repeated(exchange: Exchange, client: QuoineClient, status: int) -> None:
    exchange.control.fault("status", LOOK_UP, status=status, body="no")
    with pytest.raises(QuoineError):
        client.get_withdrawal(withdrawal_id=exchange.withdrawal_id)
    assert exchange.requests() == 1


@pytest.mark.parametrize(
    ("fault", "parameters"),
    [
        ("drop_before", {}),
        ("drop_after", {}),
        ("status", {"status": 503}),
        ("status", {"status": 429, "body": "retry after 0s"}),
    ],
)
def test_a_write_is_sent_once(
    exchange: Exchange, client: QuoineClient, fault: str, parameters: dict[str, object]
) -> None:
    exchange.control.fault(fault, "POST /btc_withdrawals/", times=4, **parameters)
    with pytest.raises(QuoineError):
        client.create_withdrawal(order=order("0.001"), auth_code="12345")
    exchange.control.fault(fault, "GET /users/:user_id/auth_code", times=4, **parameters)
    with pytest.raises(QuoineError):
        client.request_auth_code(user_id=exchange.auth.key_id)
    assert exchange.requests() == 2


def test_a_poller_sends_each_read_once(exchange: Exchange, make_client: MakeClient) -> None:
    client = make_client(exchange.server.url, auth=exchange.auth, budget=exchange.budget, priority=Priority.POLLING)
    exchange.control.fault("drop_before", LOOK_UP)
    with pytest.raises(QuoineAnswerLostError):
        client.get_withdrawal(withdrawal_id=exchange.withdrawal_id)
    assert exchange.requests() == 1
    assert exchange.seen.waits == ["polling"]


@pytest.mark.long
def test_a_429_pauses_every_process_once_and_the_read_goes_on_after_it(
    exchange: Exchange, client: QuoineClient
) -> None:
    exchange.control.fault("status", LOOK_UP, status=429, body="API rate limit exceeded. Please retry after 2s")
    with Taker(str(exchange.book), RULES, priority=Priority.POLLING) as other:
        until(lambda: len(other.taken) > 3)
        began = time.monotonic()
        client.get_withdrawal(withdrawal_id=exchange.withdrawal_id)
        took = time.monotonic() - began
        paused_until = open_store(str(exchange.book), RULES).transact(lambda book, _: book.paused_until)
        until(lambda: other.slots[-1] > paused_until)
    assert 2.0 <= took < 60.0
    assert exchange.seen.pauses == [2.0]
    assert [slot for slot in other.slots if paused_until - 2.0 < slot < paused_until] == []
    assert exchange.requests() == 2


def test_a_429_without_retries_pauses_as_well(exchange: Exchange, make_client: MakeClient) -> None:
    client = make_client(exchange.server.url, auth=exchange.auth, budget=exchange.budget, patience=0.1)
    exchange.control.fault("status", LOOK_UP, status=429, body="API rate limit exceeded. Please retry after 300s")
    with pytest.raises(QuoineRateLimitedError):
        client.get_withdrawal(withdrawal_id=exchange.withdrawal_id)
    with pytest.raises(QuoineBudgetError, match=r"429 has paused all requests for another (300|2\d\d) s"):
        client.get_withdrawal(withdrawal_id=exchange.withdrawal_id)
    assert exchange.requests() == 1


@pytest.mark.parametrize("priority", list(Priority))
def test_reads_and_writes_take_their_slots_at_the_priority_of_their_client(
    exchange: Exchange, make_client: MakeClient, priority: Priority
) -> None:
    given = {"auth": exchange.auth, "budget": exchange.budget, "priority": priority}
    client = make_client(exchange.server.url, **given)
    client.get_withdrawal(withdrawal_id=exchange.withdrawal_id)
    client.request_auth_code(user_id=exchange.auth.key_id)
    client.take_slot()
    assert exchange.seen.waits == [priority.name.lower()] * 3


async def test_a_slot_taken_ahead_is_for_the_request_that_it_is_given_to(
    exchange: Exchange, client: QuoineClient
) -> None:
    for_code, for_look_up = client.take_slot(), await client.take_slot_async()
    assert (exchange.slots(), exchange.requests()) == (2, 0)
    client.get_withdrawal(withdrawal_id=exchange.withdrawal_id)
    assert (exchange.slots(), exchange.requests()) == (3, 1)
    client.get_withdrawal(withdrawal_id=exchange.withdrawal_id, slot=for_look_up)
    client.request_auth_code(user_id=exchange.auth.key_id, slot=for_code)
    assert (exchange.slots(), exchange.requests()) == (3, 3)


def test_a_slot_is_good_for_one_request(exchange: Exchange, client: QuoineClient) -> None:
    slot = client.take_slot()
    client.get_withdrawal(withdrawal_id=exchange.withdrawal_id, slot=slot)
    for call in (
        partial(client.get_withdrawal, withdrawal_id=exchange.withdrawal_id),
        partial(client.request_auth_code, user_id=exchange.auth.key_id),
        partial(client.create_withdrawal, order=order("0.001"), auth_code="12345"),
    ):
        with pytest.raises(QuoineInputError, match=r"given to an earlier request.*Nothing was sent"):
            call(slot=slot)
    assert (exchange.slots(), exchange.requests()) == (1, 1)


def test_a_slot_of_another_budget_is_refused(
    exchange: Exchange, client: QuoineClient, make_client: MakeClient, tmp_path: Path
) -> None:
    other = RequestBudget(store=FileStore(path=tmp_path / "other", rules=RULES), rules=RULES)
    for stranger in (
        make_client(exchange.server.url, auth=exchange.auth, budget=other),
        make_client(exchange.server.url, auth=exchange.auth),
    ):
        for taker, sender in ((client, stranger), (stranger, client)):
            with pytest.raises(QuoineInputError, match=r"of another request budget.*Nothing was sent"):
                sender.get_withdrawal(withdrawal_id=exchange.withdrawal_id, slot=taker.take_slot())
    assert exchange.requests() == 0


@pytest.mark.long
def test_slots_that_are_held_until_their_window_is_over_do_not_break_the_limit(
    tmp_path: Path, make_client: MakeClient
) -> None:
    rules = Rules(limit=3, window=2.0, margin=0.5)
    exchange = Exchange(tmp_path, limit=rules.limit, window=rules.window)
    budget = RequestBudget(store=FileStore(path=exchange.book, rules=rules), rules=rules)
    with exchange.server:
        client = make_client(exchange.server.url, auth=exchange.auth, budget=budget)
        held = [client.take_slot() for _ in range(rules.limit)]
        # The next one is free once those count no longer.
        held += [client.take_slot() for _ in range(rules.limit)]
        with ThreadPoolExecutor(len(held)) as threads:
            for found in [
                threads.submit(client.get_withdrawal, withdrawal_id=exchange.withdrawal_id, slot=slot) for slot in held
            ]:
                assert found.result().id == exchange.withdrawal_id
        assert exchange.control.state()["rate_limit"]["busiest_window"] <= rules.limit


def test_of_many_threads_one_gets_the_slot(exchange: Exchange, client: QuoineClient) -> None:
    slot = client.take_slot()

    def use(_: int) -> bool:
        try:
            slot.use(budget=exchange.budget)
        except QuoineInputError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(use, range(100))) == 1


def test_a_failed_request_has_used_its_slot(exchange: Exchange, client: QuoineClient) -> None:
    slot = client.take_slot()
    exchange.control.fault("status", "POST /btc_withdrawals/", status=503, body="broken")
    with pytest.raises(QuoineServerError):
        client.create_withdrawal(order=order("0.001"), auth_code="12345", slot=slot)
    with pytest.raises(QuoineInputError):
        client.create_withdrawal(order=order("0.001"), auth_code="12345", slot=slot)
    assert exchange.requests() == 1


def test_a_retry_takes_a_slot_of_its_own(exchange: Exchange, client: QuoineClient) -> None:
    exchange.control.fault("drop_before", LOOK_UP)
    client.get_withdrawal(withdrawal_id=exchange.withdrawal_id, slot=client.take_slot())
    assert exchange.slots() == exchange.requests() == 2


def test_without_a_budget_a_slot_is_good_for_one_request_as_well(exchange: Exchange, make_client: MakeClient) -> None:
    client = make_client(exchange.server.url, auth=exchange.auth)
    slot = client.take_slot()
    client.get_withdrawal(withdrawal_id=exchange.withdrawal_id, slot=slot)
    with pytest.raises(QuoineInputError):
        client.get_withdrawal(withdrawal_id=exchange.withdrawal_id, slot=slot)
    assert exchange.requests() == 1


def test_a_request_under_way_for_longer_than_the_margin_counts_once_more(
    exchange: Exchange, make_client: MakeClient
) -> None:
    rules = Rules(limit=1000, window=60.0)
    budget = RequestBudget(store=FileStore(path=exchange.book, rules=rules), rules=rules)
    client = make_client(exchange.server.url, auth=exchange.auth, budget=budget)
    exchange.control.fault("delay", LOOK_UP, seconds=rules.margin_seconds + 0.1)
    client.get_withdrawal(withdrawal_id=exchange.withdrawal_id)
    assert exchange.slots() == 2


def test_a_counting_that_fails_takes_nothing_from_the_answer(
    exchange: Exchange, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Observer):
        def requested(self, endpoint: str, outcome: str, seconds: float) -> None:
            raise RuntimeError("no metrics")

    client = make_client(exchange.server.url, auth=exchange.auth, budget=exchange.budget, observer=Broken())
    assert client.get_withdrawal(withdrawal_id=exchange.withdrawal_id).id == exchange.withdrawal_id
    with pytest.raises(QuoineNotFoundError):
        client.get_withdrawal(withdrawal_id="999999")
    assert "could not be counted" in caplog.text
