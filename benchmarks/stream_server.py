"""
A Pusher server that is as fast as possible: it prepares its frames before it sends them, and says how many it sent.

It sends whole order-book sides of 1.15 kB over the channels of a connection in turn: at a given rate to each connection
from its first subscription on, or when it is told to, for a time.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from itertools import cycle, islice
from multiprocessing.connection import Connection

from benchmarks.stream_link import PusherLink, frame

END = "[]"
"""Data of the last message of each channel: an order-book side without rows."""

_ROWS = 40
_BATCH = 64


def book_side(number: int) -> str:
    """Return 40 rows as the exchange sends them, 1.15 kB; the first price numbers them."""
    rows = [[f"{600_000 + number + row}.{row:05d}", f"{row + 1}.{number % 100_000_000:08d}"] for row in range(_ROWS)]
    return json.dumps(rows, separators=(",", ":"))


def serve(pipe: Connection, core: int | None, rate: float) -> None:
    """
    Serve until told to stop.

    Answers ``count`` with the number of connections so far. Answers a pair of seconds and a rate (0: as fast as the
    client takes them) by sending so long to the first connection and then :data:`END` on each channel; the answer is
    how many messages that were, and how many seconds it took to send them.

    :param core: the processor to run on; None for any.
    :param rate: events a second to each connection; 0 for none until told to. At a rate, the fraction of the first
        quantity is the time of sending, in units of 10 microseconds.
    """
    if core is not None:
        os.sched_setaffinity(0, {core})
    with socket.create_server(("127.0.0.1", 0), backlog=2000) as listener:
        pipe.send(listener.getsockname()[1])
        links: list[PusherLink] = []
        threading.Thread(target=_accept, args=(listener, rate, links), daemon=True).start()
        while (order := pipe.recv()) != "stop":
            pipe.send(len(links) if order == "count" else _send_for(links[0], *order))
    os._exit(0)


def _accept(listener: socket.socket, rate: float, links: list[PusherLink]) -> None:
    def pace(link: PusherLink) -> None:
        if rate and len(link.channels) == 1:
            threading.Thread(target=_pace, args=(link, rate), daemon=True).start()

    while True:
        links.append(PusherLink(listener.accept()[0], pace))
        threading.Thread(target=links[-1].serve, daemon=True).start()


def _send_for(link: PusherLink, seconds: float, rate: float) -> tuple[int, float]:
    sides = [book_side(number) for number in range(8)]
    pairs = zip(cycle(link.channels), cycle(sides), strict=False)
    batch = b"".join(frame("updated", channel, side) for channel, side in islice(pairs, _BATCH))
    sent, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        if rate and sent / rate > passed:
            time.sleep(sent / rate - passed)
        link.send(batch)
        sent += _BATCH
    link.send(b"".join(frame("updated", channel, END) for channel in link.channels))
    return sent + len(link.channels), time.perf_counter() - began


def _pace(link: PusherLink, rate: float) -> None:
    number, due = 0, time.perf_counter()
    body = book_side(0)
    try:
        while True:
            channel = link.channels[number % len(link.channels)]
            stamp = f"{int(time.time() * 100_000) % 100_000_000:08d}"
            link.send(frame("updated", channel, body.replace(".00000000", f".{stamp}", 1)))
            number, due = number + 1, due + 1 / rate
            time.sleep(max(0.0, due - time.perf_counter()))
    except OSError:
        return
