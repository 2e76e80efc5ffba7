"""A process that runs one capture trigger as a triggerer does, to be killed."""

from __future__ import annotations

import asyncio
import json
import sys

from airflow_provider_quoine.exchange.stream import pusher
from airflow_provider_quoine.triggers.capture import QuoineCaptureTrigger


async def run(trigger: QuoineCaptureTrigger) -> None:
    """Say what its event says."""
    async for event in trigger.run():
        print(json.dumps(event.payload), flush=True)


def main() -> None:
    """Say when it is loaded, take the capture's specification and the stream's patience as JSON lines, and run it."""
    print("ready", flush=True)
    spec, given = (json.loads(sys.stdin.readline()) for _ in range(2))
    # A connection has no setting as short as the tests want.
    timing = pusher.StreamTiming(**given)
    pusher.StreamTiming = lambda **_: timing  # type: ignore[assignment,misc]
    asyncio.run(run(QuoineCaptureTrigger(quoine_conn_id="quoine_default", spec=spec)))


if __name__ == "__main__":
    main()
