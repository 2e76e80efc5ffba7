"""The rate limit: exact at its edges with an injected clock, and over a real socket."""

from __future__ import annotations

import time

import pytest

from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.rest.limiter import RateLimiter
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.support.clock import ManualClock
from tests.support.partner import Partner


def refused(limiter: RateLimiter, address: str = "a") -> str:
    with pytest.raises(Refusal) as caught:
        limiter.admit(address)
    assert caught.value.status == 429
    return str(caught.value.content)


def test_a_slot_is_free_exactly_one_window_after_it_was_taken(clock: ManualClock) -> None:
    limiter = RateLimiter(limit=2, window=10, clock=clock)
    start = clock.seconds
    limiter.admit("a")
    clock.seconds = start + 4
    limiter.admit("a")
    clock.seconds = start + 7.5
    assert refused(limiter) == "API rate limit exceeded. Please retry after 3s"
    clock.seconds = start + 10
    limiter.admit("a")
    assert refused(limiter) == "API rate limit exceeded. Please retry after 4s"
    clock.seconds = start + 14
    limiter.admit("a")


def test_a_refused_request_takes_no_slot(clock: ManualClock) -> None:
    limiter = RateLimiter(limit=1, window=10, clock=clock)
    limiter.admit("a")
    clock.seconds += 5
    refused(limiter)
    clock.seconds += 5
    limiter.admit("a")


def test_each_address_has_its_own_budget(clock: ManualClock) -> None:
    limiter = RateLimiter(limit=1, window=10, clock=clock)
    limiter.admit("a")
    limiter.admit("b")
    refused(limiter, "a")


def test_never_more_than_the_limit_in_any_window(clock: ManualClock) -> None:
    limiter = RateLimiter(limit=300, window=300, clock=clock)
    admitted = []
    for _ in range(5000):
        clock.seconds += 0.37
        try:
            limiter.admit("a")
            admitted.append(clock.seconds)
        except Refusal:
            pass
    windows = [sum(start <= at < start + 300 for at in admitted) for start in admitted]
    assert max(windows) == 300


def test_the_busiest_window_includes_refused_requests(clock: ManualClock) -> None:
    limiter = RateLimiter(limit=2, window=10, clock=clock)
    for _ in range(2):
        limiter.admit("a")
    for _ in range(3):
        refused(limiter)
    clock.seconds += 10
    limiter.admit("a")
    assert limiter.stats() == {"limit": 2, "window": 10, "busiest_window": 5, "refused": 3}


def test_over_the_limit_the_response_is_429_in_plain_text_and_controls_are_not_limited() -> None:
    with SandboxServer(SandboxSettings(limit=3, window=60, clock=ManualClock(time.time()))) as sandbox:
        partner = Partner(sandbox)
        for _ in range(10):
            sandbox.control.state()
        for _ in range(3):
            assert partner.status(1).status_code == 401
        response = partner.status(1)
        assert response.status_code == 429
        assert response.headers["Content-Type"].startswith("text/plain")
        assert response.text == "API rate limit exceeded. Please retry after 60s"
        assert sandbox.control.state()["rate_limit"]["refused"] == 1
