"""A process that runs one capture trigger as a triggerer does, to be killed, with a store that can hang."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HOLD = 0.02
"""Seconds from which on a time in which no thread runs is noted."""


def run(pipe: Connection, home: str, port: int, folder: str) -> None:
    """
    Load all that a triggerer has loaded, send the process' id, take a capture's specification, run it, send its event.

    :param home: of Airflow, and of the log.
    :param port: of the market.
    :param folder: the store. It hangs while there is a file :func:`hang_file`.
    """
    os.environ["AIRFLOW_HOME"] = home
    extra = {"pusher_key": "key-of-nobody", "pusher_host": "127.0.0.1", "pusher_port": port, "pusher_tls": False}
    os.environ["AIRFLOW_CONN_EXCHANGE"] = json.dumps({"conn_type": "quoine", "extra": extra})
    asyncio.run(_run(pipe, home, folder))
    os._exit(0)


def holds_file(home: str) -> Path:
    """Return the file of the times in which a capturing process let no thread run: a beginning and an end per line."""
    return Path(home) / "holds"


def hang_file(folder: str) -> Path:
    """Return the file that makes a store hang."""
    return Path(f"{folder}.hangs")


async def _run(pipe: Connection, home: str, folder: str) -> None:
    from airflow_provider_quoine.hooks.quoine import QuoineHook
    from airflow_provider_quoine.triggers.capture import QuoineCaptureTrigger

    # A triggerer has loaded all that looks connections up before its first trigger runs.
    await QuoineHook("exchange").aget_stream_endpoint()
    logging.basicConfig(
        filename=f"{home}/captures.log", level=logging.INFO, format="%(asctime)s %(process)d %(message)s", force=True
    )
    _let_hang(folder)
    pipe.send(os.getpid())
    spec = await asyncio.to_thread(pipe.recv)
    threading.Thread(target=_note_holds, args=(holds_file(home),), daemon=True).start()
    async for event in QuoineCaptureTrigger(quoine_conn_id="exchange", spec=spec).run():
        pipe.send(event.payload)


def _note_holds(path: Path) -> None:
    """Write down each time in which this thread should have run and did not: none that reads did either."""
    with path.open("a", buffering=1) as file:
        while True:
            before = time.time()
            time.sleep(HOLD / 2)
            after = time.time()
            if after - before > HOLD:
                file.write(f"{before} {after}\n")


def _let_hang(folder: str) -> None:
    """Let every call that touches the store wait on its thread while it hangs, as on a file server that is gone."""
    calls = {"open", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.scandir"}
    hangs = str(hang_file(folder))

    def wait(call: str, arguments: tuple[Any, ...]) -> None:
        if call in calls and str(arguments[0]).startswith(folder):
            while os.path.exists(hangs):
                time.sleep(0.02)

    # Python tells a hook of each call to the file system before it is made, whichever library makes it.
    sys.addaudithook(wait)
