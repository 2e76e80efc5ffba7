"""Many deferred waits share one poller: on a real event loop, against the sandbox."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
from airflow.sdk.observability import stats

from airflow_provider_quoine.exchange.models import UserCredentials
from airflow_provider_quoine.sandbox.rest.fixtures import add_user, add_withdrawal
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from airflow_provider_quoine.triggers.events import Outcome, Status, read_event
from airflow_provider_quoine.triggers.polling import QuoineOnboardingStatusTrigger, QuoineWithdrawalTrigger
from airflow_provider_quoine.waiting import poller
from tests.support.heartbeat import heartbeat
from tests.support.streams import LIMIT, open_descriptors, until

PASSWORD = "Passw0rd-of-the-test"
WITHDRAWAL = "GET /btc_withdrawals/:id"
STATUS = "POST /users/onboarding_status"
ENDS: dict[str, Any] = {"success_states": ["processed"], "failure_states": ["declined"]}


class Waiting:
    """An exchange with pending withdrawals, and connections to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, withdrawals: int, **settings: Any) -> None:
        self.sandbox = SandboxServer(SandboxSettings(**{"pace": None, "limit": 20_000, "window": 10.0, **settings}))
        self.user = add_user(self.sandbox.exchange, password=PASSWORD, state="APPROVED")
        self.ids = [add_withdrawal(self.sandbox.exchange, self.user) for _ in range(withdrawals)]
        self.control = self.sandbox.control
        self._monkeypatch = monkeypatch
        rate = self.sandbox.settings
        self.extra = {"request_limit": rate.limit, "request_window": rate.window}
        self.connect("quoine_default")
        key = UserCredentials(api_id=str(self.user.user_id), api_secret=self.user.api_secret)
        monkeypatch.setenv("AIRFLOW_VAR_USER_KEY", key.to_json())

    def connect(self, conn_id: str, **changes: Any) -> None:
        """Set up a connection with the user's own key."""
        key = {"login": str(self.user.user_id), "password": self.user.api_secret}
        connection = {"conn_type": "quoine", "host": self.sandbox.url, "extra": self.extra, **key, **changes}
        self._monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))

    def trigger(self, withdrawal_id: str, **changes: Any) -> QuoineWithdrawalTrigger:
        """Make a trigger as the triggerer does: from what it serialized."""
        given = {"quoine_conn_id": "quoine_default", "credentials_variable": None, "poke_interval": 0.2, **changes}
        path, arguments = QuoineWithdrawalTrigger(withdrawal_id=withdrawal_id, **ENDS, **given).serialize()
        assert path == "airflow_provider_quoine.triggers.polling.QuoineWithdrawalTrigger"
        return QuoineWithdrawalTrigger(**json.loads(json.dumps(arguments)))

    def wait(self, withdrawal_id: str, **changes: Any) -> asyncio.Task[Outcome]:
        """Begin to wait."""
        return asyncio.create_task(outcome_of(self.trigger(withdrawal_id, **changes)))

    def visits(self) -> dict[str, list[float]]:
        """Return the times of each id's queries, in Unix seconds."""
        seen: dict[str, list[float]] = {}
        for request in self.control.state()["requests"]:
            seen.setdefault(request["path"].rpartition("/")[2], []).append(
                datetime.fromisoformat(request["at"]).timestamp()
            )
        return seen

    async def processed(self, withdrawal_id: str) -> None:
        """Let a withdrawal end."""
        await asyncio.to_thread(self.control.set_withdrawal, withdrawal_id, "processed")


@contextmanager
def waiting(monkeypatch: pytest.MonkeyPatch, withdrawals: int, **settings: Any) -> Iterator[Waiting]:
    made = Waiting(monkeypatch, withdrawals=withdrawals, **settings)
    with made.sandbox:
        yield made


@pytest.fixture(autouse=True)
def soon_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three visits in a row are enough."""
    monkeypatch.setattr(poller, "FINAL_AFTER_SECONDS", 0.0)


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiting]:
    """Three pending withdrawals."""
    with waiting(monkeypatch, 3) as made:
        yield made


async def outcome_of(trigger: Any) -> Outcome:
    """Run a trigger, and read its one event as Airflow passes it on."""
    (event,) = [event.payload async for event in trigger.run()]
    return read_event(json.loads(json.dumps(event)), sender="The trigger")


def poller_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("quoine-poller")]


async def leave(*tasks: asyncio.Task[Outcome]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def nothing_stays() -> None:
    """Wait until no poller, task or thread of one is left."""
    me = asyncio.current_task()
    await until(lambda: not poller._pollers and not poller_threads() and asyncio.all_tasks() <= {me})


async def test_one_poller_tells_each_its_own_end(three: Waiting) -> None:
    tasks = [three.wait(one) for one in three.ids]
    await until(lambda: len(three.visits()) == 3)
    assert len(poller._pollers) == 1
    await three.processed(three.ids[0])
    await asyncio.to_thread(three.control.set_withdrawal, three.ids[1], "declined")
    ended = [await tasks[0], await tasks[1]]
    assert not tasks[2].done()
    await leave(tasks[2])
    await nothing_stays()
    done, failed = ended
    assert (done.status, done.result["state"]) == (Status.SUCCESS, "processed")
    assert done.result["answer"]["id"] == three.ids[0]
    assert (failed.status, failed.result["state"]) == (Status.FAILED, "declined")


@pytest.mark.long
async def test_everybody_is_visited_in_turn_and_no_more_often_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with waiting(monkeypatch, 20) as made:
        tasks = [made.wait(one, poke_interval=0.5) for one in made.ids]
        await until(lambda: len(visits := made.visits()) == 20 and min(map(len, visits.values())) >= 5)
        await leave(*tasks)
        visits = made.visits()
    # A request may be on its way for longer than the next one, so the pace is that of all visits, less one such delay.
    assert min((times[-1] - times[0] + 0.25) / (len(times) - 1) for times in visits.values()) > 0.5
    assert max(map(len, visits.values())) - min(map(len, visits.values())) <= 2


async def test_one_that_ends_or_is_cancelled_costs_nothing_more(three: Waiting) -> None:
    ends, cancelled, goes_on = [three.wait(one) for one in three.ids]
    await until(lambda: len(three.visits()) == 3)
    await three.processed(three.ids[0])
    await ends
    await leave(cancelled)
    before = three.visits()
    await until(lambda: len(three.visits()[three.ids[2]]) > len(before[three.ids[2]]) + 3)
    after = three.visits()
    assert after[three.ids[0]] == before[three.ids[0]]
    assert len(after[three.ids[1]]) <= len(before[three.ids[1]]) + 1
    await leave(goes_on)
    await nothing_stays()


@pytest.mark.alone
async def test_nothing_stays_when_the_last_one_leaves_in_the_middle_of_a_request(three: Waiting) -> None:
    async def leave_in_the_middle() -> None:
        asked = len(three.control.state()["requests"])
        await asyncio.to_thread(three.control.fault, "delay", WITHDRAWAL, seconds=3, times=3)
        tasks = [three.wait(one) for one in three.ids]
        await until(lambda: len(three.control.state()["requests"]) == asked + 3)
        await leave(*tasks)
        answered = [request["status"] for request in three.control.state()["requests"][asked:]]
        assert answered == [None] * 3, "leaving waits for no answer"
        await nothing_stays()

    # The request budget, which all of the process share, stays open from its first use on.
    await leave_in_the_middle()
    before = open_descriptors()
    await leave_in_the_middle()
    await until(lambda: open_descriptors() <= before)


async def test_those_who_leave_while_they_wait_for_a_slot_take_none(monkeypatch: pytest.MonkeyPatch) -> None:
    # A slot for polling every 600 s.
    with waiting(monkeypatch, 10, limit=100, window=60_000.0) as made:
        tasks = [made.wait(one, poke_interval=0.1) for one in made.ids]
        # Polling may begin one slot early.
        await until(lambda: len(made.visits()) == 2)
        (running,) = poller._pollers.values()
        await until(lambda: len(running._visits) == poller.THREADS)
        await leave(*tasks)
        await nothing_stays()
        assert sum(map(len, made.visits().values())) == 2


def test_a_loop_that_ends_with_waits_on_it_leaves_nothing(three: Waiting) -> None:
    async def scenario() -> None:
        _tasks = [three.wait(one) for one in three.ids]
        await until(lambda: len(three.visits()) == 3)

    # A loop of its own, because it has to end within the test.
    asyncio.run(scenario())
    assert not poller._pollers
    deadline = time.monotonic() + LIMIT
    while poller_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not poller_threads()


async def test_an_error_of_one_id_does_not_touch_the_others(three: Waiting) -> None:
    fine, unknown = three.wait(three.ids[0]), three.wait("999")
    refused = await unknown
    await three.processed(three.ids[0])
    assert refused.status == Status.ERROR
    assert "HTTP 404" in refused.message
    assert (await fine).status == Status.SUCCESS


@pytest.mark.long
async def test_what_may_pass_by_itself_ends_no_wait(three: Waiting) -> None:
    for kind, more in (
        ("drop_before", {}),
        ("drop_after", {}),
        ("garbage", {}),
        ("truncated", {}),
        ("status", {"status": 503, "body": "busy"}),
        ("status", {"status": 500, "body": "oops"}),
        ("status", {"status": 401, "body": "API Authentication failed"}),
        ("status", {"status": 401, "body": "Nonce is too small"}),
    ):
        await asyncio.to_thread(three.control.fault, kind, WITHDRAWAL, **more)
    await three.processed(three.ids[0])
    assert (await three.wait(three.ids[0])).status == Status.SUCCESS
    assert len(three.control.state()["requests"]) >= 9


async def test_a_key_that_stays_refused_ends_the_wait_and_says_so(three: Waiting) -> None:
    three.connect("quoine_default", password="wrong-" * 8)
    refused = await outcome_of(three.trigger(three.ids[0]))
    assert refused.status == Status.ERROR
    assert "HTTP 401" in refused.message
    assert "wrong-" not in refused.message
    assert len(three.control.state()["requests"]) == poller.FINAL_AFTER_VISITS


@pytest.mark.long
async def test_many_quick_refusals_are_not_final(three: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "FINAL_AFTER_SECONDS", 300.0)
    three.connect("quoine_default", password="wrong-" * 8)

    task = three.wait(three.ids[0])
    await until(lambda: len(three.control.state()["requests"]) > 2 * poller.FINAL_AFTER_VISITS)
    three.connect("quoine_default")
    await three.processed(three.ids[0])
    assert (await task).status == Status.SUCCESS


async def test_a_changed_key_is_taken_up_by_those_who_wait(three: Waiting) -> None:
    tasks = [three.wait(one) for one in three.ids]
    await until(lambda: len(three.visits()) == 3)
    # As after a rotation: the old key is refused from here on.
    three.user.api_secret = "a-new-secret-of-this-user-of-the-exchange"
    await until(lambda: 401 in [request["status"] for request in three.control.state()["requests"]])
    three.connect("quoine_default")
    for one in three.ids:
        await three.processed(one)
    assert [outcome.status for outcome in await asyncio.gather(*tasks)] == [Status.SUCCESS] * 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"quoine_conn_id": "nowhere"}, "nowhere"), ({"credentials_variable": "no_such_key"}, "no_such_key")],
)
async def test_what_is_not_there_is_named(three: Waiting, changes: dict[str, Any], words: str) -> None:
    refused = await outcome_of(three.trigger(three.ids[0], **changes))
    assert refused.status == Status.ERROR
    assert words in refused.message
    assert three.control.state()["requests"] == []


async def test_a_variable_that_is_missing_for_a_while_ends_no_wait(
    three: Waiting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    await three.processed(three.ids[0])
    task = three.wait(three.ids[0], credentials_variable="comes_later")
    await until(lambda: "comes_later" in caplog.text)
    monkeypatch.setenv("AIRFLOW_VAR_COMES_LATER", os.environ["AIRFLOW_VAR_USER_KEY"])
    assert (await task).status == Status.SUCCESS


async def test_waits_with_the_keys_of_users_share_the_poller(three: Waiting) -> None:
    tasks = [three.wait(one, credentials_variable="user_key") for one in three.ids[:2]]
    tasks.append(three.wait(three.ids[2]))
    await until(lambda: len(three.visits()) == 3)
    assert len(poller._pollers) == 1
    for one in three.ids:
        await three.processed(one)
    assert [outcome.status for outcome in await asyncio.gather(*tasks)] == [Status.SUCCESS] * 3


async def test_a_connection_whose_server_hangs_does_not_hold_up_another(three: Waiting) -> None:
    with SandboxServer(SandboxSettings(pace=None)) as hangs:
        hangs.control.fault("delay", WITHDRAWAL, seconds=30, times=8)
        three.connect("hangs", host=hangs.url)
        stuck = [three.wait(str(number), quoine_conn_id="hangs", poke_interval=0.1) for number in range(8)]
        await until(lambda: len(hangs.control.state()["requests"]) == poller.THREADS)
        fine = three.wait(three.ids[0])
        await until(lambda: len(poller._pollers) == 2)
        await three.processed(three.ids[0])
        outcome = await fine
        assert not any(task.done() for task in stuck)
        await leave(*stuck)
    assert outcome.status == Status.SUCCESS


async def test_onboarding_waits_end_and_carry_no_key(three: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", three.sandbox.airflow_connection())
    monkeypatch.setenv("AIRFLOW_VAR_USER_PASSWORD", PASSWORD)
    trigger = QuoineOnboardingStatusTrigger(
        quoine_conn_id="quoine_default",
        user_id=str(three.user.user_id),
        password_variable="user_password",
        success_states=("APPROVED",),
        failure_states=(),
        poke_interval=0.2,
    )
    answer = {"user_id": str(three.user.user_id), "status": "APPROVED"}
    expected = Outcome(status=Status.SUCCESS, result={"state": "APPROVED", "answer": answer})
    assert await outcome_of(trigger) == expected


@pytest.mark.alone
async def test_the_log_of_each_task_says_where_it_stands(
    three: Waiting, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_of_log: contextvars.ContextVar[str] = contextvars.ContextVar("task_of_log", default="")
    lines: list[tuple[str, str]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((task_of_log.get(), record.getMessage()))

    handler = Handler()
    logger = logging.getLogger("airflow.task.airflow_provider_quoine.waiting.status_queries")
    monkeypatch.setattr(logger, "handlers", [handler])
    caplog.set_level(logging.INFO, logger.name)

    async def named(one: str) -> Outcome:
        task_of_log.set(one)
        return await outcome_of(three.trigger(one))

    tasks = [asyncio.create_task(named(one)) for one in three.ids]
    await until(lambda: len(visits := three.visits()) == 3 and min(map(len, visits.values())) > 3)
    await asyncio.to_thread(three.control.set_withdrawal, three.ids[0], "processing")
    await until(lambda: len(lines) > 3)
    await leave(*tasks)
    assert sorted(task for task, _ in lines) == sorted([*three.ids, three.ids[0]])
    for task, words in lines:
        assert words.startswith(f"Withdrawal {task} is p")
        assert "Next query in about 0 s; " in words
    assert (
        "waits in the poller of connection quoine_default: 3. Processes that share 20000 requests in 10 s: 1."
        in lines[-1][1]
    )


async def test_airflows_metrics_say_how_many_wait(three: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    gauges: list[tuple[str, float, Any]] = []

    class Recorder(NoStatsLogger):
        @classmethod
        def gauge(cls, stat: str, value: float, *_: Any, tags: dict[str, Any] | None = None) -> None:
            gauges.append((stat, value, tags))

    stats.initialize(factory=Recorder, export_legacy_names=False)
    try:
        tasks = [three.wait(one) for one in three.ids]
        await until(lambda: len(three.visits()) == 3)
        await leave(*tasks)
        await nothing_stays()
    finally:
        stats.initialize(factory=NoStatsLogger, export_legacy_names=False)
    tags = {"conn_id": "quoine_default"}
    # A visit that was on its way when all left, and one after ten seconds, say the same number once more.
    told = [gauge for gauge, _ in itertools.groupby(gauges)]
    assert told == [("quoine.poller.waiters", 3, tags), ("quoine.poller.waiters", 0, tags)]


@pytest.mark.alone
@pytest.mark.usefixtures("heap_of_its_own")
async def test_the_event_loop_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with waiting(monkeypatch, 200) as made:
        tasks = [made.wait(one, poke_interval=2.0) for one in made.ids]
        async with heartbeat() as heart:
            await asyncio.sleep(3)
        # The control is asked on the loop.
        await until(lambda: len(made.visits()) == 200)
        await leave(*tasks)
        assert heart.held_up < 0.2
