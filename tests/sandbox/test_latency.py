"""The sandbox answers at once, on connections that are kept as well."""

from __future__ import annotations

import http.client
import time
from statistics import median

from airflow_provider_quoine.sandbox.server import SandboxServer


def test_an_answer_on_a_kept_connection_waits_for_no_acknowledgement(sandbox: SandboxServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=10)
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        connection.request("GET", "/btc_withdrawals/1")
        connection.getresponse().read()
        seconds.append(time.perf_counter() - began)
    connection.close()
    assert median(seconds) < 0.03
