"""The server: latency, closing its port, and the connection for Airflow."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import time

import pytest
import requests

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.support.partner import Partner


@pytest.mark.alone
def test_a_response_on_a_kept_alive_connection_is_not_delayed_by_acknowledgements(sandbox: SandboxServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=60)
    seconds = []
    for _ in range(60):
        began = time.perf_counter()
        connection.request("GET", "/btc_withdrawals/1")
        connection.getresponse().read()
        seconds.append(time.perf_counter() - began)
    connection.close()
    # At first the kernel acknowledges at once; later it takes 40 ms for each.
    assert min(seconds[40:]) < 0.03


@pytest.mark.long
def test_the_port_is_closed_for_a_while_and_is_then_the_same(by_hand: Partner) -> None:
    asked_at = time.monotonic()
    by_hand.control.fault("refuse", seconds=2)
    with pytest.raises(requests.ConnectionError, match="Connection refused"):
        by_hand.status(1)
    while True:
        try:
            response = by_hand.status(1)
            break
        except requests.ConnectionError:
            assert time.monotonic() < asked_at + 60
    assert time.monotonic() >= asked_at + 2
    assert response.status_code == 401


def test_a_connection_kept_alive_does_not_get_past_a_closed_port(by_hand: Partner) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.get(by_hand.sandbox.url + "/_sandbox/auth_codes", timeout=60)
        by_hand.control.fault("refuse", seconds=60)
        with pytest.raises(requests.ConnectionError):
            session.get(by_hand.sandbox.url + "/_sandbox/auth_codes", timeout=60)


def test_a_server_with_a_closed_port_still_stops() -> None:
    with SandboxServer(SandboxSettings()) as sandbox:
        sandbox.control.fault("refuse", seconds=600)
        start = time.monotonic()
    assert time.monotonic() - start < 60


def test_a_connection_for_airflow_fits_the_server() -> None:
    with SandboxServer(SandboxSettings(vendor_id="77")) as sandbox:
        connection = json.loads(sandbox.airflow_connection())
    assert connection == {
        "conn_type": "quoine",
        "host": sandbox.url,
        "login": "77",
        "password": sandbox.vendor_secret,
        "extra": {
            "pusher_key": sandbox.pusher_key,
            "pusher_host": "127.0.0.1",
            "pusher_port": sandbox.port,
            "pusher_tls": False,
            "withdrawal_addresses": "*",
            "withdrawal_max": "unlimited",
            "withdrawal_max_24h": "unlimited",
            "withdrawal_count_24h": "unlimited",
            "withdrawal_max_day": "unlimited",
            "withdrawal_count_day": "unlimited",
            "withdrawal_link": f"{sandbox.url}/#withdrawal-{{id}}",
            "request_limit": 300,
            "request_window": 300.0,
        },
    }


def test_a_request_that_has_arrived_is_carried_out_even_if_its_client_has_reset_the_connection(
    sandbox: SandboxServer,
) -> None:
    for number in range(50):
        with socket.create_connection(("127.0.0.1", sandbox.port)) as connection:
            connection.sendall(b"GET /btc_withdrawals/%d HTTP/1.1\r\nHost: sandbox\r\n\r\n" % number)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def statuses() -> list[int]:
        return [each["status"] for each in sandbox.control.state()["requests"] if each["status"]]

    deadline = time.monotonic() + 60
    while len(statuses()) < 50 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert statuses() == [401] * 50
