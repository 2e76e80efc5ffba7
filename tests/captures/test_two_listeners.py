"""Two real processes capture the same; one of them is killed and frozen again and again."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.captures.capturing import lines
from tests.support.capture_lives import lives
from tests.support.streams import LIMIT

pytestmark = [pytest.mark.paced, pytest.mark.timeout(240)]

IMPATIENT = {"first_wait": 0.01, "longest_wait": 0.1, "activity_timeout": 1.0, "pong_timeout": 5.0}
KILLS = 50


class Publisher:
    """Numbers the events that somebody hears."""

    def __init__(self, market: SandboxServer) -> None:
        self._market = market
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._publish)
        self.heard = threading.Event()

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._over.set()
        self._thread.join()

    def _publish(self) -> None:
        for number in itertools.count():
            if self._market.control.publish("mine", "told", str(number)):
                self.heard.set()
            if self._over.wait(0.01):
                return


def writers_of(spec: CaptureSpec) -> set[str]:
    """The lives that have written."""
    return {one["life"] for part in lines(spec, "part") for one in part["listened"]}


def bother(start: Callable[[], int], chance: random.Random, spec: CaptureSpec) -> None:
    """Start a second life again and again, and kill it; freeze some before."""
    for number in range(KILLS):
        victim = start()
        time.sleep(chance.uniform(0.05, 0.8))
        if number % 10 == 9:
            while len(writers_of(spec)) < 2:
                time.sleep(0.05)
            # It wakes up after the other one has written what came meanwhile.
            os.kill(victim, signal.SIGSTOP)
            time.sleep(2)
            os.kill(victim, signal.SIGCONT)
            time.sleep(1)
        os.kill(victim, signal.SIGKILL)


def test_a_listener_that_is_killed_fifty_times_costs_no_row_and_no_gap_beside_another(
    begin: Callable[..., CaptureSpec], tmp_path: Path
) -> None:
    with SandboxServer(SandboxSettings()) as market:
        env = {"AIRFLOW_HOME": str(tmp_path / "airflow"), "AIRFLOW_CONN_QUOINE_DEFAULT": market.airflow_connection()}
        with lives(os.environ | env) as processes, Publisher(market) as publisher:
            processes.load()
            spec = begin("event", channels=["mine"], duration=48.0, part_seconds=1.0)
            start = partial(processes.start, spec.as_json(), IMPATIENT)
            start()
            assert publisher.heard.wait(LIMIT)
            bother(start, random.Random(11), spec)
            assert datetime.now(UTC) < spec.periods.ends_at, "the machine is too slow for this test"
            written_at = spec.periods.ends_at + timedelta(seconds=3)
            while datetime.now(UTC) < written_at or len(lines(spec, "part")) < spec.periods.count:
                time.sleep(0.1)
    rows = lines(spec, "event")
    # There is no gap but until the first one listened.
    opening = [gap for gap in lines(spec, "gap") if gap["from"] <= rows[0]["received_at"]]
    assert lines(spec, "gap") == opening
    numbers = [int(json.loads(row["data"])) for row in rows]
    assert [number for number, count in Counter(numbers).items() if count > 1] == []
    assert sorted(numbers) == list(range(min(numbers), max(numbers) + 1))
    assert [row["received_at"] for row in rows] == sorted(row["received_at"] for row in rows)
    # The second one did write.
    assert len(writers_of(spec)) > 1
